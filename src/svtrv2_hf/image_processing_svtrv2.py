# SPDX-License-Identifier: Apache-2.0
"""Image processors: resizing and normalization of images for training, evaluation and inference.

Models of the paper use multi-size resizing (section 3.2): the aspect ratio of an image selects one of a few sizes, so that
long words stay legible and short ones keep their height. The released OpenOCR 'server' models use images of one height.

Equivalent to Topdu/OpenOCR at ae934e5: `tools/data/ratio_dataset_tvresize.py` (the training rule) and, for 'server' models,
`openrec/preprocess/resize.py`, `RecDynamicResize`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.processing_utils import ImagesKwargs

from .image_loading_svtrv2 import UnreadableImageError, describe, load_rgb, open_image, upright_size
from .processing_svtrv2 import SVTRv2Processor, unknown_option
from .resizing_svtrv2 import BUCKET_SIZES, normalize, pad_to_batch, resize, resize_bilinear, target_size


AUTO_MAX_RATIO = 100  # maximum aspect ratio with max_ratio="auto"


STANDARD_OPTIONS = (
    "do_convert_rgb",
    "do_resize",
    "size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
# Options of other image processors that have no effect here, with the values that are accepted.
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "do_convert_rgb": (True,),
    "default_to_square": (None, True, False),
    "crop_size": (None,),
    "do_pad": (None, True),
    "pad_size": (None,),
    "do_center_crop": (None, False),
    "data_format": (None, "channels_first"),
    "disable_grouping": (None, True, False),
    "image_seq_length": (None,),
}


class SVTRv2ImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    max_ratio: int | str | None
    bucket_sizes: list[list[int]] | None
    pixels_per_frame: int | None


class SVTRv2ServerImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    max_ratio: int | str | None
    fixed_height: int | None
    min_width: int | None
    width_multiple: int | None
    pixels_per_frame: int | None


class SVTRv2ImageProcessor(PilBackend):
    r"""
    Image processor that resizes each image to a size for its aspect ratio, and scales pixels to -1..1.

    Args:
        max_ratio (`int`, *optional*, defaults to 12):
            Maximum aspect ratio (width / height) of resized images. Published values: 4 in the first training stage, 12 in
            the second, 8 for Chinese, 20 for long text.
        bucket_sizes (`list[list[int]]`, *optional*, defaults to `[[64, 64], [48, 96], [40, 112], [32, 128]]`):
            Height and width in pixels for aspect ratios 1, 2, 3, ...; beyond the last one, see [`target_size`].
        pixels_per_frame (`int`, *optional*, defaults to 4):
            Pixels of image width per frame of the model. Labels with more characters than frames are excluded from training.
        do_resize, size, resample, do_rescale, rescale_factor, do_normalize, image_mean, image_std (*optional*):
            As in other image processors; the defaults are those that the models are trained with. `size`, a height and a width, is
            the size of all images, instead of one for each aspect ratio.
    """

    model_input_names = ["pixel_values", "image_sizes"]
    valid_kwargs = SVTRv2ImageProcessorKwargs
    do_convert_rgb = True
    do_resize = True
    size = None
    resample = Image.Resampling.BICUBIC
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    _source: tuple[Any, dict[str, Any]] | None = None  # where it is loaded from
    # Attributes on which the sizes of resized images depend.
    size_attributes: tuple[str, ...] = ("max_ratio", "bucket_sizes", "do_resize", "size")

    def __init__(
        self,
        max_ratio: int = 12,
        bucket_sizes: Iterable[Sequence[int]] = BUCKET_SIZES,
        pixels_per_frame: int = 4,
        **kwargs: Any,
    ):
        # Skips the constructor of PilBackend, which adds attributes without effect here.
        super(PilBackend, self).__init__(**kwargs)
        self.max_ratio = max_ratio
        self.bucket_sizes = [list(size) for size in bucket_sizes]
        self.pixels_per_frame = pixels_per_frame
        self._check(kwargs)
        if kwargs.get("fixed_height") is not None:
            raise ValueError("fixed_height is not an option of SVTRv2ImageProcessor: use SVTRv2ServerImageProcessor.")

    def _check(self, options: Iterable[str]) -> None:
        """Check all attributes, and of standard options that they have an effect or their default."""
        for name in options:
            value = getattr(self, name)
            if name in WITHOUT_EFFECT and value not in WITHOUT_EFFECT[name]:
                raise ValueError(f"{name}={value!r} is not supported by {type(self).__name__}: leave it out.")
        if not isinstance(self.max_ratio, int) or self.max_ratio < 1:
            raise ValueError(f'max_ratio={self.max_ratio!r} must be an integer, 1 or more, or in a call "auto".')
        if not self.bucket_sizes or any(len(size) != 2 or min(size) < 4 for size in self.bucket_sizes):
            raise ValueError(f"bucket_sizes={self.bucket_sizes} must be pairs (height, width) of 4 pixels or more.")
        if self.pixels_per_frame < 1:
            raise ValueError(f"pixels_per_frame={self.pixels_per_frame} must be 1 or more.")
        if self.size is not None:
            size = get_size_dict(self.size)
            if set(size) != {"height", "width"} or min(size.values()) < 4:
                raise ValueError(f"size={self.size!r} must be a height and a width of 4 pixels or more.")
            self.size = size

    @property
    def has_default_pixels(self) -> bool:
        """Whether pixels are scaled to -1..1, as in training."""
        mean_and_std = {*np.ravel(self.image_mean).tolist(), *np.ravel(self.image_std).tolist()}
        return bool(self.do_rescale and self.do_normalize and self.rescale_factor == 1 / 255 and mean_and_std == {0.5})

    @property
    def base_size(self) -> tuple[int, int]:
        """Height and width in pixels of the largest image of a short word; larger ones are lines."""
        height, width = self.bucket_sizes[-1]
        return int(height), int(width)

    def _max_ratio(self, max_ratio: int | str | None) -> int:
        if max_ratio is None:
            return self.max_ratio
        if max_ratio == "auto":
            return max(AUTO_MAX_RATIO, self.max_ratio)
        if isinstance(max_ratio, str):
            raise ValueError(f'max_ratio={max_ratio!r} must be an integer, 1 or more, or "auto".')
        return max_ratio

    def exceeds_max_ratio(self, width: int, height: int, max_ratio: int | str | None = None) -> bool:
        """Return whether [`resize`] compresses an image of `width` x `height` pixels to the maximum aspect ratio."""
        return self.do_resize and self.size is None and round(width / height) > self._max_ratio(max_ratio)

    def target_size(self, width: int, height: int, max_ratio: int | str | None = None) -> tuple[int, int]:
        """Compute the size, `(height, width)` in pixels, to which an image of `width` x `height` pixels is resized."""
        if not self.do_resize:
            return height, width
        if self.size is not None:
            return self.size["height"], self.size["width"]
        return self._size_by_ratio(width, height, self._max_ratio(max_ratio))

    def _size_by_ratio(self, width: int, height: int, max_ratio: int) -> tuple[int, int]:
        return target_size(width, height, max_ratio, self.bucket_sizes)

    def content_width(self, width: int, height: int, size: tuple[int, int]) -> int:  # noqa: ARG002
        """Compute the part of the width of `size` that an image of `width` x `height` pixels fills, from the left."""
        return size[1]

    def resize(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Resize an RGB image to a size of [`target_size`]; uint8 of shape `(height, width, 3)`."""
        return resize(image, size, self.resample)

    def scale(self, pixels: np.ndarray) -> np.ndarray:
        """Normalize images of [`resize`], of shape `(..., height, width, 3)`; float32 of shape `(..., 3, height, width)`."""
        if self.has_default_pixels:
            return normalize(pixels)
        scaled = pixels.astype(np.float32)
        if self.do_rescale:
            scaled *= self.rescale_factor
        if self.do_normalize:
            mean, std = np.asarray(self.image_mean, np.float32), np.asarray(self.image_std, np.float32)
            scaled = (scaled - mean) / std
        return np.moveaxis(scaled, -1, -3)

    def prepare(self, image: Image.Image, max_ratio: int | str | None = None) -> np.ndarray:
        """Resize and normalize one RGB image; float32 of shape `(3, height, width)`."""
        return self.scale(self.resize(image, self.target_size(*image.size, max_ratio)))

    def preprocess(
        self,
        images: Any,
        max_ratio: int | str | None = None,
        return_tensors: str | None = None,
        input_data_format: str | None = None,
        device: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images: an image or a list, column of a dataset, or iterator of images, as for [`load_rgb`]; a four-dimensional array
                or tensor is a list of images.
            max_ratio (`int` or `"auto"`, *optional*): overrides the maximum aspect ratio of the processor; "auto" resizes
                lines up to a ratio of 100 without distortion.
            return_tensors (`str`, *optional*): "pt" for tensors; numpy arrays by default.
            input_data_format (`str`, *optional*): "channels_first" or "channels_last" for arrays and tensors; recognized by the
                number of channels by default.
            device (*optional*): device of the tensors.
            kwargs (*optional*): override attributes of the image processor, such as `do_normalize`.

        Returns:
            `pixel_values`, float32 of shape `(batch_size, 3, height, width)`, each image in the upper left corner, and
            `image_sizes` of shape `(batch_size, 2)`, the height and width to which the model crops each image.

        Raises:
            UnreadableImageError: an image is unreadable; the message identifies it.
            ValueError: `images` is empty.
            TypeError: an argument is unknown.
        """
        processor = self._with(kwargs)
        if input_data_format not in (None, "channels_first", "channels_last"):
            raise ValueError(f'input_data_format={input_data_format!r} must be "channels_first" or "channels_last".')
        is_batch = _is_batch(images)
        sources = list(images) if is_batch else [images]
        if not sources:
            raise ValueError("No images: the list is empty.")
        # Other processors take a list of images for each text.
        if all(isinstance(source, (list, tuple)) for source in sources):
            sources = [image for source in sources for image in source]
        prepared = []
        for number, source in enumerate(sources):
            name = f"image {number} of {len(sources)}, {describe(source)}" if is_batch else None
            if input_data_format is not None and getattr(source, "ndim", 0) == 3:
                source = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else np.asarray(source)
                source = np.moveaxis(source, 0, -1) if input_data_format == "channels_first" else source
            prepared.append(processor.prepare(load_rgb(source, name), max_ratio))
        pixel_values, image_sizes = pad_to_batch(prepared)
        batch = BatchFeature({"pixel_values": pixel_values, "image_sizes": image_sizes}, tensor_type=return_tensors)
        return batch if device is None else batch.to(device)

    def _with(self, options: Mapping[str, Any]) -> "SVTRv2ImageProcessor":
        """Return this image processor with other values of some attributes.

        Raises:
            TypeError: an option is unknown.
            ValueError: the value of an option is not supported.
        """
        known = self.valid_kwargs.__annotations__
        for name in options:
            if name not in known:
                raise unknown_option(self, name, known)
        given = {name: value for name, value in options.items() if value is not None}
        if not given:
            return self
        changed = copy(self)
        changed.__dict__.update(given)
        changed._check(given)
        return changed

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        options = {
            name: kwargs[name] for name in ("revision", "token", "cache_dir", "local_files_only") if name in kwargs
        }
        (loaded[0] if isinstance(loaded, tuple) else loaded)._source = (pretrained_model_name_or_path, options)
        return loaded

    def post_process_text_recognition(self, outputs: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Decode outputs of the model with the charset in the folder that this image processor is loaded from.

        See [`SVTRv2Processor.post_process_text_recognition`].

        Raises:
            ValueError: this image processor is not loaded from a folder or the Hub.
        """
        if self._source is None:
            raise ValueError("The image processor was not loaded with from_pretrained: use SVTRv2Processor.")
        folder, options = self._source
        processor = SVTRv2Processor(self, AutoTokenizer.from_pretrained(folder, **options))
        return processor.post_process_text_recognition(outputs, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        standard = {name: getattr(self, name) for name in STANDARD_OPTIONS}
        own = {name: value for name, value in super().to_dict().items() if not name.startswith("_")}
        return {**standard, **own}


class SVTRv2ServerImageProcessor(SVTRv2ImageProcessor):
    r"""
    Image processor of the released OpenOCR 'server' models: resizes images to one height with [`resize_bilinear`], keeping
    the aspect ratio, pads them on the right with gray, and swaps red and blue.

    Args:
        max_ratio (`int`, *optional*, defaults to 40):
            Maximum aspect ratio (width / height) of resized images.
        fixed_height (`int`, *optional*, defaults to 48):
            Height in pixels of resized images.
        min_width (`int`, *optional*, defaults to 320):
            Width in pixels to which narrower images are padded.
        width_multiple (`int`, *optional*, defaults to 1):
            Number of which the widths of wider images are multiples, by padding. The reference uses 1 for inference; in
            training, where batches contain images of one width, a larger number leads to fewer different widths.
        pixels_per_frame (`int`, *optional*, defaults to 8):
            Pixels of image width per frame of the model.
    """

    valid_kwargs = SVTRv2ServerImageProcessorKwargs
    resample = Image.Resampling.BILINEAR
    size_attributes = ("max_ratio", "fixed_height", "min_width", "width_multiple")

    def __init__(
        self,
        max_ratio: int = 40,
        fixed_height: int = 48,
        min_width: int = 320,
        width_multiple: int = 1,
        pixels_per_frame: int = 8,
        **kwargs: Any,
    ):
        super().__init__(max_ratio, [[fixed_height, min_width]], pixels_per_frame, **kwargs)
        self.fixed_height = fixed_height
        self.min_width = min_width
        self.width_multiple = width_multiple
        if width_multiple < 1:
            raise ValueError(f"width_multiple={width_multiple} must be 1 or more.")

    def _check(self, options: Iterable[str]) -> None:
        super()._check(options)
        if not self.do_resize or self.size is not None or self.resample != Image.Resampling.BILINEAR:
            raise ValueError(
                f"{type(self).__name__} supports neither do_resize=False nor other values of size and resample."
            )

    def _size_by_ratio(self, width: int, height: int, max_ratio: int) -> tuple[int, int]:
        resized = int(self.fixed_height * min(width / height, max_ratio))
        if resized > self.min_width:
            resized = math.ceil(resized / self.width_multiple) * self.width_multiple
        return self.fixed_height, max(resized, self.min_width)

    def content_width(self, width: int, height: int, size: tuple[int, int]) -> int:
        return min(math.ceil(self.fixed_height * (width / height)), size[1])

    def resize(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        width = self.content_width(*image.size, size)
        pixels = np.full((*size, 3), 128, dtype=np.uint8)  # half a gray level above the zeros of the reference
        pixels[:, :width] = resize_bilinear(image, (size[0], width))[..., ::-1]
        return pixels

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().to_dict().items() if name != "bucket_sizes"}


def _is_batch(images: Any) -> bool:
    if isinstance(images, Iterator):
        return not hasattr(images, "read")  # an open file is an iterator over lines
    is_sequence = isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray, memoryview))
    return is_sequence or getattr(images, "ndim", 3) == 4


__all__ = [
    "AUTO_MAX_RATIO",
    "SVTRv2ImageProcessor",
    "SVTRv2ServerImageProcessor",
    "UnreadableImageError",
    "load_rgb",
    "open_image",
    "upright_size",
]
