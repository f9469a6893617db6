# SPDX-License-Identifier: Apache-2.0
"""Contact sheets: single images that show many others."""

import random
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..image_loading_svtrv2 import load_rgb
from ..resizing_svtrv2 import resize, target_size
from .augmentation import MAX_MAGNITUDE, OPERATIONS, Augmentation, require_rgb, shrink
from .sample import Sample


# All sizes are in pixels.
SHEET_WIDTH, ROW_HEIGHT, TEXT_HEIGHT, GAP = 1400, 48, 14, 6  # of sheets of samples
CELL = (192, 64)  # width and height of an image on a sheet of augmentations
LABEL_WIDTH, MARGIN, CAPTION_HEIGHT = 120, 6, 12


def sample_sheet(samples: Iterable[Sample]) -> Image.Image:
    """Arrange samples in rows of images of one height, each with its text below."""
    font = ImageFont.load_default(TEXT_HEIGHT - 3)
    rows: list[list[tuple[Image.Image, str]]] = [[]]
    used = 0
    for sample in samples:
        image = load_rgb(sample.image, sample.name)
        width = min(SHEET_WIDTH, round(image.width * ROW_HEIGHT / image.height))
        thumbnail = image.resize((width, ROW_HEIGHT), Image.Resampling.BICUBIC)
        if used + width > SHEET_WIDTH:
            rows.append([])
            used = 0
        rows[-1].append((thumbnail, sample.text))
        used += width + GAP
    sheet = Image.new("RGB", (SHEET_WIDTH, len(rows) * (ROW_HEIGHT + TEXT_HEIGHT + GAP)), "white")
    canvas = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = 0, number * (ROW_HEIGHT + TEXT_HEIGHT + GAP)
        for thumbnail, text in row:
            while font.getlength(text) > thumbnail.width and len(text) > 1:
                text = text[:-2] + "\u2026"
            sheet.paste(thumbnail, (x, y))
            canvas.text((x, y + ROW_HEIGHT), text, font=font, fill="black")
            x += thumbnail.width + GAP
    return sheet


def augmentation_sheet(
    image: Image.Image, augmentation: Augmentation | None = None, samples: int = 5, chains: int = 5
) -> Image.Image:
    """Show the effect of each augmentation operation, and of complete chains, on one image.

    Args:
        image: RGB image.
        augmentation: provides magnitude, seed and the chains; defaults to `Augmentation()`.
        samples: maximum number of different results per operation, and results per row of chains; at least 1.
        chains: rows of complete chains, resized to the model's input size and captioned with the applied operations.

    Returns:
        RGB image with the original in the first row, then one row per operation in `OPERATIONS`, then the chains.

    Raises:
        ValueError: `samples` is less than 1, `chains` is less than 0, or the image cannot be augmented.
    """
    if samples < 1 or chains < 0:
        raise ValueError(f"samples={samples} must be 1 or more and chains={chains} 0 or more.")
    require_rgb(image)
    augmentation = augmentation or Augmentation()
    size = target_size(*image.size)
    small = shrink(image, size)  # as in training
    resized = Image.fromarray(resize(image, size))
    first = [(image, f"{image.width} x {image.height} pixels"), (resized, f"resized to {size[1]} x {size[0]}")]
    rows = [("original", first[:samples])]
    for name, operation in OPERATIONS.items():
        rng = random.Random(f"{name} {augmentation.seed}")
        results: dict[bytes, Image.Image] = {}
        for _ in range(4 * samples):  # enough to see both signs of operations that sample only a sign
            result = operation(small, augmentation.magnitude / MAX_MAGNITUDE, rng)
            results.setdefault(result.tobytes(), result)
        cells = [(cell, "unchanged" if pixels == small.tobytes() else "") for pixels, cell in results.items()]
        rows.append((name, cells[:samples]))
    for epoch in range(chains):
        cells = []
        for key in range(samples):
            names, _ = augmentation.sample(epoch, key)
            result = augmentation(image, size, epoch, key)
            cells.append((Image.fromarray(resize(result, size)), ", ".join(names) or "unchanged"))
        rows.append((f"chain {epoch + 1}", cells))
    return _grid(rows, samples)


def _grid(rows: list[tuple[str, list[tuple[Image.Image, str]]]], columns: int) -> Image.Image:
    """Arrange rows of a label and captioned images."""
    width, height = CELL[0] + MARGIN, CELL[1] + CAPTION_HEIGHT + MARGIN
    sheet = Image.new("RGB", (LABEL_WIDTH + columns * width + MARGIN, len(rows) * height + MARGIN), "white")
    canvas = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(9)
    for number, (label, cells) in enumerate(rows):
        top = number * height + MARGIN
        if number % 2:
            canvas.rectangle((0, top - MARGIN // 2, sheet.width, top + height - MARGIN // 2 - 1), fill=(238, 241, 246))
        canvas.text((2 * MARGIN, top + CELL[1] // 2), label, fill=(40, 40, 60), font=large, anchor="lm")
        for column, (cell, caption) in enumerate(cells):
            left = LABEL_WIDTH + column * width
            cell = ImageOps.contain(cell, CELL)
            sheet.paste(cell, (left + (CELL[0] - cell.width) // 2, top + (CELL[1] - cell.height) // 2))
            canvas.text((left + CELL[0] // 2, top + CELL[1] + 1), caption, fill=(90, 90, 110), font=small, anchor="ma")
    return sheet
