# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: ARG001  operations share one signature
"""Random changes to the images that a recogniser is trained on.

The policy is PARSeq's (Bautista & Atienza 2022, arXiv 2207.06966), a RandAugment tuned for text, as OpenOCR uses it for
SVTRv2 (`openrec/preprocess/parseq_aug.py`): a few operations drawn without replacement, each then applied or not, all
at the same magnitude. The SVTRv2 paper (section 4.1) also names perspective distortion, motion blur and Gaussian noise;
these three are in the draw too.

Where this differs from PARSeq's code:

- shears enlarge the canvas, as rotation does there, so that no character is cut off; only translations cut;
- magnitudes in pixels (blurs) and the limits by image size count in the image after `Augmentation` has shrunk it;
- moving sideways is limited by the height; posterizing keeps at least one bit; motion blur is limited by the shortest side too.

An operation is a function of an RGB image, a magnitude in 0..1 (PARSeq's level divided by 10) and a random generator. It
returns an RGB image, often of another size, and never changes the one it is given.
"""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont, ImageOps

from ..image_processing_svtrv2 import resize, target_size


Operation = Callable[[Image.Image, float, random.Random], Image.Image]

GREY = (128, 128, 128)
OVERSAMPLING = 2  # pixels kept for each pixel of the final size, along either side, where a large image is shrunk
MUCH_LARGER = 3  # than the final size: what is shrunk; below that, shrinking costs more than it saves
LARGEST_MAGNITUDE = 10.0
LARGEST_CORNER_SHIFT = 0.24  # of the sides; from 0.25 on the four corners might not be convex


def _signed(value: float, rng: random.Random) -> float:
    return value if rng.random() < 0.5 else -value


def _limited(value: float, smallest_limit: float, share: float, image: Image.Image) -> int:
    """`value`, but no more than a share of the longest side, in whole pixels or grey levels."""
    return round(min(value, max(smallest_limit, share * max(image.size))))


# Colours


def _look_up(image: Image.Image, table: bytes) -> Image.Image:
    """Replaces each value by its entry in a table of 256, whatever its channel."""
    # Less than half the time of Image.point, which goes through a list of 768 numbers.
    return Image.frombytes("RGB", image.size, image.tobytes().translate(table))


def _look_up_by_channel(image: Image.Image, tables: np.ndarray) -> Image.Image:
    """Replaces each value by its entry in its channel's table; `tables` has the shape (3, 256)."""
    return image.point(tables.clip(0, 255).ravel().tolist())


def _histogram(image: Image.Image) -> np.ndarray:
    """How often each value occurs in each channel, of shape (3, 256)."""
    return np.array(image.histogram()).reshape(3, 256)


def auto_contrast(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Stretches each channel to 0..255, as `ImageOps.autocontrast`. Leaves an image that fills the range as it is."""
    counts, tables = _histogram(image), np.tile(np.arange(256), (3, 1))
    for table, count in zip(tables, counts, strict=True):
        used = np.flatnonzero(count)
        low, high = used[0], used[-1]
        if low < high:
            table[:] = (table - low) * (255 / (high - low))
    return _look_up_by_channel(image, tables)


def equalize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Makes all values of a channel equally frequent, as `ImageOps.equalize`.

    Leaves an image of fewer than 255 pixels as it is, or one in which nearly all have the same value.
    """
    counts, tables = _histogram(image), np.tile(np.arange(256), (3, 1))
    for table, count in zip(tables, counts, strict=True):
        step = (count.sum() - count[count > 0][-1]) // 255
        if step:
            table[:] = (step // 2 + count.cumsum() - count) // step
    return _look_up_by_channel(image, tables)


def invert(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """The negative."""
    return ImageChops.invert(image)


def posterize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Keeps the upper 4 to 1 bits of each value, fewer with more magnitude."""
    dropped = 8 - max(1, 4 - int(4 * magnitude))
    return _look_up(image, bytes(value >> dropped << dropped for value in range(256)))


def solarize(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Inverts the values from 256 - 256 * magnitude on. Leaves an image that is darker as it is."""
    threshold = 256 - int(256 * magnitude)
    return _look_up(image, bytes(value if value < threshold else 255 - value for value in range(256)))


def solarize_add(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Adds up to 110 to the values below 128. Leaves an image that has none as it is."""
    added = int(110 * magnitude)
    return _look_up(image, bytes(min(255, value + added) if value < 128 else value for value in range(256)))


def _factor(magnitude: float, rng: random.Random) -> float:
    return max(0.1, 1 + _signed(0.9 * magnitude, rng))


def color(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """More or less saturation, by a factor of 1 +- 0.9 * magnitude. Leaves a grey image as it is."""
    return Image.blend(image.convert("L").convert("RGB"), image, _factor(magnitude, rng))


def contrast(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """More or less distance to the mean grey, by a factor of 1 +- 0.9 * magnitude."""
    mean = image.reduce(image.size).convert("L").convert("RGB")
    return Image.blend(mean.resize(image.size, Image.Resampling.NEAREST), image, _factor(magnitude, rng))


def brightness(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Brighter or darker by a factor of 1 +- 0.9 * magnitude."""
    return Image.blend(Image.new("RGB", image.size), image, _factor(magnitude, rng))


# Geometry


def _warp(
    image: Image.Image, size: tuple[int, int], method: Image.Transform, coefficients: Sequence[float]
) -> Image.Image:
    return image.transform(size, method, coefficients, Image.Resampling.BILINEAR, fillcolor=GREY)


def rotate(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Turns by +-30 degrees * magnitude, on a canvas that holds it all."""
    return image.rotate(_signed(30 * magnitude, rng), Image.Resampling.BILINEAR, expand=True, fillcolor=GREY)


def shear_x(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Slants to the left or right by 0.9 * magnitude of the height, on a canvas that holds it all."""
    slant = _signed(0.9 * magnitude, rng)
    extra = abs(slant) * image.height
    size = (image.width + math.ceil(extra), image.height)
    return _warp(image, size, Image.Transform.AFFINE, (1, slant, -extra if slant > 0 else 0, 0, 1, 0))


def shear_y(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Slants upwards or downwards by 0.2 * magnitude of the width, on a canvas that holds it all."""
    slant = _signed(0.2 * magnitude, rng)
    extra = abs(slant) * image.width
    size = (image.width, image.height + math.ceil(extra))
    return _warp(image, size, Image.Transform.AFFINE, (1, 0, 0, slant, 1, -extra if slant > 0 else 0))


def _moved(image: Image.Image, x: float, y: float) -> Image.Image:
    canvas = Image.new("RGB", image.size, GREY)
    canvas.paste(image, (round(x), round(y)))
    return canvas


def translate_x(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Moves sideways by 0.1 * magnitude of the width, in whole pixels: none, where the image is very narrow.

    In long lines by no more than 0.4 * magnitude of the height, or a whole character would be gone.
    """
    return _moved(image, _signed(magnitude * min(0.1 * image.width, 0.4 * image.height), rng), 0)


def translate_y(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Moves up or down by 0.3 * magnitude of the height, in whole pixels: none, where the image is very low."""
    return _moved(image, 0, _signed(0.3 * magnitude * image.height, rng))


def perspective(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Moves each corner inwards or outwards by up to 0.24 * magnitude of the sides, on a canvas that holds it all.

    The SVTRv2 paper gives no magnitude. With this one, at magnitude 0.5, opposite sides differ by up to 1.6 to 1.
    """
    width, height = image.size
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    largest = LARGEST_CORNER_SHIFT * magnitude
    moved = [
        (x + width * rng.uniform(-largest, largest), y + height * rng.uniform(-largest, largest)) for x, y in corners
    ]
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
    """Blurs with a radius of 4 pixels * magnitude, but no more than 0.02 of the longest side or 1 pixel."""
    return image.filter(ImageFilter.GaussianBlur(_limited(4 * magnitude, 1, 0.02, image)))


def _doubled(sums: np.ndarray, x: int, y: int) -> np.ndarray:
    """Adds to each pixel the one that lies `(x, y)` further, or itself where that is outside."""
    height, width = sums.shape[:2]
    to_rows, from_rows = _overlap(height, y)
    to_columns, from_columns = _overlap(width, x)
    doubled = sums * np.uint16(2)
    np.add(sums[to_rows, to_columns], sums[from_rows, from_columns], out=doubled[to_rows, to_columns])
    return doubled


def _overlap(length: int, shift: int) -> tuple[slice, slice]:
    """What a side and its copy moved by `shift` have in common, in the coordinates of either."""
    start, stop = min(length, max(0, -shift)), max(0, length - max(0, shift))
    return slice(start, stop), slice(start + shift, max(0, stop + shift))


def motion_blur(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Blurs along a line of 20 pixels * magnitude in any direction.

    The line is no longer than 0.08 of the longest side and 0.2 of the shortest, or 3 pixels. (The second limit is ours:
    without it the first makes wide crops of low text illegible.)
    """
    length = _limited(min(20 * magnitude, max(3, 0.2 * min(image.size))), 3, 0.08, image) | 1
    angle = rng.uniform(0, math.pi)
    # Adding a moved copy, then half as far a moved copy of the sum, and so on, sums 2^n points of a line in n additions.
    additions = round(math.log2(length))
    sums = np.asarray(image).astype(np.uint16)
    for addition in range(additions):
        distance = (length - 1) / (2**additions - 1) * 2 ** (additions - 1 - addition)
        if addition:  # the first goes forwards and the others back, so that the text stays where it is
            distance = -distance
        sums = _doubled(sums, round(distance * math.cos(angle)), round(distance * math.sin(angle)))
    half = (1 << additions) >> 1
    return Image.fromarray(((sums + np.uint16(half)) >> np.uint16(additions)).astype(np.uint8))


def _quantiles(cumulative: np.ndarray, number: int) -> np.ndarray:
    """The index into a cumulative distribution at `number` evenly spaced probabilities."""
    return np.searchsorted(cumulative, (np.arange(number) + 0.5) / number).clip(max=len(cumulative) - 1)


@lru_cache(maxsize=64)
def _poisson_quantiles(mean: int) -> np.ndarray:
    """65536 equally likely values of a Poisson variable with a random sign, int16."""
    probabilities = [math.exp(-mean)]
    for value in range(1, mean + math.ceil(10 * math.sqrt(mean)) + 10):
        probabilities.append(probabilities[-1] * mean / value)
    values = _quantiles(np.cumsum(probabilities), 1 << 15)
    return np.concatenate([values, -values]).astype(np.int16)


@lru_cache(maxsize=64)
def _gaussian_quantiles(deviation: int) -> np.ndarray:
    """65536 equally likely values of a normal variable, rounded, int16."""
    largest = 5 * deviation
    normal = NormalDist(0, deviation)
    cumulative = np.array([normal.cdf(value + 0.5) for value in range(-largest, largest + 1)])
    return (_quantiles(cumulative, 1 << 16) - largest).astype(np.int16)


def _add_noise(image: Image.Image, quantiles: np.ndarray, rng: random.Random) -> Image.Image:
    """Adds one of 65536 values to each pixel, the same to its three channels."""
    draws = np.frombuffer(rng.randbytes(2 * image.width * image.height), "<u2")
    noisy = np.asarray(image) + quantiles[draws].reshape(image.height, image.width, 1)
    return Image.fromarray(noisy.clip(0, 255, out=noisy).astype(np.uint8))


def poisson_noise(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Adds grey noise of Poisson sizes with random signs, of mean size 40 * magnitude, less in images below 200 pixels."""
    return _add_noise(image, _poisson_quantiles(_limited(40 * magnitude, 1, 0.2, image) | 1), rng)


def gaussian_noise(image: Image.Image, magnitude: float, rng: random.Random) -> Image.Image:
    """Adds grey normal noise of standard deviation 25.5 * magnitude, less in images below 102 pixels."""
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


def _require_rgb(image: Image.Image) -> None:
    if image.mode != "RGB" or 0 in image.size:
        raise ValueError(
            f"An image of mode {image.mode} and {image.width}x{image.height} pixels cannot be augmented: pass RGB with "
            "one pixel or more, as load_rgb gives it."
        )


def shrink(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Brings an image of three times the final size, `(height, width)`, or more down to twice, to make operations cheap.

    The aspect ratio is kept, so one of the sides may stay longer. Smaller images are returned as they are.
    """
    times = min(image.width / size[1], image.height / size[0])
    if times < MUCH_LARGER:
        return image
    width, height = (round(side * OVERSAMPLING / times) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


class Augmentation:
    """Applies a few random operations to an image, before it is resized.

    The result follows from `seed`, `epoch`, `key` and the image alone, whatever process asks for it and in what order.

    Args:
        num_operations (`int`, *optional*, defaults to 3): different operations drawn for an image, of `OPERATIONS`.
        probability (`float`, *optional*, defaults to 0.5): with which each of them is then applied.
        magnitude (`float`, *optional*, defaults to 5.0): how strong they are, in 0..10.
        seed (`int`, *optional*, defaults to 0): of the draws; 0 or more.

    Raises:
        ValueError: a number is out of its range.
    """

    def __init__(
        self, num_operations: int = 3, probability: float = 0.5, magnitude: float = 5.0, seed: int = 0
    ) -> None:
        if not 0 <= num_operations <= len(OPERATIONS):
            raise ValueError(
                f"num_operations={num_operations} must be in 0..{len(OPERATIONS)}: no operation comes twice."
            )
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability} must be in 0..1.")
        if not 0 <= magnitude <= LARGEST_MAGNITUDE:
            raise ValueError(f"magnitude={magnitude} must be in 0..{LARGEST_MAGNITUDE:g}.")
        if seed < 0:
            raise ValueError(f"seed={seed} must be 0 or more.")
        self.num_operations = num_operations
        self.probability = probability
        self.magnitude = magnitude
        self.seed = seed

    def draw(self, epoch: int, key: int) -> tuple[list[str], random.Random]:
        """The names of the operations to apply, in order, and the generator for what they draw themselves."""
        for name, value in (("epoch", epoch), ("key", key)):
            if not 0 <= value < 1 << 32:
                raise ValueError(f"{name}={value} must be in 0..2^32-1.")
        # The standard library's generator: its seeding and its single draws take half the time of numpy's.
        rng = random.Random(self.seed << 64 | epoch << 32 | key)
        names = rng.sample(tuple(OPERATIONS), self.num_operations)
        return [name for name in names if rng.random() < self.probability], rng

    def __call__(self, image: Image.Image, size: tuple[int, int] | None, epoch: int, key: int) -> Image.Image:
        """Augments an image.

        Args:
            image: RGB; it is not changed.
            size: `(height, width)` in pixels that the result will be resized to. Much larger images are shrunk first, if
                any operation applies. `None`: they are not.
            epoch: the number of the pass over the data; 0..2^32-1.
            key: what tells the image from others, as the CRC-32 of its file; 0..2^32-1.

        Returns:
            An RGB image, of another size where an operation enlarges it; `image` itself if none applies.

        Raises:
            ValueError: the image is not RGB or has no pixels, or a number is out of its range.
        """
        _require_rgb(image)
        if size is not None and min(size) < 1:
            raise ValueError(f"size={size} must be a height and a width of 1 or more.")
        names, rng = self.draw(epoch, key)
        if names and size is not None:
            image = shrink(image, size)
        for name in names:
            image = OPERATIONS[name](image, self.magnitude / LARGEST_MAGNITUDE, rng)
        return image


CELL = (192, 64)  # of the contact sheet: width and height in pixels
LABELS = 120  # width of its first column
MARGIN = 6
CAPTION = 12  # height of a line of small print


def contact_sheet(
    image: Image.Image, augmentation: Augmentation | None = None, draws: int = 5, chains: int = 5
) -> Image.Image:
    """A picture to look at: what each operation makes of an image, and what the whole chain makes of it.

    Args:
        image: RGB.
        augmentation: gives magnitude, seed and the chains; the default one, if left out.
        draws: most different results shown of an operation, and results in a row of chains; 1 or more.
        chains: rows of complete chains, resized to the model's size, with the names of the operations that were applied.

    Returns:
        An RGB image, the image itself in the first row, then one row for each of `OPERATIONS`, then the chains.

    Raises:
        ValueError: `draws` is below 1, `chains` below 0, or the image cannot be augmented.
    """
    if draws < 1 or chains < 0:
        raise ValueError(f"draws={draws} must be 1 or more and chains={chains} 0 or more.")
    _require_rgb(image)
    augmentation = augmentation or Augmentation()
    size = target_size(*image.size)
    small = shrink(image, size)  # as the operations see it in training
    model_sees = Image.fromarray(resize(image, size))
    first = [(image, f"{image.width} x {image.height} pixels"), (model_sees, f"resized to {size[1]} x {size[0]}")]
    rows = [("original", first[:draws])]
    for name, operation in OPERATIONS.items():
        rng = random.Random(f"{name} {augmentation.seed}")
        results: dict[bytes, Image.Image] = {}
        for _ in range(4 * draws):  # as often as it takes to see both signs of those that only draw a sign
            result = operation(small, augmentation.magnitude / LARGEST_MAGNITUDE, rng)
            results.setdefault(result.tobytes(), result)
        cells = [(cell, "unchanged" if pixels == small.tobytes() else "") for pixels, cell in results.items()]
        rows.append((name, cells[:draws]))
    for epoch in range(chains):
        cells = []
        for key in range(draws):
            names, _ = augmentation.draw(epoch, key)
            result = augmentation(image, size, epoch, key)
            cells.append((Image.fromarray(resize(result, size)), ", ".join(names) or "unchanged"))
        rows.append((f"chain {epoch + 1}", cells))
    return _grid(rows, draws)


def _grid(rows: list[tuple[str, list[tuple[Image.Image, str]]]], columns: int) -> Image.Image:
    """Draws rows of a label and images with captions."""
    width, height = CELL[0] + MARGIN, CELL[1] + CAPTION + MARGIN
    sheet = Image.new("RGB", (LABELS + columns * width + MARGIN, len(rows) * height + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(9)
    for number, (label, cells) in enumerate(rows):
        top = number * height + MARGIN
        if number % 2:
            pen.rectangle((0, top - MARGIN // 2, sheet.width, top + height - MARGIN // 2 - 1), fill=(238, 241, 246))
        pen.text((2 * MARGIN, top + CELL[1] // 2), label, fill=(40, 40, 60), font=large, anchor="lm")
        for place, (cell, caption) in enumerate(cells):
            left = LABELS + place * width
            cell = ImageOps.contain(cell, CELL)
            sheet.paste(cell, (left + (CELL[0] - cell.width) // 2, top + (CELL[1] - cell.height) // 2))
            pen.text((left + CELL[0] // 2, top + CELL[1] + 1), caption, fill=(90, 90, 110), font=small, anchor="ma")
    return sheet
