# SPDX-License-Identifier: Apache-2.0
"""From anything that holds an image to SVTRv2's pixel values, by multi-size resizing (MSR; paper, section 3.2).

Text is resized to one of a few sizes by its aspect ratio alone, so that long words stay readable and square ones keep
their height. `load_rgb` and the image processor's `target_size` and `resize` are the only places where an image is opened, a
size chosen, or an image resized to it: training, evaluation and reading all pass through them.

Agrees with Topdu/OpenOCR at ae934e5, `tools/data/ratio_dataset_tvresize.py` (the training rule). The models that upstream publishes
for use take images of one height instead: `openrec/preprocess/resize.py`, `RecDynamicResize`, there by OpenCV.
"""

import http.client
import io
import math
import struct
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_utils import BatchFeature
from transformers.processing_utils import ImagesKwargs


BUCKET_SIZES = ((64, 64), (48, 96), (40, 112), (32, 128))  # (height, width) in pixels, for aspect ratios 1, 2, 3, 4


class UnreadableImageError(ValueError):
    """An image that cannot be read; the message names it and says why."""


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


def load_rgb(source: Any, name: str | None = None, timeout: float | None = 30.0) -> Image.Image:
    """Opens an image of any usual kind as RGB, upright, on white.

    Args:
        source: a PIL image; a path; an http, https or data URL; the bytes of a file; an open file; an array or tensor of shape
            (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels, of integers
            in 0..255, uint16 in 0..65535, bool, or floats in 0..1.
        name (`str`, *optional*): what to call the image in errors; by default its path or a description.
        timeout (`float`, *optional*, defaults to 30): seconds to wait for a URL.

    The EXIF rotation is applied, transparency composed on white, 16-bit grey scaled to 8 bits.

    Raises:
        UnreadableImageError: no image can be made of it.
    """
    with _named_errors(source, name):
        if isinstance(source, (np.ndarray, torch.Tensor)):
            return _array_to_rgb(source)
        if isinstance(source, Image.Image):
            return _pil_to_rgb(source)
        with _open(source, timeout) as image:
            return _pil_to_rgb(image)


def open_image(source: Any, name: str | None = None, timeout: float | None = 30.0) -> Image.Image:
    """Opens an image file and reads its header; `load_rgb` may take it from there.

    Args:
        source: a path, a URL or the bytes of a file.
        name (`str`, *optional*): what to call the image in errors.
        timeout (`float`, *optional*, defaults to 30): seconds to wait for a URL.

    Raises:
        UnreadableImageError: it has no header that Pillow knows.
    """
    with _named_errors(source, name):
        return _open(source, timeout)


def upright_size(image: Image.Image, name: str | None = None) -> tuple[int, int]:
    """Width and height in pixels that `load_rgb` will give an opened image, told from its header.

    Raises:
        UnreadableImageError: the header is damaged, or tells of no pixels.
    """
    with _named_errors(image, name):
        if 0 in image.size:
            raise ValueError(f"its size is {image.width}x{image.height} pixels")
        # not image.getexif(), which for PNG decodes all pixels in search of a chunk behind them
        sideways = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (image.height, image.width) if sideways else image.size


@contextmanager
def _named_errors(source: Any, name: str | None) -> Iterator[None]:
    """Tells whatever goes wrong in opening an image as an `UnreadableImageError` that names it."""
    try:
        yield
    # What Pillow's decoders raise on damaged files is this motley; found by damaging files of fourteen formats at random.
    except (
        ArithmeticError,
        EOFError,
        Image.DecompressionBombError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        http.client.HTTPException,
        struct.error,
    ) as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "it is in no image format that Pillow knows"
        elif isinstance(error, FileNotFoundError):
            reason = "there is no such file"
        elif (
            isinstance(error, OSError) and error.strerror
        ):  # without the file's name, which may be any text of any length
            reason = error.strerror
        else:
            reason = str(error) or type(error).__name__
        raise UnreadableImageError(f"Cannot read {name or _describe(source)}: {reason}.") from error


def _describe(source: Any) -> str:
    if isinstance(source, str):
        return f"image {source[:200]!r}"
    if isinstance(source, Path):
        return f"image {str(source)!r}"
    if isinstance(source, Image.Image):
        filename = getattr(source, "filename", "")
        return (
            f"image {filename!r}"
            if filename
            else f"a PIL image of {source.width}x{source.height} pixels, {source.mode}"
        )
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"an array of shape {tuple(source.shape)} and type {source.dtype}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"an image of {len(source)} bytes"
    return f"an object of type {type(source).__name__}"


def _open(source: Any, timeout: float | None) -> Image.Image:
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:image/")):
        with urllib.request.urlopen(source, timeout=timeout) as response:
            source = response.read()
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ValueError("it is empty")
        source = io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        source = Path(source)
        if source.is_dir():
            raise ValueError("it is a folder")
        if source.is_file() and source.stat().st_size == 0:
            raise ValueError("the file is empty")
    elif not hasattr(source, "read"):
        raise TypeError("an image is a PIL image, a path, a URL, bytes, an open file, an array or a tensor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # an error in _pil_to_rgb
        return Image.open(source)


def _pil_to_rgb(image: Image.Image) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"its {image.width}x{image.height} pixels exceed PIL.Image.MAX_IMAGE_PIXELS={limit}, the guard against "
            "decompression bombs"
        )
    if 0 in image.size:
        raise ValueError(f"its size is {image.width}x{image.height} pixels")
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith(("I", "F")):
        return _array_to_rgb(np.asarray(image), wide=True)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _array_to_rgb(array: np.ndarray | torch.Tensor, wide: bool = False) -> Image.Image:
    """`wide`: the array is of a PIL mode whose numbers may go beyond what they mean (I: 16 bits, F: 0..255)."""
    channels_first = isinstance(array, torch.Tensor)
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim == 3:
        layouts = (array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4))
        if layouts == (True, False) or (layouts == (True, True) and channels_first):
            array = np.moveaxis(array, 0, -1)
        elif not any(layouts):
            raise ValueError(f"neither the first nor the last dimension of shape {array.shape} is 1, 3 or 4 channels")
    elif array.ndim != 2:
        raise ValueError(f"an image has two or three dimensions, not {array.ndim}")
    if 0 in array.shape:
        raise ValueError("it has no pixels")
    array = _to_uint8(array, wide)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _pil_to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _to_uint8(array: np.ndarray, wide: bool) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if np.issubdtype(array.dtype, np.floating):
        if low >= 0 and high <= 1:
            return np.rint(array * 255).astype(np.uint8)
        if wide and low >= 0 and high <= 255:
            return np.rint(array).astype(np.uint8)
        raise ValueError(f"its floats lie in {low:g}..{high:g}; pass floats in 0..1, or integers in 0..255")
    if np.issubdtype(array.dtype, np.integer):
        sixteen_bits = array.dtype.str[1:] == "u2" or (wide and high > 255)  # of either byte order
        if low >= 0 and high <= (65535 if sixteen_bits else 255):
            return (array // 257 if sixteen_bits else array).astype(np.uint8)
        raise ValueError(f"its integers lie in {low}..{high}; pass 0..255, or uint16 in 0..65535")
    raise ValueError(f"numbers of type {array.dtype} are no colours")


class SVTRv2ImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    max_ratio: int | None
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

    def target_size(self, width: int, height: int, max_ratio: int | None = None) -> tuple[int, int]:
        """Height and width in pixels that an image of `width` x `height` pixels is given."""
        max_ratio = self.max_ratio if max_ratio is None else max_ratio
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

    def prepare(self, image: Image.Image, max_ratio: int | None = None) -> np.ndarray:
        """One RGB image to float32 of shape `(3, height, width)` at its own target size."""
        return normalize(self.resize(image, self.target_size(*image.size, max_ratio)))

    def preprocess(
        self, images: Any, max_ratio: int | None = None, return_tensors: str | None = None, **kwargs: Any
    ) -> BatchFeature:
        """
        Args:
            images: one image or a list of images, each as [`load_rgb`] takes it; a four-dimensional array or tensor
                is a list of images.
            max_ratio (`int`, *optional*): overrides the processor's own.
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
            name = f"image {number} of {len(sources)}, {_describe(source)}" if is_batch else None
            prepared.append(self.prepare(load_rgb(source, name), max_ratio))
        pixel_values, image_sizes = pad_to_batch(prepared)
        return BatchFeature({"pixel_values": pixel_values, "image_sizes": image_sizes}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        own: Mapping[str, Any] = super().to_dict()
        return {name: value for name, value in own.items() if not name.startswith("_")}


__all__ = [
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
