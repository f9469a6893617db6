# SPDX-License-Identifier: Apache-2.0
"""State shared by the rendering stages: pixel coordinates, distance fields, and colors."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .geometry import Geometry
from .glyphs import BASELINE, CELL, ORIGIN, SPREAD
from .layout import Layout, Typesetter
from .palette import contrast, enforce_contrast, luminance, sample_color_pairs, saturate
from .sampling import RandomStreams, columns


@dataclass
class Scene:
    """n texts and the crops of one size that they are rendered into.

    Attributes:
        typesetter: creates the distance fields of texts.
        layout: positions of the glyphs.
        geometry: mapping from the texts to the crops.
        x: float32 of shape `(n, height, width)`: `x` of each pixel in the text plane, relative to the center of the ink.
        y: float32 of shape `(n, height, width)`: `y`, likewise.
        scale: float32 of shape `(n,)`: atlas pixels per pixel of the crop.
        background: float32 of shape `(n, 3)`: color behind the text, in 0..1.
        ink: float32 of shape `(n, 3)`: color of the text.
        contrast: float32 of shape `(n,)`: contrast of the two colors, which limits the strength of disturbances.
        difficulty: float32 of shape `(n,)`: difficulty of each text.
        raised: bool of shape `(n,)`: embossed letters in the background's color, visible by their sides and shadows only.
        neon: bool of shape `(n,)`: neon tubes on a dark background.
        device: device of `x` and `y`; the other tensors are on the CPU.
    """

    typesetter: Typesetter
    layout: Layout
    geometry: Geometry
    x: torch.Tensor
    y: torch.Tensor
    scale: torch.Tensor
    background: torch.Tensor
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

    def points(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `x` and `y` of some of the texts."""
        place = rows.to(self.device)
        return self.x[place], self.y[place]

    def blend(self, image: torch.Tensor, rows: torch.Tensor, colors: torch.Tensor, opacity: torch.Tensor) -> None:
        """Blend colors `(m, 3)` into the images `rows`, in place; `opacity` has shape `(m, height, width)`."""
        place = rows.to(self.device)
        image[place] = image[place].lerp(self.color(colors), opacity[:, None])

    def color(self, colors: torch.Tensor) -> torch.Tensor:
        """Reshape colors `(n, 3)` to planes `(n, 3, 1, 1)` on the device."""
        return colors.to(self.device)[:, :, None, None]


def make_scene(
    typesetter: Typesetter,
    layout: Layout,
    geometry: Geometry,
    size: tuple[int, int],
    difficulty: float,
    rng: RandomStreams,
) -> Scene:
    """Map texts into crops of `size`, (height, width), and sample their colors."""
    device = typesetter.device
    x, y = geometry.to_text(*size, device)
    background, ink = sample_color_pairs(rng)
    # screens and paper: clean text
    is_print = rng.bernoulli(0.16)
    own = difficulty * torch.where(is_print, rng.uniform(0, 0.4), 1.0)
    times = torch.where(is_print, rng.uniform(1, 3), 1.0)
    background, ink = saturate(background, times), saturate(ink, times)
    lit = rng.substream("neon")
    neon = lit.bernoulli(0.05 * own) & (luminance(background) < 0.3)
    angles = lit.uniform(0, 2 * math.pi)[:, None] + torch.arange(3) * (2 * math.pi / 3)
    ink = torch.where(neon[:, None], 0.55 + 0.45 * torch.cos(angles), ink)
    # Low contrast, down to the limit of legibility; none at difficulty 0.
    ink = enforce_contrast(background, ink, 0.15 + (1 - own.clamp(max=1)) * 0.35 + 0.10 * rng.uniform())
    scale = geometry.scale(*size)
    difference = contrast(background, ink)
    relief = rng.substream("relief")
    raised = relief.bernoulli(0.03 * own) & (scale < 1.1) & ~neon  # the sides of smaller letters are invisible
    relief_ink = (background + relief.normal(0, 0.04, (1,)) + relief.normal(0, 0.015, (3,))).clamp(0, 1)
    ink = torch.where(raised[:, None], relief_ink, ink)
    difference = torch.where(raised, 0.2, difference)
    return Scene(typesetter, layout, geometry, x, y, scale, background, ink, difference, own, raised, neon, device)


class Glyphs:
    """Distance fields of the texts of a layout, sampled at points of the text plane.

    `middle`, float32 of shape `(n, 2)`, is the point of the layout at the origin of the plane.
    """

    def __init__(self, typesetter: Typesetter, layout: Layout, middle: torch.Tensor):
        self.device = typesetter.device
        self.layout = layout
        self.middle = middle
        self._strips = typesetter.strips(layout)[:, None].float()

    def distance(self, x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return the distance in atlas pixels from each point to the nearest outline, positive inside, at most `SPREAD`.

        The points `(m, height, width)` are in the planes of all texts, or of `rows`, int64 of shape `(m,)` on the CPU.
        """
        layout = self.layout if rows is None else self.layout.select(rows)
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
        # Rounding makes scaling by powers of two exact, so that an image does not depend on the length of the strip.
        u, v = (torch.round(along * 64) / 64 for along in (u, v))
        grid = torch.stack([v * (2 / CELL) - 1, u * (2 / strips.shape[2]) - 1], -1)
        # outside the strip the field is 0, the maximum distance
        return (F.grid_sample(strips, grid, align_corners=False)[:, 0] - 128) * (SPREAD / 127)


def coverage(distance: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the share of each pixel inside the outline, in 0..1, from its distance to the edge and its size."""
    return (distance / scale + 0.5).clamp_(0, 1)


def contrasting_color(colors: torch.Tensor, rng: RandomStreams) -> torch.Tensor:
    """Sample nearly gray colors `(n, 3)` that contrast with the given ones."""
    level = torch.where(luminance(colors) > 0.5, rng.uniform(0, 0.3), rng.uniform(0.7, 1.0))
    return (level[:, None] + rng.normal(0, 0.08, (3,))).clamp(0, 1)
