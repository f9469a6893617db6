# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG001  operations share one signature
"""Random augmentation of training images.

The policy is PARSeq's (Bautista & Atienza 2022, arXiv 2207.06966), a RandAugment tuned for text, as OpenOCR uses it for
SVTRv2 (`openrec/preprocess/parseq_aug.py`): a few operations are sampled without replacement, then each
is applied or skipped, all at the same magnitude. The SVTRv2 paper (section 4.1) adds perspective distortion, motion blur
and Gaussian noise; these three are included.

Differences from PARSeq's code:

- shears enlarge the canvas, as rotation does in PARSeq, so that no character is cut off; only translations crop;
- magnitudes in pixels (blurs) and limits by image size refer to the image after `Augmentation` has shrunk it;
- horizontal translation is limited by the height, motion blur also by the shortest side; posterizing keeps one bit.

An operation takes an RGB image, a magnitude in 0..1 (PARSeq's level divided by 10) and a random generator. It returns an
RGB image, possibly of another size, and never modifies its input.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageChops, ImageFilter


Operation = Callable[[Image.Image, float, random.Random], Image.Image]

GRAY = (128, 128, 128)
OVERSAMPLING = 2  # a large image is shrunk to this multiple of the final size
SHRINK_THRESHOLD = 3  # from this multiple of the final size on, shrinking costs less than it saves
MAX_MAGNITUDE = 10.0
MAX_CORNER_SHIFT = 0.24  # share of a side; from 0.25 on, the four corners may not be convex


def _signed(value: float, rng: random.Random) -> float:
    return value if rng.random() < 0.5 else -value


def _limited(value: float, smallest_limit: float, share: float, image: Image.Image) -> int:
    """Limit `value` to a share of the longest side, in whole pixels or gray levels."""
    return round(min(value, max(smallest_limit, share * max(image.size))))


# Colors


def _look_up(image: Image.Image, table: bytes) -> Image.Image:
    """Replace each value by its entry in a table of 256, the same for all channels."""
    # Takes less than half the time of Image.point, which converts a list of 768 numbers.
    return Image.frombytes("RGB", image.size, image.tobytes().translate(table))


def _look_up_by_channel(image: Image.Image, tables: np.ndarray) -> Image.Image:
    """Replace each value by its entry in its channel's table; `tables` has shape (3, 256)."""
    return image.point(tables.clip(0, 255).ravel().tolist())


def _histogram(image: Image.Image) -> np.ndarray:
    """Count each value per channel: shape (3, 256)."""
    return np.array(image.histogram()).reshape(3, 256)


def auto_contrast(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Stretch each channel to 0..255, like `ImageOps.autocontrast`. An image that fills the range is unchanged."""
    counts, tables = _histogram(image), np.tile(np.arange(256), (3, 1))
    for table, count in zip(tables, counts, strict=True):
        used = np.flatnonzero(count)
        low, high = used[0], used[-1]
        if low < high:
            table[:] = (table - low) * (255 / (high - low))
    return _look_up_by_channel(image, tables)


def equalize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Equalize the histogram of each channel, like `ImageOps.equalize`.

    An image of fewer than 255 pixels is unchanged, as is one whose pixels nearly all have the same value.
    """
    counts, tables = _histogram(image), np.tile(np.arange(256), (3, 1))
    for table, count in zip(tables, counts, strict=True):
        step = (count.sum() - count[count > 0][-1]) // 255
        if step:
            table[:] = (step // 2 + count.cumsum() - count) // step
    return _look_up_by_channel(image, tables)


def invert(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Invert all values."""
    return ImageChops.invert(image)


def posterize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Keep the upper 4 to 1 bits of each value, fewer at higher magnitudes."""
    dropped = 8 - max(1, 4 - int(4 * magnitude))
    return _look_up(image, bytes(value >> dropped << dropped for value in range(256)))


def solarize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Invert values of 256 - 256 * magnitude or more. A darker image is unchanged."""
    threshold = 256 - int(256 * magnitude)
    return _look_up(image, bytes(value if value < threshold else 255 - value for value in range(256)))


def solarize_add(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Add up to 110 to values below 128. A brighter image is unchanged."""
    added = int(110 * magnitude)
    return _look_up(image, bytes(min(255, value + added) if value < 128 else value for value in range(256)))


def _factor(magnitude: float, rng: random.Random) -> float:
    return max(0.1, 1 + _signed(0.9 * magnitude, rng))


def color(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Change the saturation by a factor of 1 +- 0.9 * magnitude. A gray image is unchanged."""
    return Image.blend(image.convert("L").convert("RGB"), image, _factor(magnitude, rng))


def contrast(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Change the contrast to the mean gray by a factor of 1 +- 0.9 * magnitude."""
    mean = image.reduce(image.size).convert("L").convert("RGB")
    return Image.blend(mean.resize(image.size, Image.Resampling.NEAREST), image, _factor(magnitude, rng))


def brightness(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Change the brightness by a factor of 1 +- 0.9 * magnitude."""
    return Image.blend(Image.new("RGB", image.size), image, _factor(magnitude, rng))


# Geometry


def _warp(
    image: Image.Image, size: tuple[int, int], method: Image.Transform, coefficients: Sequence[float]
) -> Image.Image:
    return image.transform(size, method, coefficients, Image.Resampling.BILINEAR, fillcolor=GRAY)


def rotate(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Rotate by +-30 degrees * magnitude and enlarge the canvas to fit."""
    return image.rotate(_signed(30 * magnitude, rng), Image.Resampling.BILINEAR, expand=True, fillcolor=GRAY)


def shear_x(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Shear horizontally by +-0.9 * magnitude of the height and enlarge the canvas to fit."""
    slant = _signed(0.9 * magnitude, rng)
    extra = abs(slant) * image.height
    size = (image.width + math.ceil(extra), image.height)
    return _warp(image, size, Image.Transform.AFFINE, (1, slant, -extra if slant > 0 else 0, 0, 1, 0))


def shear_y(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Shear vertically by +-0.2 * magnitude of the width and enlarge the canvas to fit."""
    slant = _signed(0.2 * magnitude, rng)
    extra = abs(slant) * image.width
    size = (image.width, image.height + math.ceil(extra))
    return _warp(image, size, Image.Transform.AFFINE, (1, 0, 0, slant, 1, -extra if slant > 0 else 0))


def _translated(image: Image.Image, x: float, y: float) -> Image.Image:
    canvas = Image.new("RGB", image.size, GRAY)
    canvas.paste(image, (round(x), round(y)))
    return canvas


def translate_x(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Translate horizontally by +-0.1 * magnitude of the width, rounded to whole pixels.

    The limit is 0.4 * magnitude of the height, so that long lines do not lose a character.
    """
    return _translated(image, _signed(magnitude * min(0.1 * image.width, 0.4 * image.height), rng), 0)


def translate_y(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Translate vertically by +-0.3 * magnitude of the height, rounded to whole pixels."""
    return _translated(image, 0, _signed(0.3 * magnitude * image.height, rng))


def perspective(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Move each corner by up to 0.24 * magnitude of the sides and enlarge the canvas to fit.

    The SVTRv2 paper gives no magnitude. Here, at magnitude 0.5, opposite sides differ by a factor of up to 1.6.
    """
    width, height = image.size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    limit = MAX_CORNER_SHIFT * magnitude
    moved = [(x + width * rng.uniform(-limit, limit), y + height * rng.uniform(-limit, limit)) for x, y in corners]
    left, top = (min(coordinates) for coordinates in zip(*moved, strict=True))
    right, bottom = (max(coordinates) for coordinates in zip(*moved, strict=True))
    equations: list[tuple[float, ...]] = []
    for (to_x, to_y), (x, y) in zip(corners, moved, strict=True):
        x, y = x - left, y - top
        equations += [(x, y, 1, 0, 0, 0, -to_x * x, -to_x * y), (0, 0, 0, x, y, 1, -to_y * x, -to_y * y)]
    coefficients = np.linalg.solve(np.array(equations), np.array(corners, dtype=float).ravel())
    size = (math.ceil(right - left), math.ceil(bottom - top))
    return _warp(image, size, Image.Transform.PERSPECTIVE, coefficients.tolist())


# Blur and noise


def gaussian_blur(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Blur with a radius of 4 pixels * magnitude, limited to the larger of 1 pixel and 0.02 of the longest side."""
    return image.filter(ImageFilter.GaussianBlur(_limited(4 * magnitude, 1, 0.02, image)))


def _add_shifted(sums: np.ndarray, x: int, y: int) -> np.ndarray:
    """Add to each pixel the pixel at an offset of `(x, y)`, or itself if that is outside the image."""
    height, width = sums.shape[:2]
    to_rows, from_rows = _overlap(height, y)
    to_columns, from_columns = _overlap(width, x)
    doubled = sums * np.uint16(2)
    np.add(sums[to_rows, to_columns], sums[from_rows, from_columns], out=doubled[to_rows, to_columns])
    return doubled


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """Return the overlap of a side and its copy shifted by `shift`, in the coordinates of each."""
    start, stop = min(length, max(0, -shift)), max(0, length - max(0, shift))
    return slice(start, stop), slice(start + shift, max(0, stop + shift))


def motion_blur(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Blur along a line of 20 pixels * magnitude in a random direction.

    The length is limited to 0.08 of the longest and 0.2 of the shortest side (at least 3 pixels). PARSeq lacks the second
    limit, which keeps wide crops of small text legible.
    """
    length = _limited(min(20 * magnitude, max(3, 0.2 * min(image.size))), 3, 0.08, image) | 1
    angle = rng.uniform(0, math.pi)
    # Adding a shifted copy, then a copy of the sum shifted half as far, and so on, sums 2^n points of a line in n additions.
    additions = round(math.log2(length))
    sums = np.asarray(image).astype(np.uint16)
    for addition in range(additions):
        distance = (length - 1) / (2**additions - 1) * 2 ** (additions - 1 - addition)
        if addition:  # the first shift is forward and the others backward, which keeps the text centered
            distance = -distance
        sums = _add_shifted(sums, round(distance * math.cos(angle)), round(distance * math.sin(angle)))
    half = (1 << additions) >> 1
    return Image.fromarray(((sums + np.uint16(half)) >> np.uint16(additions)).astype(np.uint8))


def _quantiles(cumulative: np.ndarray, number: int) -> np.ndarray:
    """Return the index into a cumulative distribution at `number` evenly spaced probabilities."""
    return np.searchsorted(cumulative, (np.arange(number) + 0.5) / number).clip(max=len(cumulative) - 1)


@lru_cache(maxsize=64)
def _poisson_quantiles(mean: int) -> np.ndarray:
    """Return 65536 equally likely values of a Poisson variable with a random sign, int16."""
    probabilities = [math.exp(-mean)]
    for value in range(1, mean + math.ceil(10 * math.sqrt(mean)) + 10):
        probabilities.append(probabilities[-1] * mean / value)
    values = _quantiles(np.cumsum(probabilities), 1 << 15)
    return np.concatenate([values, -values]).astype(np.int16)


@lru_cache(maxsize=64)
def _gaussian_quantiles(deviation: int) -> np.ndarray:
    """Return 65536 equally likely values of a normal variable, rounded, int16."""
    limit = 5 * deviation
    normal = NormalDist(0, deviation)
    cumulative = np.array([normal.cdf(value + 0.5) for value in range(-limit, limit + 1)])
    return (_quantiles(cumulative, 1 << 16) - limit).astype(np.int16)


def _add_noise(image: Image.Image, quantiles: np.ndarray, rng: random.Random) -> Image.Image:
    """Add a random choice of 65536 values to each pixel, the same to its three channels."""
    chosen = np.frombuffer(rng.randbytes(2 * image.width * image.height), "<u2")
    noisy = np.asarray(image) + quantiles[chosen].reshape(image.height, image.width, 1)
    return Image.fromarray(noisy.clip(0, 255, out=noisy).astype(np.uint8))


def poisson_noise(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Add gray Poisson noise with random signs, of mean 40 * magnitude, less in images under 200 pixels wide and high."""
    return _add_noise(image, _poisson_quantiles(_limited(40 * magnitude, 1, 0.2, image) | 1), rng)


def gaussian_noise(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Add gray normal noise of standard deviation 25.5 * magnitude, less in images under 102 pixels wide and high."""
    return _add_noise(image, _gaussian_quantiles(_limited(25.5 * magnitude, 1, 0.25, image) | 1), rng)


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
    "Invert": invert,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "GaussianBlur": gaussian_blur,
    "PoissonNoise": poisson_noise,
    "Perspective": perspective,
    "MotionBlur": motion_blur,
    "GaussianNoise": gaussian_noise,
}


def require_rgb(image: Image.Image) -> None:
    """Raise ValueError unless the image is RGB and not empty."""
    if image.mode != "RGB" or 0 in image.size:
        raise ValueError(
            f"Cannot augment an image of mode {image.mode} and size {image.width}x{image.height}: pass a non-empty RGB "
            "image, as returned by load_rgb."
        )


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Shrink an image of three or more times the final size, `(height, width)`, to twice, which makes operations cheap.

    The aspect ratio is kept, so one side may remain longer. Smaller images are returned unchanged.
    """
    times = min(image.width / size[1], image.height / size[0])
    if times < SHRINK_THRESHOLD:
        return image
    width, height = (round(side * OVERSAMPLING / times) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


class Augmentation:
    """Augmentation by a few random operations on an image before it is resized.

    The result depends only on `seed`, `epoch`, `key` and the image, not on the process or the order of calls.

    Args:
        num_operations (`int`, *optional*, defaults to 3): number of `OPERATIONS` sampled per image.
        probability (`float`, *optional*, defaults to 0.5): probability of applying each sampled operation.
        magnitude (`float`, *optional*, defaults to 5.0): strength of the operations, 0 to 10.
        seed (`int`, *optional*, defaults to 0): random seed, 0 or more.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self, num_operations: int = 3, probability: float = 0.5, magnitude: float = 5.0, seed: int = 0
    ) -> None:
        if not 0 <= num_operations <= len(OPERATIONS):
            raise ValueError(f"num_operations={num_operations} must be in 0..{len(OPERATIONS)}: each is sampled once.")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability} must be in 0..1.")
        if not 0 <= magnitude <= MAX_MAGNITUDE:
            raise ValueError(f"magnitude={magnitude} must be in 0..{MAX_MAGNITUDE:g}.")
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or more.")
        self.num_operations = num_operations
        self.probability = probability
        self.magnitude = magnitude
        self.seed = seed

    def sample(self, epoch: int, key: int) -> tuple[list[str], random.Random]:
        """Return the names of the operations to apply, in order, and the random generator to pass to them."""
        for name, value in (("epoch", epoch), ("key", key)):
            if not 0 <= value < 1 << 32:
                raise ValueError(f"{name}={value} must be in 0..2^32-1.")
        # The standard library's generator takes half the time of numpy's for seeding and for single samples.
        rng = random.Random(self.seed << 64 | epoch << 32 | key)
        names = rng.sample(tuple(OPERATIONS), self.num_operations)
        return [name for name in names if rng.random() < self.probability], rng

    def __call__(self, image: Image.Image, size: tuple[int, int] | None, epoch: int, key: int) -> Image.Image:
        """Augment an image.

        Args:
            image: RGB image; not modified.
            size: `(height, width)` in pixels that the result will be resized to. A much larger image is shrunk first if
                any operation applies. `None` disables shrinking.
            epoch: number of the pass over the data, 0..2^32-1.
            key: identifier of the image, such as the CRC-32 of its file, 0..2^32-1.

        Returns:
            RGB image, of another size if an operation enlarges it; `image` itself if no operation applies.

        Raises:
            ValueError: the image is not RGB or has no pixels, or an argument is out of range.
        """
        require_rgb(image)
        if size is not None and min(size) < 1:
            raise ValueError(f"size={size} must be a height and a width of 1 or more.")
        names, rng = self.sample(epoch, key)
        if names and size is not None:
            image = shrink(image, size)
        for name in names:
            image = OPERATIONS[name](image, self.magnitude / MAX_MAGNITUDE, rng)
        return image
