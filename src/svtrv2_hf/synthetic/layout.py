# SPDX-License-Identifier: Apache-2.0
"""Which font a text is set in and where its glyphs stand; fields of whole texts, put together from those of the glyphs.

A text is set along `u`, in pixels of the atlas: the pen begins at `u = ORIGIN`. Across it lies `v`, the rows of a glyph's
cell. A stacked text, one character below the other, is set along its height: its `u` runs down and its `v` to the right.
"""

from dataclasses import dataclass, fields

import torch

from .atlas import Atlas
from .draws import Draws
from .glyphs import BASELINE, CAP_HEIGHT, CELL, ORIGIN


STACKED_TOP = ORIGIN + 4  # the row of the cell, a little above the capitals' top, where a stacked glyph's pen stands
_NOWHERE = 1_000_000.0


@dataclass
class Layout:
    """Where the glyphs of n texts stand.

    Attributes:
        fonts: int64 of shape `(n,)`.
        ids: int64 of shape `(n, longest)`, the characters, -1 beyond the end.
        pens: float32 of shape `(n, longest)`: `u` of each pen less `ORIGIN`, whole numbers.
        shifts: float32 of shape `(n, longest)`: how far each glyph is moved along `v`, whole numbers.
        stacked: bool of shape `(n,)`.
        lengths: float32 of shape `(n,)`: how far the pen moves in all.
        small_from: float32 of shape `(n,)`: pen position from which on the text is set smaller.
        small_scale: float32 of shape `(n,)`: by how much (small capitals); 1 where it is not.
        box: float32 of shape `(n, 4)`: the ink's left, top, right and bottom, `x` and `y` below.
        centres: float32 of shape `(n, longest, 2)`: `x` and `y` of the middle of each character's ink; NaN for none.

    `x` and `y` are `u` and `v` of a text in one line, and `v` and `u` of a stacked one.
    """

    fonts: torch.Tensor
    ids: torch.Tensor
    pens: torch.Tensor
    shifts: torch.Tensor
    stacked: torch.Tensor
    lengths: torch.Tensor
    small_from: torch.Tensor
    small_scale: torch.Tensor
    box: torch.Tensor
    centres: torch.Tensor

    def at(self, rows: torch.Tensor) -> "Layout":
        """The layout of some of the texts."""
        return Layout(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


class Typesetter:
    """Sets texts in the fonts of an atlas. Works on the CPU, but for `strips`.

    Args:
        atlas: the glyphs.
        difficulty: how unusual spacing and arrangement may become; 0 for none of it.
        device: where the fields lie.

    Attributes:
        is_space: bool of shape `(characters,)`, on the CPU.
    """

    def __init__(self, atlas: Atlas, difficulty: float, device: torch.device):
        atlas = atlas.to("cpu")
        self.difficulty = difficulty
        self.charset = atlas.charset
        self._advances = atlas.advances
        self._kerning = atlas.kerning
        self.device = device
        self._number = {character: number for number, character in enumerate(atlas.charset)}
        self._lower = torch.tensor([character.islower() for character in atlas.charset])
        self.is_space = torch.tensor([character == " " for character in atlas.charset])
        self._word_like = torch.tensor([character.isalnum() for character in atlas.charset])
        self._drawable = atlas.legible
        self._extents = _ink_extents(atlas.fields)
        glyphs = atlas.fields.transpose(2, 3).reshape(-1, CELL)  # one row per column of a cell
        self._columns = torch.cat([glyphs, glyphs.new_zeros(1, CELL)]).to(device)

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Character numbers of shape `(n, longest)`, -1 beyond the end.

        Raises:
            ValueError: a text is empty or blank, or has a character that is not in the atlas.
        """
        longest = max(map(len, texts), default=0)
        rows = []
        for row, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"Text {row}, {text!r}, has nothing to draw: leave empty texts out.")
            try:
                rows.append([self._number[character] for character in text] + [-1] * (longest - len(text)))
            except KeyError as error:
                raise ValueError(
                    f"Text {row}, {text!r}, has the character {error.args[0]!r}, which the atlas lacks; it has "
                    f"{self.charset!r}."
                ) from None
        return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)

    def choose_fonts(self, texts: list[str], ids: torch.Tensor, draws: Draws) -> torch.Tensor:
        """One font for each text of those that can draw all of it, int64 of shape `(n,)`.

        Raises:
            ValueError: there is none.
        """
        present = torch.zeros(len(ids), len(self.charset) + 1).scatter_(1, ids.clamp(min=-1) + 1, 1.0)[:, 1:]
        able = present @ (~self._drawable).float().T == 0
        if (unable := ~able.any(1)).any():
            text = texts[int(unable.nonzero()[0])]
            raise ValueError(f"None of the {len(self._drawable)} fonts of the atlas can draw all of {text!r}.")
        return _pick(able, draws.uniform())

    def set(self, texts: list[str], draws: Draws) -> Layout:
        """Chooses a font for each text and sets it.

        Raises:
            ValueError: a text cannot be drawn.
        """
        ids = self.encode(texts)
        fonts = self.choose_fonts(texts, ids, draws.part("font"))
        return self._set(ids, fonts, draws.part("spacing"))

    def set_neighbours(self, layout: Layout, draws: Draws) -> Layout:
        """Texts such as could stand beside those of a layout: of the same fonts, but letters at random."""
        with_small = (self._lower[layout.ids.clamp(min=0)] & (layout.ids >= 0)).any(1)
        usable = self._drawable[layout.fonts] & self._word_like & (with_small[:, None] | ~self._lower)
        usable |= ~usable.any(1, keepdim=True) & self._drawable[layout.fonts]
        lengths = draws.uniform(3, 12).long()
        picked = _pick(usable[:, None].expand(-1, 12, -1).flatten(0, 1), draws.uniform(0, 1, (12,)).flatten())
        ids = torch.where(torch.arange(12) < lengths[:, None], picked.reshape(-1, 12), -1)
        return self._set(ids, layout.fonts, draws.part("spacing"))

    def _set(self, ids: torch.Tensor, fonts: torch.Tensor, draws: Draws) -> Layout:
        difficulty = self.difficulty
        present = ids >= 0
        known = ids.clamp(min=0)
        count = present.sum(1)
        ink = present & ~self.is_space[known]
        left, top, right, bottom = self._extents[fonts[:, None], known].unbind(-1)

        # Each way of setting draws its numbers whether or not it is used, so that no choice changes another.
        plain, wide = draws.normal(0, 0.5), draws.uniform(1.0, 9.0)
        spacing = torch.where(draws.chance(0.13 * difficulty), wide, plain.clamp(-1.2, 1.5) * min(difficulty, 1.0))
        # Letters as far apart as they are high, in words that stand alone: in others, nobody would see the spaces.
        apart = draws.part("apart")
        alone = (ink == present).all(1) & (count <= 14)
        spacing = torch.where(apart.chance(0.025 * difficulty) & alone, apart.uniform(0.4, 1.0) * CAP_HEIGHT, spacing)
        unsteady = draws.chance(0.05 * difficulty)
        jitter = draws.part("jitter").normal(0, 1, ids.shape[1:]) * (unsteady * draws.uniform(0.4, 1.6))[:, None]
        bouncing = draws.chance(0.03 * difficulty) * draws.uniform(0.6, 2.6)
        bounce = draws.part("bounce").normal(0, 1, ids.shape[1:]) * bouncing[:, None]
        stacked = draws.chance(0.006 * difficulty) & (count >= 2) & (count <= 5) & (ink == present).all(1)
        leading = CAP_HEIGHT + draws.uniform(3, 14)
        has_small = (self._lower[known] & present).any(1)
        small = draws.chance(0.07 * difficulty) & ~has_small & (count >= 3) & ~stacked
        small_scale = torch.where(small, draws.uniform(0.68, 0.88), torch.ones(len(ids)))

        kerning = self._kerning[fonts[:, None], known[:, :-1], known[:, 1:]].float() / 4
        advances = self._advances[fonts[:, None], known] + spacing[:, None] + jitter
        advances[:, :-1] += kerning
        advances = torch.where(stacked[:, None], leading[:, None], advances.clamp(min=2)) * present
        pens = (advances.cumsum(1) - advances).round()
        lengths = (pens + advances).amax(1)

        centring = (CELL / 2 - (left + right) / 2).round()
        shifts = torch.where(stacked[:, None], centring, bounce.round().clamp(-6, 6)) * ink
        small_from = torch.where(small, advances[:, 0].round(), torch.full_like(lengths, _NOWHERE))

        # corners of each glyph's ink, as x and y
        along = pens[:, :, None] + torch.stack([left, right], 2)
        across = torch.stack([top, bottom], 2) + shifts[:, :, None]
        smaller = (pens >= small_from[:, None])[:, :, None]
        scale = small_scale[:, None, None]
        start = small_from[:, None, None] + ORIGIN
        along = torch.where(smaller, start + (along - start) * scale, along)
        across = torch.where(smaller, BASELINE + (across - BASELINE) * scale, across)
        down = pens[:, :, None] + torch.stack([top, bottom], 2) - STACKED_TOP + ORIGIN
        beside = torch.stack([left, right], 2) + shifts[:, :, None]
        x = torch.where(stacked[:, None, None], beside, along)
        y = torch.where(stacked[:, None, None], down, across)
        hidden = ~ink[:, :, None]
        low = torch.stack([x, y], -1).masked_fill(hidden[..., None], _NOWHERE).amin((1, 2))
        high = torch.stack([x, y], -1).masked_fill(hidden[..., None], -_NOWHERE).amax((1, 2))
        centres = torch.stack([x.mean(2), y.mean(2)], 2).masked_fill(hidden, float("nan"))
        box = torch.cat([low, high], 1)
        return Layout(fonts, ids, pens, shifts, stacked, lengths, small_from, small_scale, box, centres)

    def strips(self, layout: Layout) -> torch.Tensor:
        """The fields of whole texts, uint8 of shape `(n, length, CELL)` on the device: along `u`, then `v`."""
        device = self.device
        # A power of two, so that places in the strip are told without rounding, whatever the longest text of the batch.
        width = 1 << (int(layout.lengths.max()) + CELL + ORIGIN).bit_length()
        present = layout.ids >= 0
        glyphs = (layout.fonts[:, None] * len(self.charset) + layout.ids.clamp(min=0)).to(device)
        pens = layout.pens.masked_fill(~present, _NOWHERE).to(device)
        along = (torch.arange(width, device=device, dtype=torch.float32) - ORIGIN).expand(len(pens), -1).contiguous()
        nearest = torch.searchsorted(pens, along, right=True) - 1
        is_moved = layout.stacked | (layout.shifts != 0).any(1)
        moved = is_moved.nonzero()[:, 0]
        place, steady = moved.to(device), ~is_moved.to(device)[:, None]
        strips = torch.zeros(len(pens), width, CELL, dtype=torch.uint8, device=device)
        for offset in (0, 1, -1):  # a glyph may reach into the room of the next one, and the next into its own
            which = (nearest + offset).clamp(0, pens.shape[1] - 1)
            pen = pens.gather(1, which)
            here = (nearest + offset == which) & (pen < _NOWHERE)
            column = (along - pen).long() + ORIGIN
            inside = here & steady & (column >= 0) & (column < CELL)
            rows = torch.where(inside, glyphs.gather(1, which) * CELL + column, len(self._columns) - 1)
            found = self._columns.index_select(0, rows.flatten()).reshape(strips.shape)
            strips = torch.maximum(strips, found, out=strips)
            if len(moved):
                parts = (glyphs[place], which[place], column[place], here[place])
                strips[place] = torch.maximum(strips[place], self._moved(layout.at(moved), *parts))
        return strips

    def _moved(
        self, layout: Layout, glyphs: torch.Tensor, which: torch.Tensor, along: torch.Tensor, here: torch.Tensor
    ) -> torch.Tensor:
        """Columns of glyphs that are moved across the line, or rows of those of a stacked text."""
        device = self.device
        stacked = layout.stacked.to(device)[:, None]
        along = torch.where(stacked, along - ORIGIN + STACKED_TOP, along)[:, :, None]
        across = torch.arange(CELL, device=device) - layout.shifts.long().to(device).gather(1, which)[:, :, None]
        inside = here[:, :, None] & (along >= 0) & (along < CELL) & (across >= 0) & (across < CELL)
        column = torch.where(stacked[:, :, None], across, along)
        row = torch.where(stacked[:, :, None], along, across)
        index = (glyphs.gather(1, which)[:, :, None] * CELL + column) * CELL + row
        return torch.where(inside, self._columns.flatten()[torch.where(inside, index, 0)], 0)


def _pick(allowed: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    """For each row of a bool matrix one of its true columns, by a number in 0..1."""
    ranks = allowed.cumsum(1)
    wanted = (chance * ranks[:, -1]).long() + 1
    return torch.searchsorted(ranks, wanted[:, None])[:, 0]


def _ink_extents(fields: torch.Tensor) -> torch.Tensor:
    """First and last column and row of the ink of each glyph: left, top, right, bottom; 0 where there is none."""
    extents = torch.zeros(*fields.shape[:2], 4)
    for font, glyphs in enumerate(fields):  # font by font, to hold little at once
        for axis, (first, last) in ((1, (0, 2)), (2, (1, 3))):
            line = glyphs.amax(axis) >= 128
            some = line.any(1)
            extents[font, :, first] = line.float().argmax(1) * some
            extents[font, :, last] = (CELL - line.flip(1).float().argmax(1)) * some
    return extents
