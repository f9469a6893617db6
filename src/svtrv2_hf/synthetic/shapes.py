# SPDX-License-Identifier: Apache-2.0
"""What glyphs look like: whether a font's letters are letters, and its small letters small ones.

Fonts put symbols, Greek, barcodes or nothing at all where letters belong, and no table in the file says so. But the
letters of many fonts agree: upright, centred and scaled to the same spread, a glyph is most like glyphs of its own letter.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


SIDE = 16  # pixels of a shape
REACH = 2.3  # of a shape to each side, in standard deviations of a glyph's ink
INKED = 0.3  # of a field's full scale: deeper inside or farther outside says nothing about the shape
LETTERS_AND_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOOK_ALIKES = {"0": "o", "1": "i", "l": "i", "j": "i", "5": "s"}  # in one font or another
TYPICAL, GOOD = 0.4, 0.6  # likeness to the middle of all fonts, and to the best others, that makes a font an example
EXAMPLES = 96  # fonts that are compared with, at most
FONTS = 16  # compared at a time
STRETCH = 0.1  # what a width that differs by a factor of e takes from a likeness

UNLIKE_CAPITALS = "abdeghqrt"  # letters whose small form has another shape
MOST_ALIKE = 0.88  # likeness of capitals and small letters in a font that has both


def glyph_shapes(fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Glyphs made upright, centred and scaled by their ink.

    Args:
        fields: uint8 of shape `(glyphs, cell, cell)`.

    Returns:
        Unit vectors of shape `(glyphs, SIDE * SIDE)`, and logarithms of width by height of shape `(glyphs,)`.
    """
    cell = fields.shape[-1]
    axis = torch.arange(cell, dtype=torch.float32) + 0.5 - cell / 2
    y, x = (coordinate.flatten() for coordinate in torch.meshgrid(axis, axis, indexing="ij"))
    ink = (fields > 127).flatten(1).float()
    moments = ink @ torch.stack([x, y, x * x, x * y, y * y], 1) / ink.sum(1, keepdim=True).clamp(min=1)
    mean_x, mean_y, xx, xy, yy = moments.unbind(1)
    xx, xy, yy = xx - mean_x**2, xy - mean_x * mean_y, (yy - mean_y**2).clamp(min=0.5)
    slant = (xy / yy).clamp(-0.6, 0.6)
    width, height = (xx - 2 * slant * xy + slant**2 * yy).clamp(min=0.5).sqrt(), yy.sqrt()
    steps = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1) * REACH
    down = height[:, None, None] * steps[None, :, None] + torch.zeros(1, 1, SIDE)
    right = width[:, None, None] * steps + slant[:, None, None] * down + mean_x[:, None, None]
    grid = torch.stack([right, down + mean_y[:, None, None]], -1) / (cell / 2)
    scaled = fields[:, None].float() / 127.5 - 1
    shapes = F.grid_sample(scaled, grid, padding_mode="border", align_corners=False).clamp(-INKED, INKED).flatten(1)
    shapes = shapes - shapes.mean(1, keepdim=True)
    return F.normalize(shapes, dim=1), (width / height).log()


def letter_likeness(fields: torch.Tensor, charset: str, families: Sequence[int]) -> torch.Tensor:
    """The share of each font's letters and digits that are most like the same ones in other families.

    Args:
        fields: uint8 of shape `(fonts, characters, cell, cell)`.
        charset: the characters.
        families: a number for each font, the same for fonts of one family.

    Returns:
        float of shape `(fonts,)`, 1 where the charset has too few letters and digits to tell.
    """
    characters = [character for character in charset if character in LETTERS_AND_DIGITS]
    if len(characters) < 10:
        return torch.ones(len(fields))
    numbers = torch.tensor([charset.index(character) for character in characters])
    told = [glyph_shapes(of_font[numbers]) for of_font in fields]
    shapes, widths = torch.stack([shape for shape, _ in told]), torch.stack([width for _, width in told])
    kinds = [LOOK_ALIKES.get(character.lower(), character.lower()) for character in characters]
    same = torch.tensor([[one == other for other in kinds] for one in kinds])
    family = torch.tensor(families)

    middle = F.normalize(shapes.median(dim=0).values, dim=1)
    likeness = _hits(torch.einsum("fcd,kd->fck", shapes, middle), same)
    # Twice: handwriting is like handwriting, which is first to be found among the examples.
    for least in (TYPICAL, GOOD):
        examples = (likeness >= least).nonzero().flatten()
        examples = examples[torch.linspace(0, len(examples) - 1, min(EXAMPLES, len(examples))).long()]
        bank = shapes[examples].flatten(0, 1).T
        rows = []
        for of_fonts, width, number in zip(shapes.split(FONTS), widths.split(FONTS), family.split(FONTS), strict=True):
            alike = (of_fonts.flatten(0, 1) @ bank).view(len(width), len(kinds), len(examples), len(kinds))
            alike -= STRETCH * (width[:, :, None, None] - widths[examples]).abs()
            alike.masked_fill_((number[:, None] == family[examples])[:, None, :, None], -1)
            rows.append(alike.amax(dim=2))
        likeness = _hits(torch.cat(rows), same)
    return likeness


def _hits(scores: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """How often the best of `scores`, of shape `(fonts, characters, characters)`, is a `same` one; `(fonts,)`."""
    return same[torch.arange(len(same)), scores.argmax(dim=2)].float().mean(dim=1)


def capitals_likeness(fields: torch.Tensor, charset: str) -> torch.Tensor:
    """How much each font's small letters look like its capitals, but for the size: the median over letters, 1 at most.

    Args:
        fields: uint8 of shape `(fonts, characters, cell, cell)`.
        charset: the characters.

    Returns:
        float of shape `(fonts,)`, 0 where the charset has no letters to tell by.
    """
    letters = [letter for letter in UNLIKE_CAPITALS if letter in charset and letter.upper() in charset]
    if not letters:
        return torch.zeros(len(fields))
    small, capital = (
        torch.stack([glyph_shapes(fields[:, charset.index(letter)])[0] for letter in form])
        for form in (letters, [letter.upper() for letter in letters])
    )
    return (small * capital).sum(dim=2).median(dim=0).values
