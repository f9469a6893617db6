# SPDX-License-Identifier: Apache-2.0
"""Sizes of resized images, resizing, normalization and padding of batches."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


BUCKET_SIZES = ((64, 64), (48, 96), (40, 112), (32, 128))  # (height, width) in pixels, for aspect ratios 1, 2, 3, 4


def target_size(
    width: int, height: int, max_ratio: int = 12, bucket_sizes: Sequence[Sequence[int]] = BUCKET_SIZES
) -> tuple[int, int]:
    """Compute the size to which an image of `width` x `height` pixels is resized.

    The aspect ratio r = width / height, rounded half to even and clipped to 1..`max_ratio`, selects the r-th of
    `bucket_sizes`. Beyond the last one, the size has its height and r times this height as width.

    >>> target_size(100, 40), target_size(100, 10)
    ((48, 96), (32, 320))

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: `max_ratio` is not a positive integer.
    """
    if max_ratio < 1 or max_ratio != int(max_ratio):
        raise ValueError(f"max_ratio={max_ratio} must be an integer, 1 or more.")
    ratio = min(max(round(width / height), 1), int(max_ratio))
    bucket_height, bucket_width = bucket_sizes[min(ratio, len(bucket_sizes)) - 1]
    return int(bucket_height), int(bucket_width if ratio <= len(bucket_sizes) else bucket_height * ratio)


def resize(image: Image.Image, size: tuple[int, int], resample: int = Image.Resampling.BICUBIC) -> np.ndarray:
    """Resize an RGB image to `size`, `(height, width)` in pixels; uint8 of shape `(height, width, 3)`."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), resample)
    return np.asarray(image)


def resize_bilinear(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Resize like [`resize`], but bilinear without antialiasing, as OpenCV's INTER_LINEAR."""
    pixels = np.asarray(image, dtype=np.float32)
    for axis, count in enumerate(size):
        positions = (np.arange(count, dtype=np.float64) + 0.5) * (pixels.shape[axis] / count) - 0.5
        low = np.floor(positions).astype(np.int64)
        shape = [-1 if other == axis else 1 for other in range(3)]
        fraction = (positions - low).astype(np.float32).reshape(shape)
        last = pixels.shape[axis] - 1
        before, after = (pixels.take(np.clip(index, 0, last), axis) for index in (low, low + 1))
        pixels = before + (after - before) * fraction
    return np.rint(pixels).astype(np.uint8)


def normalize(pixels: np.ndarray) -> np.ndarray:
    """Scale uint8 of shape `(..., height, width, 3)` to float32 of shape `(..., 3, height, width)` in -1..1."""
    scaled = pixels.astype(np.float32)
    scaled /= 127.5
    scaled -= 1.0
    return np.moveaxis(scaled, -1, -3)


def pad_to_batch(images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Combine images of shape `(3, height, width)` in one array, each in the upper left corner.

    The padding does not influence predictions: the model crops each image to its size.

    Returns:
        The batch, and the sizes of the images, of shape `(batch_size, 2)`.
    """
    sizes = np.array([image.shape[-2:] for image in images], dtype=np.int64)
    if (sizes == sizes[0]).all():
        return np.stack(images), sizes
    batch = np.zeros((len(images), images[0].shape[0], *sizes.max(axis=0)), dtype=images[0].dtype)
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


__all__ = ["BUCKET_SIZES", "normalize", "pad_to_batch", "resize", "resize_bilinear", "target_size"]
