# SPDX-License-Identifier: Apache-2.0
"""What a model misreads, as one picture.

Labels and readings are in a font in which I and l, O and 0 do not look the same.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby, zip_longest
from pathlib import Path

from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..data.audit import code_point
from ..data.audit_report import percent
from ..image_processing_svtrv2 import load_rgb
from .errors import Column, Errors, Mistake, visible


COLUMNS, SHOWN = 4, 24  # cells beside each other, and at most in each of the two parts
WIDTH, MARGIN, GAP = 1600, 24, 16  # of the picture, in pixels
CELL = (WIDTH - 2 * MARGIN - (COLUMNS - 1) * GAP) // COLUMNS  # width
IMAGE_HEIGHT, PADDING = 104, 8
LINE = 22  # height of a line of label or reading
BAR = 3  # height of the bars of confidence
TITLE, SECTION, TEXT, SMALL = 28, 22, 18, 13  # sizes of letters
OWN_CHARACTERS = "·" + "".join(map(chr, range(32, 127)))  # of the picture's words
GROUND, INK, SOFT, PALE, LINES, STAGE = "#f6f7f9", "#1b2430", "#586474", "#7b8794", "#d9dee5", "#e9ecf0"
WRONG, WRONG_GROUND, NOTHING, SURE, UNSURE = "#9a2f06", "#fde3d5", "#e9a27e", "#2f6fb5", "#c2410c"


def write_picture(errors: Errors, path: str | Path, title: str) -> None:
    """Draws the most confident errors of all sets in turn, and below them errors drawn at random, with label, reading and scores.

    Args:
        errors: what was collected.
        path: of the PNG file, which is 1600 pixels wide.
        title: plain text.
    """
    worst = _in_turn(one.worst for one in errors.sets.values())
    typical = _in_turn([one for one in each.typical if one not in worst] for each in errors.sets.values())
    texts = [title, *errors.sets]
    for mistake in [*worst, *typical]:
        texts += [mistake.reading.sample.text, mistake.reading.text, mistake.reading.sample.name]
    distinct, plain = _Letters(texts, "DejaVu Sans Mono"), _Letters(texts, "DejaVu Sans")
    told = f"{errors.wrong:,} of {errors.samples:,} images are misread, {percent(errors.right, errors.samples)} % are right."
    if worst:
        told += " Above what the label says, below what was read."
    parts = [_heading(title, TITLE, told, plain)]
    for name, facts, mistakes in (
        ("Worst", "The most confident errors, of all sets in turn.", worst),
        ("Typical", "Errors drawn at random, of all sets in turn, but for those above.", typical),
    ):
        if mistakes:
            parts.append(_heading(f"{name}: {len(mistakes)}", SECTION, facts, plain))
            parts.append(_grid([_cell(mistake, distinct, plain) for mistake in mistakes]))
    sheet = Image.new("RGB", (WIDTH, sum(part.height for part in parts) + MARGIN), GROUND)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    sheet.save(path, "PNG")


def _in_turn(sets: Iterable[Sequence[Mistake]]) -> list[Mistake]:
    """The first of each set, the surest first, then the second of each, and so on, up to `SHOWN`."""
    ranked = (sorted(filter(None, one), key=lambda mistake: -mistake.reading.score) for one in zip_longest(*sets))
    return list(chain.from_iterable(ranked))[:SHOWN]


def _heading(text: str, size: int, told: str, letters: "_Letters") -> Image.Image:
    part = Image.new("RGB", (WIDTH, MARGIN + size + TEXT + 30), GROUND)
    pen = ImageDraw.Draw(part)
    letters.write(pen, (MARGIN, MARGIN), text, size, INK, WIDTH - 2 * MARGIN)
    letters.write(pen, (MARGIN, MARGIN + size + 10), told, TEXT, SOFT, WIDTH - 2 * MARGIN)
    return part


def _grid(cells: Sequence[Image.Image]) -> Image.Image:
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    part = Image.new("RGB", (WIDTH, sum(heights) + GAP * len(rows)), GROUND)
    pen = ImageDraw.Draw(part)
    top = 1  # for the outline
    for row, height in zip(rows, heights, strict=True):
        for place, cell in enumerate(row):
            left = MARGIN + place * (CELL + GAP)
            pen.rectangle((left - 1, top - 1, left + CELL, top + height), fill="white", outline=LINES)
            part.paste(cell, (left, top))
        top += height + GAP
    return part


class _Letters:
    """Writes some texts, in the font of a family of matplotlib's, or in others of this machine where it lacks characters."""

    def __init__(self, texts: Iterable[str], family: str):
        characters = set(chain.from_iterable(map(visible, set("".join(texts)))))
        self.files = _font_files(characters | set(OWN_CHARACTERS), family)
        self.fonts: dict[tuple[str, int], ImageFont.FreeTypeFont] = {}

    def width(self, text: str, size: int) -> float:
        return sum(font.getlength(run) for run, font in self._runs(text, size))

    def write(
        self,
        pen: ImageDraw.ImageDraw,
        place: tuple[float, float],
        text: str,
        size: int,
        color: str,
        limit: float = float("inf"),
    ) -> None:
        """Writes one line from its left upper corner; what goes beyond the limit, in pixels, is cut off."""
        if self.width(text, size) > limit:
            while text and self.width(f"{text}...", size) > limit:
                text = text[:-1]
            text += "..."
        left, top = place
        for run, font in self._runs(text, size):
            pen.text((left, top + size), run, color, font, "ls")
            left += font.getlength(run)

    def _runs(self, text: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont]]:
        known = "".join(c if c in self.files else code_point(c) for c in text)
        return [("".join(run), self._font(file, size)) for file, run in groupby(known, self.files.__getitem__)]

    def _font(self, file: str, size: int) -> ImageFont.FreeTypeFont:
        if (file, size) not in self.fonts:
            # Shaping would need whole words; characters are drawn one by one.
            self.fonts[file, size] = ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
        return self.fonts[file, size]


def _font_files(characters: set[str], family: str) -> dict[str, str]:
    """A font file for each character that any font of this machine has; that of the family, if it has it."""
    files: dict[str, str] = {}
    missing = set(characters)
    for name in (family, "DejaVu Sans"):
        missing -= _use(font_manager.findfont(name), missing, files)
    if missing:
        # Upright and regular fonts first.
        styles = ("bold", "italic", "oblique", "black", "light", "thin")
        others = sorted(
            font_manager.findSystemFonts(), key=lambda file: (any(s in file.lower() for s in styles), file)
        )
        for file in others:
            missing -= _use(file, missing, files)
    return files


def _use(file: str, characters: set[str], files: dict[str, str]) -> set[str]:
    """Notes the font for those of the characters that it has, and returns them."""
    try:
        font = font_manager.get_font(file)
        ImageFont.truetype(file, TEXT)
    except (OSError, RuntimeError):  # fonts of bitmaps, and broken ones
        return set()
    found = {character for character in characters if font.get_char_index(ord(character))}
    files.update(dict.fromkeys(found, file))
    return found


def _cell(mistake: Mistake, distinct: _Letters, plain: _Letters) -> Image.Image:
    reading = mistake.reading
    lines = _lines(mistake.columns(), distinct)
    line_height = 2 * LINE + BAR + 9
    facts = IMAGE_HEIGHT + PADDING + len(lines) * line_height
    cell = Image.new("RGB", (CELL, facts + 2 * SMALL + 20), "white")
    pen = ImageDraw.Draw(cell)
    pen.rectangle((0, 0, CELL, IMAGE_HEIGHT), fill=STAGE)
    image = load_rgb(reading.sample.image, reading.sample.name)
    small = ImageOps.contain(image, (CELL - 2 * PADDING, IMAGE_HEIGHT - 2 * PADDING), Image.Resampling.BICUBIC)
    cell.paste(small, ((CELL - small.width) // 2, (IMAGE_HEIGHT - small.height) // 2))
    for number, line in enumerate(lines):
        left, top = float(PADDING), IMAGE_HEIGHT + PADDING + number * line_height
        for column, width in line:
            _draw_column(pen, distinct, column, (left, top), width)
            left += width
    width, height = image.size
    told = f"{reading.score:.3f}  {mistake.kind.replace('_', ' ')} · {mistake.set_name} · {width}x{height} px"
    plain.write(pen, (PADDING, facts + 2), told, SMALL, INK, CELL - 2 * PADDING)
    name = reading.sample.name.rpartition("/")[2]
    plain.write(pen, (PADDING, facts + SMALL + 8), name, SMALL, SOFT, CELL - 2 * PADDING)
    return cell


def _lines(columns: Sequence[Column], letters: _Letters) -> list[list[tuple[Column, float]]]:
    """The columns with their widths in pixels, in lines that fit."""
    lines: list[list[tuple[Column, float]]] = [[]]
    room = CELL - 2 * PADDING
    left = 0.0
    for column in columns:
        width = max(letters.width(visible(c), TEXT) if c else 9.0 for c in (column.true, column.read)) + 3
        if left + width > room:
            lines.append([])
            left = 0.0
        lines[-1].append((column, width))
        left += width
    return lines


def _draw_column(
    pen: ImageDraw.ImageDraw, letters: _Letters, column: Column, place: tuple[float, float], width: float
) -> None:
    left, top = place
    color = WRONG if column.wrong else INK if column.compared else PALE
    if column.wrong:
        pen.rectangle((left, top, left + width - 1, top + 2 * LINE + BAR + 3), fill=WRONG_GROUND)
    for row, character in enumerate((column.true, column.read)):
        if character is not None:
            text = visible(character)
            inset = (width - letters.width(text, TEXT)) / 2
            letters.write(pen, (left + inset, top + row * LINE), text, TEXT, color)
        elif column.wrong:
            # Filled, since an outline is what fonts draw for characters that they lack.
            middle = left + width / 2
            pen.rectangle((middle - 4, top + row * LINE + 6, middle + 3, top + row * LINE + TEXT), fill=NOTHING)
    if column.score is not None:
        bottom = top + 2 * LINE + 1
        right = left + width - 2
        pen.rectangle((left + 1, bottom, right, bottom + BAR - 1), fill=LINES)
        end = left + 1 + column.score * (right - left - 1)
        pen.rectangle((left + 1, bottom, end, bottom + BAR - 1), fill=SURE if column.score >= 0.5 else UNSURE)
