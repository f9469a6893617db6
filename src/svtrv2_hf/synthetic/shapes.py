# SPDX-License-Identifier: Apache-2.0
"""Compare glyph shapes: whether a font's letters look like letters, and lowercase letters differ from capitals.

Some fonts have symbols, Greek or barcodes in place of letters, and no table in the file says so. But the letters of most
fonts agree: deslanted, centered and scaled to the same spread, a glyph is most similar to glyphs of the same letter.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


SIDE = 16  # height and width of a shape in pixels
REACH = 2.3  # extent of a shape to each side, in standard deviations of a glyph's ink
CLIP = 0.3  # share of a field's full scale; larger distances do not describe the shape
LETTERS_AND_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LOOK_ALIKES = {"0": "o", "1": "i", "l": "i", "j": "i", "5": "s"}  # similar in some fonts
TYPICAL, GOOD = 0.4, 0.6  # minimum likeness to the median and to the references that makes a font a reference
MAX_REFERENCE_FONTS = 96
FONTS_PER_CHUNK = 16  # fonts compared at a time, to limit memory
STRETCH = 0.1  # penalty on the likeness of glyphs whose widths differ by a factor of e

UNLIKE_CAPITALS = "abdeghqrt"  # letters whose lowercase form differs in shape
MAX_CASE_LIKENESS = 0.88  # of capitals and lowercase letters in a font that has both


def glyph_shapes(fields: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Deslant, center and scale glyphs by their ink.

    Args:
        fields: uint8 of shape `(glyphs, cell, cell)`.

    Returns:
        Unit vectors of shape `(glyphs, SIDE * SIDE)`, and log(width / height) of shape `(glyphs,)`.
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
    shapes = F.grid_sample(scaled, grid, padding_mode="border", align_corners=False).clamp(-CLIP, CLIP).flatten(1)
    shapes = shapes - shapes.mean(1, keepdim=True)
    return F.normalize(shapes, dim=1), (width / height).log()


def letter_likeness(fields: torch.Tensor, charset: str, families: Sequence[int]) -> torch.Tensor:
    """Compute the share of each font's letters and digits that are most similar to the same ones in other families.

    Args:
        fields: uint8 of shape `(fonts, characters, cell, cell)`.
        charset: the characters.
        families: family number of each font.

    Returns:
        float of shape `(fonts,)`; 1 if the charset has too few letters and digits to compare.
    """
    characters = [character for character in charset if character in LETTERS_AND_DIGITS]
    if len(characters) < 10:
        return torch.ones(len(fields))
    numbers = torch.tensor([charset.index(character) for character in characters])
    computed = [glyph_shapes(of_font[numbers]) for of_font in fields]
    shapes, widths = torch.stack([shape for shape, _ in computed]), torch.stack([width for _, width in computed])
    kinds = [LOOK_ALIKES.get(character.lower(), character.lower()) for character in characters]
    same = torch.tensor([[first == second for second in kinds] for first in kinds])
    family = torch.tensor(families)

    middle = F.normalize(shapes.median(dim=0).values, dim=1)
    likeness = _hits(torch.einsum("fcd,kd->fck", shapes, middle), same)
    # Two passes: handwriting is similar to handwriting, which the first pass adds to the references.
    for least in (TYPICAL, GOOD):
        references = (likeness >= least).nonzero().flatten()
        references = references[
            torch.linspace(0, len(references) - 1, min(MAX_REFERENCE_FONTS, len(references))).long()
        ]
        bank = shapes[references].flatten(0, 1).T
        rows = []
        for of_fonts, width, number in zip(
            shapes.split(FONTS_PER_CHUNK), widths.split(FONTS_PER_CHUNK), family.split(FONTS_PER_CHUNK), strict=True
        ):
            similarity = (of_fonts.flatten(0, 1) @ bank).view(len(width), len(kinds), len(references), len(kinds))
            similarity -= STRETCH * (width[:, :, None, None] - widths[references]).abs()
            similarity.masked_fill_((number[:, None] == family[references])[:, None, :, None], -1)
            rows.append(similarity.amax(dim=2))
        likeness = _hits(torch.cat(rows), same)
    return likeness


def _hits(scores: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Return how often the best of `scores`, of shape `(fonts, characters, characters)`, is in `same`: `(fonts,)`."""
    return same[torch.arange(len(same)), scores.argmax(dim=2)].float().mean(dim=1)


def capitals_likeness(fields: torch.Tensor, charset: str) -> torch.Tensor:
    """Compute the similarity in shape of each font's lowercase letters and capitals: the median over letters, at most 1.

    Args:
        fields: uint8 of shape `(fonts, characters, cell, cell)`.
        charset: the characters.

    Returns:
        float of shape `(fonts,)`; 0 if the charset has no letters to compare.
    """
    letters = [letter for letter in UNLIKE_CAPITALS if letter in charset and letter.upper() in charset]
    if not letters:
        return torch.zeros(len(fields))
    small, capital = (
        torch.stack([glyph_shapes(fields[:, charset.index(letter)])[0] for letter in form])
        for form in (letters, [letter.upper() for letter in letters])
    )
    return (small * capital).sum(dim=2).median(dim=0).values
