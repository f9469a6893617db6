# SPDX-License-Identifier: Apache-2.0
"""From anything that holds an image to SVTRv2's pixel values, by multi-size resizing (MSR; paper, section 3.2).

Text is resized to one of a few sizes by its aspect ratio alone, so that long words stay readable and square ones keep
their height. `load_rgb` of `image_loading_svtrv2` opens every image; the image processor's `target_size` and `resize` choose every size and
resize to it, in training, evaluation and reading.

Agrees with Topdu/OpenOCR at ae934e5, `tools/data/ratio_dataset_tvresize.py` (the training rule). The models that upstream publishes
for use take images of one height instead: `openrec/preprocess/resize.py`, `RecDynamicResize`, there by OpenCV.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ImagesKwargs

from .image_loading_svtrv2 import UnreadableImageError, describe, load_rgb, open_image, upright_size


AUTO_MAX_RATIO = 100  # largest width in units of the height with max_ratio="auto"
BUCKET_SIZES = ((64, 64), (48, 96), (40, 112), (32, 128))  # (height, width) in pixels, for aspect ratios 1, 2, 3, 4


def target_size(
    width: int, height: int, max_ratio: int = 12, bucket_sizes: Sequence[Sequence[int]] = BUCKET_SIZES
) -> tuple[int, int]:
    """The size in pixels, `(height, width)`, that an image of `width` x `height` pixels is resized to.

    r = width / height, rounded half to even and clipped to 1..`max_ratio`, picks the r-th of `bucket_sizes`; a larger r
    gives the last one's height and r times that in width.

    >>> target_size(100, 40), target_size(100, 10)
    ((48, 96), (32, 320))

    Raises:
        ValueError: `max_ratio` is no whole number from 1 on.
    """
    if max_ratio < 1 or max_ratio != int(max_ratio):
        raise ValueError(f"max_ratio={max_ratio} must be a whole number, 1 or more.")
    max_ratio = int(max_ratio)
    ratio = min(max(round(width / height), 1), max_ratio)
    if ratio <= len(bucket_sizes):
        bucket_height, bucket_width = bucket_sizes[ratio - 1]
        return int(bucket_height), int(bucket_width)
    bucket_height = int(bucket_sizes[-1][0])
    return bucket_height, bucket_height * ratio


def resize(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resizes an RGB image to `size`, `(height, width)` in pixels; bicubic, uint8 array of shape (height, width, 3)."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def resize_bilinear(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """As `resize`, but bilinear between the nearest pixels even where the image shrinks, as OpenCV's INTER_LINEAR does."""
    pixels = np.asarray(image, dtype=np.float32)
    for axis, count in enumerate(size):
        places = (np.arange(count, dtype=np.float64) + 0.5) * (pixels.shape[axis] / count) - 0.5
        low = np.floor(places).astype(np.int64)
        shape = [-1 if other == axis else 1 for other in range(3)]
        share = (places - low).astype(np.float32).reshape(shape)
        last = pixels.shape[axis] - 1
        before, after = (pixels.take(np.clip(index, 0, last), axis) for index in (low, low + 1))
        pixels = before + (after - before) * share
    return np.rint(pixels).astype(np.uint8)


def normalize(pixels: np.ndarray) -> np.ndarray:
    """uint8 of shape (..., height, width, 3) to float32 of shape (..., 3, height, width) in -1..1."""
    scaled = pixels.astype(np.float32)
    scaled /= 127.5
    scaled -= 1.0
    return np.moveaxis(scaled, -1, -3)


def pad_to_batch(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images of shape (3, height, width) to one array, each in the upper left corner, and their sizes (batch_size, 2).

    The padding is only a container: the model crops each image back before it computes anything.
    """
    sizes = np.array([image.shape[-2:] for image in images], dtype=np.int64)
    if (sizes == sizes[0]).all():
        return np.stack(images), sizes
    batch = np.zeros((len(images), images[0].shape[0], *sizes.max(axis=0)), dtype=images[0].dtype)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


class SVTRv2ImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    max_ratio: int | str | None
    bucket_sizes: list[list[int]] | None
    fixed_height: int | None
    min_width: int
    width_multiple: int
    pixels_per_frame: int


class SVTRv2ImageProcessor(PilBackend):
    r"""
    Resizes each image by its own aspect ratio and scales it to -1..1.

    Args:
        max_ratio (`int`, *optional*, defaults to 12):
            Largest width in units of the height. Published: 4 in the first training stage, 12 in the second, 8 for
            Chinese, 20 for long text.
        bucket_sizes (`list[list[int]]`, *optional*, defaults to `[[64, 64], [48, 96], [40, 112], [32, 128]]`):
            Height and width in pixels for aspect ratios 1, 2, 3, ...; beyond the last, its height and a multiple of it.
        fixed_height (`int`, *optional*):
            Height in pixels of all images, instead of `bucket_sizes`, as the models take them that upstream publishes for use:
            resized by [`resize_bilinear`], blue before red, and filled with grey at the right.
        min_width (`int`, *optional*, defaults to 320):
            Width in pixels that narrower images are filled to, where there is a fixed height.
        width_multiple (`int`, *optional*, defaults to 1):
            What wider images are filled to a multiple of, where there is a fixed height. 1 is what the reference does in reading; in
            training, images of one width make a batch, which takes widths that come again.
        pixels_per_frame (`int`, *optional*, defaults to 4):
            Width in pixels of what the model reads as a frame; training leaves out labels with more characters than frames.
    """

    model_input_names = ["pixel_values", "image_sizes"]
    valid_kwargs = SVTRv2ImageProcessorKwargs

    def __init__(
        self,
        max_ratio: int = 12,
        bucket_sizes: Iterable[Sequence[int]] = BUCKET_SIZES,
        fixed_height: int | None = None,
        min_width: int = 320,
        width_multiple: int = 1,
        pixels_per_frame: int = 4,
        **kwargs: Any,
    ):
        # Not PilBackend's own constructor, which would add twenty attributes that have no effect here.
        super(PilBackend, self).__init__(**kwargs)
        self.max_ratio = max_ratio
        self.bucket_sizes = [list(size) for size in bucket_sizes]
        self.fixed_height = fixed_height
        self.min_width = min_width
        self.width_multiple = width_multiple
        self.pixels_per_frame = pixels_per_frame
        if not isinstance(max_ratio, int) or max_ratio < 1:
            raise ValueError(f"max_ratio={max_ratio!r} must be an integer, 1 or more.")
        if not self.bucket_sizes or any(len(size) != 2 or min(size) < 4 for size in self.bucket_sizes):
            raise ValueError(f"bucket_sizes={self.bucket_sizes} must be pairs (height, width) of 4 pixels or more.")
        if fixed_height is not None and (fixed_height < 4 or min_width < 4):
            raise ValueError(f"fixed_height={fixed_height} and min_width={min_width} must be 4 pixels or more.")
        if width_multiple < 1 or pixels_per_frame < 1:
            raise ValueError(
                f"width_multiple={width_multiple} and pixels_per_frame={pixels_per_frame} must be 1 or more."
            )

    @property
    def base_size(self) -> tuple[int, int]:
        """Height and width in pixels of the largest image of a short word; what is larger is a line."""
        if self.fixed_height is not None:
            return self.fixed_height, self.min_width
        height, width = self.bucket_sizes[-1]
        return int(height), int(width)

    def _limit(self, max_ratio: int | str | None) -> int:
        if max_ratio is None:
            return self.max_ratio
        if max_ratio == "auto":
            return max(AUTO_MAX_RATIO, self.max_ratio)
        if isinstance(max_ratio, str):
            raise ValueError(f'max_ratio={max_ratio!r} must be a whole number, 1 or more, or "auto".')
        return max_ratio

    def squeezes(self, width: int, height: int, max_ratio: int | str | None = None) -> bool:
        """Whether an image of `width` x `height` pixels is wider than the limit, so that `resize` squeezes it."""
        return round(width / height) > self._limit(max_ratio)

    def target_size(self, width: int, height: int, max_ratio: int | str | None = None) -> tuple[int, int]:
        """Height and width in pixels that an image of `width` x `height` pixels is given."""
        max_ratio = self._limit(max_ratio)
        if self.fixed_height is None:
            return target_size(width, height, max_ratio, self.bucket_sizes)
        wanted = int(self.fixed_height * min(width / height, max_ratio))
        if wanted > self.min_width:
            wanted = math.ceil(wanted / self.width_multiple) * self.width_multiple
        return self.fixed_height, max(wanted, self.min_width)

    def filled_width(self, width: int, height: int, size: tuple[int, int]) -> int:
        """Pixels of the width of `size`, counted from the left, that an image of `width` x `height` pixels takes of it."""
        if self.fixed_height is None:
            return size[1]
        return min(math.ceil(self.fixed_height * (width / height)), size[1])

    def resize(self, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
        """Gives an RGB image a size of `target_size`: uint8 of shape `(height, width, 3)`."""
        if self.fixed_height is None:
            return resize(image, size)
        filled = self.filled_width(*image.size, size)
        pixels = np.full((*size, 3), 128, dtype=np.uint8)  # half a grey level more than the zeros of the reference
        pixels[:, :filled] = resize_bilinear(image, (size[0], filled))[..., ::-1]
        return pixels

    def prepare(self, image: Image.Image, max_ratio: int | str | None = None) -> np.ndarray:
        """One RGB image to float32 of shape `(3, height, width)` at its own target size."""
        return normalize(self.resize(image, self.target_size(*image.size, max_ratio)))

    def preprocess(
        self, images: Any, max_ratio: int | str | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list of images, each as [`load_rgb`] takes it; a four-dimensional array or tensor
                is a list of images.
            max_ratio (`int` or `"auto"`, *optional*): overrides the processor's own; "auto" gives every line the width that it
                needs, up to 100 times the height.
            return_tensors (`str`, *optional*): "pt" for tensors; numpy arrays by default.

        Returns:
            `pixel_values` of shape `(batch_size, 3, height, width)`, float32, each image in the upper left corner;
            `image_sizes` of shape `(batch_size, 2)`, height and width of each, which the model crops back to.

        Raises:
            UnreadableImageError: an image cannot be read; the message tells which.
            ValueError: there is no image.
            TypeError: an argument has no meaning here.
        """
        if kwargs:
            raise TypeError(f"SVTRv2ImageProcessor knows no {', '.join(map(repr, kwargs))}; it takes max_ratio.")
        is_batch = isinstance(images, (list, tuple)) or getattr(images, "ndim", 3) == 4
        if is_batch and not len(images):
            raise ValueError("There is no image: the list is empty.")
        sources = list(images) if is_batch else [images]
        prepared = []
        for number, source in enumerate(sources):
            name = f"image {number} of {len(sources)}, {describe(source)}" if is_batch else None
            prepared.append(self.prepare(load_rgb(source, name), max_ratio))
        pixel_values, image_sizes = pad_to_batch(prepared)
        return BatchFeature({"pixel_values": pixel_values, "image_sizes": image_sizes}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        own: Mapping[str, Any] = super().to_dict()
        return {name: value for name, value in own.items() if not name.startswith("_")}


__all__ = [
    "AUTO_MAX_RATIO",
    "BUCKET_SIZES",
    "SVTRv2ImageProcessor",
    "UnreadableImageError",
    "load_rgb",
    "normalize",
    "open_image",
    "pad_to_batch",
    "resize",
    "resize_bilinear",
    "target_size",
    "upright_size",
]
