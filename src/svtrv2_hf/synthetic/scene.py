# SPDX-License-Identifier: Apache-2.0
"""What the stages of drawing share: the pixels in the plane of the text, its fields, and its two colours."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .draws import Draws, columns
from .geometry import Geometry
from .glyphs import BASELINE, CELL, ORIGIN, SPREAD
from .layout import Layout, Typesetter
from .palette import contrast, draw_pairs, luminance, purer, separate


@dataclass
class Scene:
    """n texts and the crops of one size that they are drawn in.

    Attributes:
        typesetter: makes fields of texts.
        layout: where glyphs stand.
        geometry: how texts lie in the crops.
        x: float32 of shape `(n, height, width)`: where each pixel lies in the text's plane, from the middle of its ink.
        y: likewise.
        scale: float32 of shape `(n,)`: pixels of the atlas in one pixel of the crop.
        ground: float32 of shape `(n, 3)`: colour behind the text, in 0..1.
        ink: float32 of shape `(n, 3)`: its own.
        contrast: float32 of shape `(n,)`: how far the two are apart; what disturbs is kept in proportion to it.
        difficulty: float32 of shape `(n,)`: how far each departs from clean print.
        raised: bool of shape `(n,)`: letters of the ground's own material, seen by their sides and shadows alone.
        neon: bool of shape `(n,)`: tubes of coloured light in the dark.
        device: of `x` and `y`; all else is on the CPU.
    """

    typesetter: Typesetter
    layout: Layout
    geometry: Geometry
    x: torch.Tensor
    y: torch.Tensor
    scale: torch.Tensor
    ground: torch.Tensor
    ink: torch.Tensor
    contrast: torch.Tensor
    difficulty: torch.Tensor
    raised: torch.Tensor
    neon: torch.Tensor
    device: torch.device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the crops."""
        return self.x.shape[1], self.x.shape[2]

    def colour(self, colours: torch.Tensor) -> torch.Tensor:
        """Colours `(n, 3)` to planes `(n, 3, 1, 1)` on the device."""
        return colours.to(self.device)[:, :, None, None]


def make_scene(
    typesetter: Typesetter,
    layout: Layout,
    geometry: Geometry,
    size: tuple[int, int],
    difficulty: float,
    draws: Draws,
) -> Scene:
    """Puts texts into crops of `size`, (height, width), and chooses their colours."""
    device = typesetter.device
    x, y = geometry.to_text(*size, device)
    ground, ink = draw_pairs(draws)
    # screens and paper, with little to see but the text
    is_print = draws.chance(0.16)
    own = difficulty * torch.where(is_print, draws.uniform(0, 0.4), torch.ones(len(draws)))
    times = torch.where(is_print, draws.uniform(1, 3), torch.ones(len(draws)))
    ground, ink = purer(ground, times), purer(ink, times)
    lit = draws.part("neon")
    neon = lit.chance(0.05 * own) & (luminance(ground) < 0.3)
    angles = lit.uniform(0, 2 * math.pi)[:, None] + torch.arange(3) * (2 * math.pi / 3)
    ink = torch.where(neon[:, None], 0.55 + 0.45 * torch.cos(angles), ink)
    # Faint words exist. They are as faint as a person can still read, and none at difficulty 0.
    ink = separate(ground, ink, 0.15 + (1 - own.clamp(max=1)) * 0.35 + 0.10 * draws.uniform())
    scale = geometry.scale(*size)
    apart = contrast(ground, ink)
    relief = draws.part("relief")
    raised = relief.chance(0.03 * own) & (scale < 1.1) & ~neon  # smaller letters have no sides to be seen by
    alike = (ground + relief.normal(0, 0.04, (1,)) + relief.normal(0, 0.015, (3,))).clamp(0, 1)
    ink = torch.where(raised[:, None], alike, ink)
    apart = torch.where(raised, torch.full_like(apart, 0.2), apart)
    return Scene(typesetter, layout, geometry, x, y, scale, ground, ink, apart, own, raised, neon, device)


class Glyphs:
    """The fields of the texts of a layout, to be looked up at points of the text's plane.

    Args:
        typesetter: makes the fields.
        layout: of the texts.
        middle: float32 of shape `(n, 2)`: `x` and `y` of the layout at the origin of the plane.
    """

    def __init__(self, typesetter: Typesetter, layout: Layout, middle: torch.Tensor):
        self.device = typesetter.device
        self.layout = layout
        self.middle = middle
        self._strips = typesetter.strips(layout)[:, None].float()

    def distance(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Pixels of the atlas from each point to the nearest outline, positive inside, at most `SPREAD`.

        Args:
            x: float32 of shape `(m, height, width)`, of all texts or of those of `rows`.
            y: likewise.
            rows: int64 of shape `(m,)`, on the CPU.
        """
        layout = self.layout if rows is None else self.layout.at(rows)
        middle = self.middle if rows is None else self.middle[rows]
        strips = self._strips if rows is None else self._strips[rows.to(self.device)]
        middle_x, middle_y = columns(self.device, *middle.unbind(1))
        u, v = x + middle_x, y + middle_y
        small = (layout.small_scale != 1).nonzero()[:, 0]
        stacked = layout.stacked.nonzero()[:, 0].to(self.device)
        if len(small):
            place = small.to(self.device)
            start, scale = columns(self.device, layout.small_from[small] + ORIGIN, layout.small_scale[small])
            after = u[place] >= start
            u[place] = torch.where(after, start + (u[place] - start) / scale, u[place])
            v[place] = torch.where(after, BASELINE + (v[place] - BASELINE) / scale, v[place])
        if len(stacked):
            u[stacked], v[stacked] = v[stacked], u[stacked]
        # Coarse enough that scaling by powers of two loses nothing: an image must not depend on the strip's length.
        u, v = (torch.round(along * 64) / 64 for along in (u, v))
        grid = torch.stack([v * (2 / CELL) - 1, u * (2 / strips.shape[2]) - 1], -1)
        # beyond the strip the field is 0, its farthest
        return (F.grid_sample(strips, grid, align_corners=False)[:, 0] - 128) * (SPREAD / 127)


def coverage(distance: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The share of each pixel that lies inside, in 0..1, by the distance to the edge and the size of the pixel."""
    return (distance / scale + 0.5).clamp_(0, 1)


def opposite(colours: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Colours `(n, 3)` that stand out from others, mostly without much hue of their own."""
    level = torch.where(luminance(colours) > 0.5, draws.uniform(0, 0.3), draws.uniform(0.7, 1.0))
    return (level[:, None] + draws.normal(0, 0.08, (3,))).clamp(0, 1)
