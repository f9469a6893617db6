# SPDX-License-Identifier: Apache-2.0
"""Font choice and glyph positions of texts, and distance fields of whole texts composed from those of the glyphs.

A text is set along `u`, in atlas pixels: the pen starts at `u = ORIGIN`. Perpendicular to it is `v`, the rows of a glyph's
cell. In a stacked text, with one character below the other, `u` points down and `v` to the right.
"""

from dataclasses import dataclass

import torch

from .atlas import Atlas
from .glyphs import BASELINE, CAP_HEIGHT, CELL, ORIGIN
from .sampling import PerImage, RandomStreams


STACKED_TOP = ORIGIN + 4  # row of the cell where a stacked glyph's pen is, slightly above the capitals
_FAR = 1_000_000.0


@dataclass
class Layout(PerImage):
    """Glyph positions of n texts.

    Attributes:
        fonts: int64 of shape `(n,)`: font indices.
        ids: int64 of shape `(n, longest)`: character indices, padded with -1.
        pens: float32 of shape `(n, longest)`: `u - ORIGIN` of each pen position, integers.
        shifts: float32 of shape `(n, longest)`: shift of each glyph along `v`, integers.
        stacked: bool of shape `(n,)`: characters are stacked.
        lengths: float32 of shape `(n,)`: total advance of the pen.
        small_from: float32 of shape `(n,)`: pen position where small capitals begin.
        small_scale: float32 of shape `(n,)`: scale of small capitals; 1 for other texts.
        box: float32 of shape `(n, 4)`: left, top, right and bottom of the ink, as `x` and `y`.
        centers: float32 of shape `(n, longest, 2)`: `x` and `y` of the center of each character's ink; NaN without ink.

    `x` and `y` are `u` and `v` of a text on one line, and `v` and `u` of a stacked text.
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
    centers: torch.Tensor


class Typesetter:
    """Typesetter for the fonts of an atlas. It runs on the CPU except for `strips`, which are on `device`.

    Unusual spacing and arrangement depend on `difficulty`; 0 is regular text.
    """

    def __init__(self, atlas: Atlas, difficulty: float, device: torch.device):
        self.difficulty = difficulty
        self.charset = atlas.charset
        self._advances = atlas.advances
        self._kerning = atlas.kerning
        self.device = device
        self._number = {character: number for number, character in enumerate(atlas.charset)}
        self._lower = torch.tensor([character.islower() for character in atlas.charset])
        self.is_space = torch.tensor([character == " " for character in atlas.charset])
        self._word_like = torch.tensor([character.isalnum() for character in atlas.charset])
        self._usable = atlas.usable
        self._extents = _ink_extents(atlas.fields)
        glyphs = atlas.fields.transpose(2, 3).reshape(-1, CELL)  # one row per column of a cell
        self._columns = torch.cat([glyphs, glyphs.new_zeros(1, CELL)]).to(device)

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Encode texts as character indices of shape `(n, longest)`, padded with -1.

        Raises:
            ValueError: a text is empty or blank, or has a character that is not in the atlas.
        """
        longest = max(map(len, texts), default=0)
        rows = []
        for row, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"Text {row}, {text!r}, is blank: remove blank texts.")
            try:
                rows.append([self._number[character] for character in text] + [-1] * (longest - len(text)))
            except KeyError as error:
                raise ValueError(
                    f"Text {row}, {text!r}, has the character {error.args[0]!r}, which is not in the atlas; its charset is "
                    f"{self.charset!r}."
                ) from None
        return torch.tensor(rows, dtype=torch.int64).reshape(len(texts), longest)

    def choose_fonts(self, texts: list[str], ids: torch.Tensor, rng: RandomStreams) -> torch.Tensor:
        """Choose a font that has all characters of each text: int64 of shape `(n,)`.

        Raises:
            ValueError: no font has all characters of a text.
        """
        present = torch.zeros(len(ids), len(self.charset) + 1).scatter_(1, ids.clamp(min=-1) + 1, 1.0)[:, 1:]
        able = present @ (~self._usable).float().T == 0
        if (unable := ~able.any(1)).any():
            text = texts[int(unable.nonzero()[0])]
            raise ValueError(f"None of the {len(self._usable)} fonts of the atlas has all characters of {text!r}.")
        return _pick(able, rng.uniform())

    def set(self, texts: list[str], rng: RandomStreams) -> Layout:
        """Choose a font for each text and typeset it.

        Raises:
            ValueError: a text cannot be rendered.
        """
        ids = self.encode(texts)
        fonts = self.choose_fonts(texts, ids, rng.substream("font"))
        return self._set(ids, fonts, rng.substream("spacing"))

    def set_neighbors(self, layout: Layout, rng: RandomStreams) -> Layout:
        """Typeset random words as neighbors of the texts of a layout, in the same fonts."""
        has_lowercase = (self._lower[layout.ids.clamp(min=0)] & (layout.ids >= 0)).any(1)
        usable = self._usable[layout.fonts] & self._word_like & (has_lowercase[:, None] | ~self._lower)
        usable |= ~usable.any(1, keepdim=True) & self._usable[layout.fonts]
        lengths = rng.uniform(3, 12).long()
        picked = _pick(usable[:, None].expand(-1, 12, -1).flatten(0, 1), rng.uniform(0, 1, (12,)).flatten())
        ids = torch.where(torch.arange(12) < lengths[:, None], picked.reshape(-1, 12), -1)
        return self._set(ids, layout.fonts, rng.substream("spacing"))

    def _set(self, ids: torch.Tensor, fonts: torch.Tensor, rng: RandomStreams) -> Layout:
        difficulty = self.difficulty
        present = ids >= 0
        known = ids.clamp(min=0)
        count = present.sum(1)
        ink = present & ~self.is_space[known]
        left, top, right, bottom = self._extents[fonts[:, None], known].unbind(-1)

        # Every effect samples its numbers whether or not it applies, so that effects are independent.
        plain, wide = rng.normal(0, 0.5), rng.uniform(1.0, 9.0)
        spacing = torch.where(rng.bernoulli(0.13 * difficulty), wide, plain.clamp(-1.2, 1.5) * min(difficulty, 1.0))
        # Widely spaced letters, in single words only: in other texts, spaces could not be recognized.
        spaced = rng.substream("apart")
        alone = (ink == present).all(1) & (count <= 14)
        apart = spaced.bernoulli(0.025 * difficulty) & alone
        spacing = torch.where(apart, spaced.uniform(0.4, 1.0) * CAP_HEIGHT, spacing)
        unsteady = rng.bernoulli(0.05 * difficulty)
        jitter = rng.substream("jitter").normal(0, 1, ids.shape[1:]) * (unsteady * rng.uniform(0.4, 1.6))[:, None]
        bouncing = rng.bernoulli(0.03 * difficulty) * rng.uniform(0.6, 2.6)
        bounce = rng.substream("bounce").normal(0, 1, ids.shape[1:]) * bouncing[:, None]
        stacked = rng.bernoulli(0.006 * difficulty) & (count >= 2) & (count <= 5) & (ink == present).all(1)
        leading = CAP_HEIGHT + rng.uniform(3, 14)
        has_small = (self._lower[known] & present).any(1)
        small = rng.bernoulli(0.07 * difficulty) & ~has_small & (count >= 3) & ~stacked
        small_scale = torch.where(small, rng.uniform(0.68, 0.88), 1.0)

        kerning = self._kerning[fonts[:, None], known[:, :-1], known[:, 1:]].float() / 4
        advances = self._advances[fonts[:, None], known] + spacing[:, None] + jitter
        advances[:, :-1] += kerning
        advances = torch.where(stacked[:, None], leading[:, None], advances.clamp(min=2)) * present
        pens = (advances.cumsum(1) - advances).round()
        lengths = (pens + advances).amax(1)

        centering = (CELL / 2 - (left + right) / 2).round()
        shifts = torch.where(stacked[:, None], centering, bounce.round().clamp(-6, 6)) * ink
        small_from = torch.where(small, advances[:, 0].round(), _FAR)

        # corners of each glyph's ink, as x and y
        along = pens[:, :, None] + torch.stack([left, right], 2)
        across = torch.stack([top, bottom], 2) + shifts[:, :, None]
        smaller = (pens >= small_from[:, None])[:, :, None]
        scale = small_scale[:, None, None]
        start = small_from[:, None, None] + ORIGIN
        along = torch.where(smaller, start + (along - start) * scale, along)
        across = torch.where(smaller, BASELINE + (across - BASELINE) * scale, across)
        stacked_y = pens[:, :, None] + torch.stack([top, bottom], 2) - STACKED_TOP + ORIGIN
        stacked_x = torch.stack([left, right], 2) + shifts[:, :, None]
        x = torch.where(stacked[:, None, None], stacked_x, along)
        y = torch.where(stacked[:, None, None], stacked_y, across)
        hidden = ~ink[:, :, None]
        corners = torch.stack([x, y], -1)
        low = corners.masked_fill(hidden[..., None], _FAR).amin((1, 2))
        high = corners.masked_fill(hidden[..., None], -_FAR).amax((1, 2))
        centers = torch.stack([x.mean(2), y.mean(2)], 2).masked_fill(hidden, float("nan"))
        box = torch.cat([low, high], 1)
        return Layout(fonts, ids, pens, shifts, stacked, lengths, small_from, small_scale, box, centers)

    def strips(self, layout: Layout) -> torch.Tensor:
        """Compose the distance fields of whole texts: uint8 of shape `(n, length, CELL)` on the device, `u` by `v`."""
        device = self.device
        # A power of two, so that positions in the strip are exact, independent of the longest text of the batch.
        width = 1 << (int(layout.lengths.max()) + CELL + ORIGIN).bit_length()
        present = layout.ids >= 0
        glyphs = (layout.fonts[:, None] * len(self.charset) + layout.ids.clamp(min=0)).to(device)
        pens = layout.pens.masked_fill(~present, _FAR).to(device)
        along = (torch.arange(width, device=device, dtype=torch.float32) - ORIGIN).expand(len(pens), -1).contiguous()
        nearest = torch.searchsorted(pens, along, right=True) - 1
        is_moved = layout.stacked | (layout.shifts != 0).any(1)
        moved = is_moved.nonzero()[:, 0]
        place, steady = moved.to(device), ~is_moved.to(device)[:, None]
        strips = torch.zeros(len(pens), width, CELL, dtype=torch.uint8, device=device)
        for offset in (0, 1, -1):  # glyphs may overlap their neighbors' space
            which = (nearest + offset).clamp(0, pens.shape[1] - 1)
            pen = pens.gather(1, which)
            here = (nearest + offset == which) & (pen < _FAR)
            column = (along - pen).long() + ORIGIN
            inside = here & steady & (column >= 0) & (column < CELL)
            rows = torch.where(inside, glyphs.gather(1, which) * CELL + column, len(self._columns) - 1)
            glyph_columns = self._columns.index_select(0, rows.flatten()).reshape(strips.shape)
            strips = torch.maximum(strips, glyph_columns, out=strips)
            if len(moved):
                parts = (glyphs[place], which[place], column[place], here[place])
                strips[place] = torch.maximum(strips[place], self._translated(layout.select(moved), *parts))
        return strips

    def _translated(
        self, layout: Layout, glyphs: torch.Tensor, which: torch.Tensor, along: torch.Tensor, here: torch.Tensor
    ) -> torch.Tensor:
        """Look up glyphs that are shifted along `v`, or are part of a stacked text."""
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
    """Choose one of the true columns of each row of a bool matrix by a number in 0..1."""
    ranks = allowed.cumsum(1)
    wanted = (chance * ranks[:, -1]).long() + 1
    return torch.searchsorted(ranks, wanted[:, None])[:, 0]


def _ink_extents(fields: torch.Tensor) -> torch.Tensor:
    """Return the bounding box of the ink of each glyph: left, top, right, bottom; 0 without ink."""
    extents = torch.zeros(*fields.shape[:2], 4)
    for font, glyphs in enumerate(fields):  # font by font, to limit memory
        for axis, (first, last) in ((1, (0, 2)), (2, (1, 3))):
            line = glyphs.amax(axis) >= 128
            some = line.any(1)
            extents[font, :, first] = line.float().argmax(1) * some
            extents[font, :, last] = (CELL - line.flip(1).float().argmax(1)) * some
    return extents
