# SPDX-License-Identifier: Apache-2.0
"""Signed distance fields of the glyphs of one font, with advances and kerning."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTCollection, TTFont
from PIL import Image, ImageDraw, ImageFont

from .fonts import FontFace


CELL = 64  # height and width in pixels of a glyph's field
CAP_HEIGHT = 25  # pixels from the baseline to the top of an H
BASELINE = 44  # row of the baseline, from the top: glyphs rest on its upper edge
ORIGIN = 16  # column of the pen, which is at its left edge
SPREAD = 6.0  # distance in pixels that a field represents on either side of the outline
MARGIN = 3  # minimum number of pixels between a glyph and the edge of its cell
SUPERSAMPLING = 5  # glyphs are rendered this many times larger; odd, so that a field's pixel has a center
ADVANCE_SUPERSAMPLING = 8  # advances are measured this many times larger, because FreeType rounds them to pixels

FLAT_CAPITALS = "BDEFHIKLNPRTXZ"  # same height in most fonts
NO_CHARACTER = "\uffff"  # not in any font, so it is rendered as the glyph for missing characters

SHAPE_SIZE = 16  # height and width of a shape in pixels
SHAPE_REACH = 2.3  # extent of a shape to each side, in standard deviations of a glyph's ink
SHAPE_CLIP = 0.3  # share of a field's full scale; larger distances do not describe the shape
UNLIKE_CAPITALS = "abdeghqrt"  # letters whose lowercase form differs in shape
MAX_CASE_LIKENESS = 0.88  # of capitals and lowercase letters in a font that has both


class Glyphs(NamedTuple):
    """Glyphs of one font, in the order of the charset; see [`Atlas`]."""

    fields: np.ndarray
    advances: np.ndarray
    kerning: np.ndarray
    available: np.ndarray


class UnusableFontError(ValueError):
    """A font that text cannot be rendered with; the message gives the reason."""


def render_font(face: FontFace, charset: str) -> Glyphs:
    """Render all characters of one font.

    Raises:
        UnusableFontError: the file is damaged, or its capitals have no height.
    """
    try:
        table = _open(face)
        size = _size(face)
        font, ruler = _load(face, size), _load(face, size * ADVANCE_SUPERSAMPLING)
        names = [table.getBestCmap().get(ord(character), ".notdef") for character in charset]
        # From the font's units to quarter pixels.
        kerning = _kerning(table, names) * (4 * size / SUPERSAMPLING / table["head"].unitsPerEm)
        lengths = [ruler.getlength(character) / (ADVANCE_SUPERSAMPLING * SUPERSAMPLING) for character in charset]
        advances = np.array(lengths, dtype=np.float32)
        masks = [_render_glyph(font, character) for character in charset]
        placeholder = _render_glyph(font, NO_CHARACTER)
        missing = None if placeholder is None else placeholder.tobytes()
    except UnusableFontError:
        raise
    except Exception as error:  # FreeType and fontTools raise many exceptions on damaged fonts
        raise UnusableFontError(f"unreadable: {error}") from error
    available = [
        name != ".notdef" and (advance >= 1 if character == " " else mask is not None and mask.tobytes() != missing)
        for name, character, advance, mask in zip(names, charset, advances, masks, strict=True)
    ]
    blank = np.zeros((CELL * SUPERSAMPLING, CELL * SUPERSAMPLING), dtype=bool)
    return Glyphs(
        fields=signed_distance(np.stack([blank if mask is None else mask for mask in masks])),
        advances=advances,
        kerning=np.clip(np.rint(kerning), -127, 127).astype(np.int8),
        available=np.array(available),
    )


def _open(face: FontFace) -> TTFont:
    if face.path.suffix.lower() in (".ttc", ".otc"):
        return TTCollection(face.path, lazy=True).fonts[face.number]
    return TTFont(face.path, lazy=True)


def _load(face: FontFace, size: float) -> ImageFont.FreeTypeFont:
    # Without Raqm, which is not always installed; ligatures are unwanted, and kerning is read from the font.
    font = ImageFont.truetype(face.path, size, face.number, layout_engine=ImageFont.Layout.BASIC)
    if face.axes:
        font.set_variation_by_axes(list(face.axes))
    return font


def _size(face: FontFace) -> float:
    """Return the font size at which capitals have a height of `CAP_HEIGHT`, in supersampled pixels."""
    probe = 400.0
    font = _load(face, probe)
    height = float(np.median([-font.getbbox(capital, anchor="ls")[1] for capital in FLAT_CAPITALS]))
    if height <= 0:
        raise UnusableFontError("its capitals have no height")
    return probe * CAP_HEIGHT * SUPERSAMPLING / height


def _render_glyph(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray | None:
    """Render a glyph into its cell: bool of shape `(CELL * SUPERSAMPLING,) * 2`, or None if it is blank or does not fit."""
    side = CELL * SUPERSAMPLING
    canvas = Image.new("L", (2 * side, 2 * side))
    pen = (side // 2 + ORIGIN * SUPERSAMPLING, side // 2 + BASELINE * SUPERSAMPLING)
    ImageDraw.Draw(canvas).text(pen, character, fill=255, font=font, anchor="ls")
    box = canvas.getbbox()
    least, most = side // 2 + MARGIN * SUPERSAMPLING, side // 2 + side - MARGIN * SUPERSAMPLING
    if box is None or min(box[:2]) < least or max(box[2:]) > most:
        return None
    return np.asarray(canvas.crop((side // 2, side // 2, side // 2 + side, side // 2 + side))) > 127


def signed_distance(masks: np.ndarray) -> np.ndarray:
    """Compute the distance fields, uint8 of shape `(glyphs, CELL, CELL)` (see [`Atlas`]), of rendered glyphs.

    Distances are exact Euclidean distances of pixels of `masks`, bool of shape `(glyphs, *2 * [CELL * SUPERSAMPLING])`.
    """
    inside = masks[:, SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]
    # The outline is half a pixel before the first pixel of the opposite value.
    distance = (np.where(inside, _distance_to(~masks), _distance_to(masks)) - 0.5) / SUPERSAMPLING
    return np.clip(np.rint(128 + np.where(inside, distance, -distance) * (127 / SPREAD)), 0, 255).astype(np.uint8)


def _distance_to(target: np.ndarray) -> np.ndarray:
    """Compute distances in supersampled pixels from the center of each field pixel to the nearest target pixel.

    Separable: along the columns first, then the minimum of squares along the rows. Exact up to slightly more than `SPREAD`.
    """
    reach = int(SPREAD * SUPERSAMPLING) + SUPERSAMPLING
    glyphs, side, _ = target.shape
    middle, cells = SUPERSAMPLING // 2, side // SUPERSAMPLING
    rows = np.arange(side, dtype=np.int16)[:, None]
    above = np.maximum.accumulate(np.where(target, rows, np.int16(-reach)), axis=1)
    below = np.minimum.accumulate(np.where(target, rows, np.int16(side + reach))[:, ::-1], axis=1)[:, ::-1]
    at = rows[middle::SUPERSAMPLING]
    down = np.minimum(at - above[:, middle::SUPERSAMPLING], below[:, middle::SUPERSAMPLING] - at)
    squares = np.full((glyphs, cells, side + 2 * reach), reach * reach, dtype=np.int16)
    squares[:, :, reach : reach + side] = np.minimum(down, reach) ** 2
    # Columns compared by one shift are contiguous: column k * SUPERSAMPLING + phase is at [phase, k].
    padded = np.pad(squares, ((0, 0), (0, 0), (0, -squares.shape[2] % SUPERSAMPLING)), constant_values=reach * reach)
    phases = np.ascontiguousarray(padded.reshape(glyphs, cells, -1, SUPERSAMPLING).transpose(3, 0, 1, 2))
    nearest = np.full((glyphs, cells, cells), reach * reach, dtype=np.int16)
    for shift in range(-reach, reach + 1):
        start, phase = divmod(reach + middle + shift, SUPERSAMPLING)
        np.minimum(nearest, phases[phase, :, :, start : start + cells] + np.int16(shift * shift), out=nearest)
    return np.sqrt(nearest, dtype=np.float32)


def _kerning(font: TTFont, names: Sequence[str]) -> np.ndarray:
    """Read the kerning between two glyphs in font units: float of shape `(glyphs, glyphs)`.

    Uses the pair adjustments of the GPOS table, or the older kern table; Pillow's basic layout supports only the latter.
    """
    kerning = np.zeros((len(names), len(names)))
    if "GPOS" in font:
        for lookup in _kerning_lookups(font["GPOS"].table):
            settled = np.zeros(kerning.shape, dtype=bool)
            for subtable in lookup.SubTable:
                pairs = getattr(subtable, "ExtSubTable", subtable)
                if pairs.LookupType == 2:
                    _add_pairs(kerning, settled, pairs, names)
    elif "kern" in font:
        for table in font["kern"].kernTables:
            pairs = getattr(table, "kernTable", {})
            kerning += [[pairs.get((left, right), 0) for right in names] for left in names]
    return kerning


def _kerning_lookups(table: Any) -> list[Any]:
    """Return the lookups of the feature "kern" for Latin text, or for the default script without Latin."""
    scripts = {record.ScriptTag: record.Script for record in table.ScriptList.ScriptRecord} if table.ScriptList else {}
    script = scripts.get("latn") or scripts.get("DFLT")
    if script is None or script.DefaultLangSys is None:
        return []
    features = [table.FeatureList.FeatureRecord[number] for number in script.DefaultLangSys.FeatureIndex]
    numbers = {n for record in features if record.FeatureTag == "kern" for n in record.Feature.LookupListIndex}
    return [table.LookupList.Lookup[number] for number in sorted(numbers)]


def _add_pairs(kerning: np.ndarray, settled: np.ndarray, pairs: Any, names: Sequence[str]) -> None:
    """Add the values of a subtable to the pairs not covered by an earlier subtable of the lookup."""
    covered = set(pairs.Coverage.glyphs)
    numbers = {name: number for number, name in enumerate(names) if name != ".notdef"}
    for left, row in numbers.items():
        if left not in covered:
            continue
        if pairs.Format == 1:
            records = pairs.PairSet[pairs.Coverage.glyphs.index(left)].PairValueRecord
            values = {record.SecondGlyph: record.Value1 for record in records if record.SecondGlyph in numbers}
        else:
            classes = pairs.Class1Record[pairs.ClassDef1.classDefs.get(left, 0)].Class2Record
            values = {right: classes[pairs.ClassDef2.classDefs.get(right, 0)].Value1 for right in numbers}
        for right, value in values.items():
            column = numbers[right]
            if not settled[row, column]:
                kerning[row, column] += getattr(value, "XAdvance", 0) or 0
                settled[row, column] = True


def has_lowercase(fields: torch.Tensor, charset: str) -> torch.Tensor:
    """Return which fonts have lowercase letters, not capitals in their place, by comparing their shapes.

    `fields` has shape `(fonts, characters, CELL, CELL)`; the result is true if the charset has no letters to compare.
    """
    letters = [letter for letter in UNLIKE_CAPITALS if letter in charset and letter.upper() in charset]
    if not letters:
        return torch.ones(len(fields), dtype=torch.bool)
    small, capital = (
        torch.stack([_shapes(fields[:, charset.index(letter)]) for letter in form])
        for form in (letters, [letter.upper() for letter in letters])
    )
    return (small * capital).sum(dim=2).median(dim=0).values < MAX_CASE_LIKENESS


def _shapes(fields: torch.Tensor) -> torch.Tensor:
    """Deslant, center and scale fields `(glyphs, CELL, CELL)` by their ink: unit vectors `(glyphs, SHAPE_SIZE ** 2)`."""
    axis = torch.arange(CELL, dtype=torch.float32) + 0.5 - CELL / 2
    y, x = (coordinate.flatten() for coordinate in torch.meshgrid(axis, axis, indexing="ij"))
    ink = (fields > 127).flatten(1).float()
    moments = ink @ torch.stack([x, y, x * x, x * y, y * y], 1) / ink.sum(1, keepdim=True).clamp(min=1)
    mean_x, mean_y, xx, xy, yy = moments.unbind(1)
    xx, xy, yy = xx - mean_x**2, xy - mean_x * mean_y, (yy - mean_y**2).clamp(min=0.5)
    slant = (xy / yy).clamp(-0.6, 0.6)
    width, height = (xx - 2 * slant * xy + slant**2 * yy).clamp(min=0.5).sqrt(), yy.sqrt()
    steps = ((torch.arange(SHAPE_SIZE) + 0.5) / SHAPE_SIZE * 2 - 1) * SHAPE_REACH
    down = height[:, None, None] * steps[None, :, None] + torch.zeros(1, 1, SHAPE_SIZE)
    right = width[:, None, None] * steps + slant[:, None, None] * down + mean_x[:, None, None]
    grid = torch.stack([right, down + mean_y[:, None, None]], -1) / (CELL / 2)
    scaled = fields[:, None].float() / 127.5 - 1
    shapes = F.grid_sample(scaled, grid, padding_mode="border", align_corners=False).clamp(-SHAPE_CLIP, SHAPE_CLIP)
    shapes = shapes.flatten(1)
    return F.normalize(shapes - shapes.mean(1, keepdim=True), dim=1)
