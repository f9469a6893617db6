# SPDX-License-Identifier: Apache-2.0
"""Loading of images as RGB, with [`load_rgb`], for training, evaluation and inference.

Files may come from untrusted sources, so formats, pixels, bytes and the time of a download are limited. Large images are
converted in blocks, so that a conversion needs no more memory than the decoded image and its RGB copy.
"""

import io
import re
import stat
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from .download_svtrv2 import download
from .image_headers_svtrv2 import check_decoder, check_exif, check_header


# Formats that Pillow decodes itself, and HEIF and JPEG XL if a plugin is registered. Other formats start programs (PostScript),
# have another size than in their header (ICO), or have no decoder. TGA is last, since it has no signature.
FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("HEIF", "JXL", "TGA"),
)
MAX_PIXELS = 64_000_000  # photos of phones have 12 to 50 million, crops of lines 20,000
MAX_BYTES = 2**28  # of a file: MAX_PIXELS uncompressed
_BLOCK = 1024  # width and height in pixels of the blocks in which large images are converted

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Box = tuple[int, int, int, int]  # left, top, right, bottom


class UnreadableImageError(ValueError):
    """Error for an unreadable image; the message contains its name and the reason."""


def load_rgb(
    source: Any, name: str | None = None, timeout: float | None = 30.0, max_pixels: int | None = None
) -> Image.Image:
    """Load an image as upright RGB.

    Applies the EXIF rotation, composites transparent pixels onto white, and scales 16-bit gray to 8 bits. A 16-bit file is
    scaled from 8, 10 or 12 bits if its largest value fits.

    Args:
        source: a PIL image; a path; an http, https or data URL; the bytes of a file; an open file; an array or tensor of shape
            (height, width), (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels, of integers
            in 0..255, uint16 in 0..65535, bool, or floats in 0..1; the bytes and path of an undecoded image of `datasets`.
        name (`str`, *optional*): name of the image in errors; defaults to its path or a description.
        timeout (`float`, *optional*, defaults to 30): limit of the total time of a download in seconds; `None` for no limit.
        max_pixels (`int`, *optional*, defaults to 64,000,000): number of pixels of the largest image to decode, at most
            `PIL.Image.MAX_IMAGE_PIXELS`. Loading takes 8 to 25 bytes of memory per pixel.

    Raises:
        UnreadableImageError: the source is not an image, or exceeds a limit.
    """
    if isinstance(source, Mapping) and source.keys() == {"bytes", "path"}:  # Image(decode=False) of datasets
        name = name or (describe(source["path"]) if source["path"] else None)
        source = source["path"] if source["bytes"] is None else source["bytes"]
    with _named_errors(source, name):
        if isinstance(source, (np.ndarray, torch.Tensor)):
            return _array_to_rgb(source, max_pixels)
        if isinstance(source, Image.Image):
            _check_undecoded(source, max_pixels)
            rgb, orientation = _pil_to_rgb(source, max_pixels)
        else:
            with _open(source, timeout, max_pixels) as image:
                rgb, orientation = _pil_to_rgb(image, max_pixels)
            del image  # frees its pixels before the transposition allocates more
        method = _TRANSPOSITIONS.get(orientation)
        return rgb if method is None else rgb.transpose(method)


def open_image(source: Any, name: str | None = None) -> Image.Image:
    """Open an image file and read its header; `load_rgb` accepts the result.

    Args:
        source: a path, a URL or the bytes of a file.
        name (`str`, *optional*): name of the image in errors.

    Raises:
        UnreadableImageError: the source is not a file in a supported format.
    """
    with _named_errors(source, name):
        return _open(source, timeout=30.0, max_pixels=None)


def upright_size(image: Image.Image, name: str | None = None) -> tuple[int, int]:
    """Return width and height in pixels of the result of `load_rgb` for an opened image, from its header.

    Raises:
        UnreadableImageError: the header is damaged, or the image has no pixels.
    """
    with _named_errors(image, name):
        if 0 in image.size:
            raise ValueError(f"its size is {image.width}x{image.height} pixels")
        check_exif(image)
        # image.getexif() would decode all pixels of a PNG file to search for a chunk after them.
        sideways = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (image.height, image.width) if sideways else image.size


@contextmanager
def _named_errors(source: Any, name: str | None) -> Iterator[None]:
    """Raise any error of loading an image as an `UnreadableImageError` with its name."""
    try:
        yield
    # Errors that Pillow's decoders raise for damaged files, found by damaging files of all formats at random.
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
        HTTPException,
        struct.error,
    ) as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "it is in no image format that Pillow knows"
        elif isinstance(error, FileNotFoundError):
            reason = "no such file"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror  # str(error) contains the file name, which may be any text of any length
        else:
            reason = str(error) or type(error).__name__
        raise UnreadableImageError(f"Cannot read {name or describe(source)}: {reason}.") from error


def describe(source: Any) -> str:
    """Return the name of an image in errors if none is given."""
    if isinstance(source, str):
        return f"image {source[:200]!r}"
    if isinstance(source, Path):
        return f"image {str(source)!r}"
    if isinstance(source, Image.Image):
        if filename := getattr(source, "filename", ""):
            return f"image {filename!r}"
        return f"a PIL image of {source.width}x{source.height} pixels, {source.mode}"
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return f"an array of shape {tuple(source.shape)} and type {source.dtype}"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"an image of {len(source)} bytes"
    return f"an object of type {type(source).__name__}"


def _open(source: Any, timeout: float | None, max_pixels: int | None) -> Image.Image:
    if isinstance(source, str) and (scheme := re.match(r"([a-z][a-z0-9+.-]+)://|data:image/", source, re.IGNORECASE)):
        if scheme[1] and scheme[1].lower() not in ("http", "https"):
            raise ValueError(f"URLs with {scheme[1]}:// are not supported; pass http, https or data")
        source = download(source, timeout, MAX_BYTES)
    if isinstance(source, (bytes, bytearray, memoryview)):
        if not len(source):
            raise ValueError("it is empty")
        source = io.BytesIO(source)
    elif isinstance(source, (str, Path)):
        source = Path(source)
        _check_file(source)
    elif isinstance(source, Mapping):
        raise TypeError(f"it has the keys {', '.join(map(str, source))}: pass the image in it")
    elif not hasattr(source, "read"):
        raise TypeError("an image is a PIL image, a path, a URL, bytes, an open file, an array or a tensor")
    elif not _seekable(source):  # Pillow would read all of an endless stream
        source = io.BytesIO(source.read(MAX_BYTES))
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    with _opened(source) as file:
        check_header(file, lambda width, height: _check_size(width, height, max_pixels))
    try:
        with _without_warnings():
            return Image.open(source, formats=formats)
    except UnidentifiedImageError:
        if name := _unsupported_format(source):
            raise ValueError(_unsupported(name)) from None
        raise
    except Image.DecompressionBombError:
        raise ValueError(f"it has more pixels than the limit of {_limit(max_pixels)}: crop it") from None


@contextmanager
def _opened(source: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hide Pillow's warnings: a damaged file can cause thousands, and the relevant ones become errors."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _seekable(file: Any) -> bool:
    return getattr(file, "seekable", lambda: hasattr(file, "seek"))()


def _check_undecoded(image: Image.Image, max_pixels: int | None) -> None:
    """Check an image that the caller opened if it is not decoded yet."""
    if not isinstance(image, ImageFile.ImageFile) or not (image.tile or isinstance(image, ImageFile.StubImageFile)):
        return
    if image.format not in FORMATS:
        raise ValueError(_unsupported(f"{image.format_description or 'unknown'} ({image.format})"))
    file = getattr(image, "fp", None)
    if file is not None and _seekable(file):
        place = file.tell()
        try:
            check_header(file, lambda width, height: _check_size(width, height, max_pixels))
        finally:
            file.seek(place)


def _check_file(path: Path) -> None:
    """Check that a path is a regular file of a valid size: opening a named pipe or a device may block forever."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ValueError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file, but a pipe, socket or device")
    if status.st_size == 0:
        raise ValueError("the file is empty")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"it has {status.st_size} bytes, more than the limit of {MAX_BYTES}")


def _unsupported_format(source: Path | IO[bytes]) -> str | None:
    """Return the format of a file outside `FORMATS` if Pillow recognizes its first bytes."""
    with _opened(source) as file:
        file.seek(0)
        prefix = file.read(16).ljust(16, b"\0")
    for name, (factory, accept) in Image.OPEN.items():
        if name not in FORMATS and accept and accept(prefix) is True:
            return f"{getattr(factory, 'format_description', name)} ({name})"
    return None


def _unsupported(name: str) -> str:
    return f"its format, {name}, is not supported: convert it to PNG or JPEG"


def _limit(max_pixels: int | None) -> int:
    limit = MAX_PIXELS if max_pixels is None else max_pixels
    return limit if Image.MAX_IMAGE_PIXELS is None else min(limit, Image.MAX_IMAGE_PIXELS)


def _check_size(width: int, height: int, max_pixels: int | None) -> None:
    if width * height > _limit(max_pixels):
        raise ValueError(
            f"its {width}x{height} pixels exceed the limit of {_limit(max_pixels)}, the smaller one of max_pixels and "
            "PIL.Image.MAX_IMAGE_PIXELS: crop it, or raise them"
        )
    if width * height == 0:
        raise ValueError(f"its size is {width}x{height} pixels")


def _pil_to_rgb(image: Image.Image, max_pixels: int | None) -> tuple[Image.Image, int]:
    """Convert to a new RGB image, and return also the EXIF orientation, which is not applied yet."""
    _check_size(*image.size, max_pixels)
    check_decoder(image)
    with _without_warnings():
        image.load()
    if image.mode.startswith(("I", "F")):
        rgb = _numbers_to_rgb(lambda box: np.asarray(image.crop(box)), image.size, wide=True)
    else:
        rgb = _by_blocks(image.size, lambda box: _on_white(image.crop(box)))
    rgb.info = {}  # EXIF and transparency are applied
    check_exif(image)
    with _without_warnings():
        return rgb, image.getexif().get(ExifTags.Base.Orientation, 1)


def _on_white(image: Image.Image) -> Image.Image:
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _boxes(size: tuple[int, int]) -> Iterator[Box]:
    width, height = size
    if width * height <= _BLOCK**2:
        yield 0, 0, width, height
        return
    for top in range(0, height, _BLOCK):
        for left in range(0, width, _BLOCK):
            yield left, top, min(left + _BLOCK, width), min(top + _BLOCK, height)


def _by_blocks(size: tuple[int, int], block_to_rgb: Callable[[Box], Image.Image]) -> Image.Image:
    first, *others = boxes = list(_boxes(size))
    if not others:
        return block_to_rgb(first)
    rgb = Image.new("RGB", size)
    for box in boxes:
        rgb.paste(block_to_rgb(box), box)
    return rgb


def _array_to_rgb(array: np.ndarray | torch.Tensor, max_pixels: int | None) -> Image.Image:
    if array.ndim == 3:
        layouts = (array.shape[0] in (1, 3, 4), array.shape[2] in (1, 3, 4))
        if layouts == (True, False) or (layouts == (True, True) and isinstance(array, torch.Tensor)):
            array = array.moveaxis(0, -1) if isinstance(array, torch.Tensor) else np.moveaxis(array, 0, -1)
        elif not any(layouts):
            raise ValueError(
                f"neither the first nor the last dimension of shape {tuple(array.shape)} is 1, 3 or 4 channels"
            )
    elif array.ndim != 2:
        raise ValueError(f"an image has two or three dimensions, not {array.ndim}")
    if 0 in array.shape:
        raise ValueError("it has no pixels")
    height, width = array.shape[:2]
    _check_size(width, height, max_pixels)

    def block(box: Box) -> np.ndarray:
        left, top, right, bottom = box
        part = array[top:bottom, left:right]
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu()
            part = (part.float() if part.is_floating_point() else part).numpy()
        return part[..., 0] if part.ndim == 3 and part.shape[2] == 1 else part

    return _numbers_to_rgb(block, (width, height))


def _numbers_to_rgb(block: Callable[[Box], np.ndarray], size: tuple[int, int], wide: bool = False) -> Image.Image:
    """Convert numbers; `wide` for PIL modes with a larger range than their content (I: 8 to 16 bits, F: 0..255)."""
    low = high = 0
    if block((0, 0, 1, 1)).dtype not in (np.uint8, np.bool_):
        ends = [(part.min(), part.max()) for part in map(block, _boxes(size))]
        low, high = np.min(ends), np.max(ends)

    def block_to_rgb(box: Box) -> Image.Image:
        return _on_white(Image.fromarray(np.ascontiguousarray(_to_uint8(block(box), low, high, wide))))

    return _by_blocks(size, block_to_rgb)


def _to_uint8(array: np.ndarray, low: Any, high: Any, wide: bool) -> np.ndarray:
    """Convert a block of an image whose numbers are in `low`..`high`."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if low >= 0 and high <= 1:
            return np.rint(array * 255).astype(np.uint8)
        if wide and low >= 0 and high <= 255:
            return np.rint(array).astype(np.uint8)
        raise ValueError(f"its floats are in {low:g}..{high:g}; pass floats in 0..1, or integers in 0..255")
    if np.issubdtype(array.dtype, np.integer):
        if wide:  # cameras and scanners store 10 or 12 bits in 16 without scaling
            bits = next((bits for bits in (8, 10, 12) if high < 2**bits), 16)
        else:
            bits = 16 if array.dtype.str[1:] == "u2" else 8  # in either byte order
        if low >= 0 and high < 2**bits:
            return (array.astype(np.uint32) * 255 // (2**bits - 1)).astype(np.uint8)
        raise ValueError(f"its integers are in {low}..{high}; pass 0..255, or uint16 in 0..65535")
    raise ValueError(f"numbers of type {array.dtype} are not colors")


__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "UnreadableImageError",
    "describe",
    "load_rgb",
    "open_image",
    "upright_size",
]
