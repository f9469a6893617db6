# SPDX-License-Identifier: Apache-2.0
"""Placement of text in an image: bending, rotation, perspective, and the crop around it."""

import math
from dataclasses import dataclass

import torch

from .glyphs import CAP_HEIGHT
from .layout import Layout
from .sampling import PerImage, RandomStreams, columns


_STEPS = 13  # points along each long side that approximate the outline of bent text
_MAX_CUT = 0.8  # of a crop, as a share of the distance from the outline to the center of the outermost character


@dataclass
class Geometry(PerImage):
    """A mapping from the text plane, with `x` and `y` relative to the center of the ink, to the crop plane, and back.

    The text is bent first (an arc or a wave), then a homography is applied.

    Attributes:
        matrix: float64 of shape `(n, 3, 3)`: homography.
        curvature: float32 of shape `(n,)`: 1 / radius of the arc; positive if its center is below the text.
        wave: float32 of shape `(n, 3)`: amplitude, frequency in radians per pixel, and phase of the wave.
        middle: float32 of shape `(n, 2)`: center of the text in the layout.
        half: float32 of shape `(n, 2)`: half the width and half the height of the text.
        crop: float32 of shape `(n, 4)`: left, top, right and bottom of the crop.
    """

    matrix: torch.Tensor
    curvature: torch.Tensor
    wave: torch.Tensor
    middle: torch.Tensor
    half: torch.Tensor
    crop: torch.Tensor

    @property
    def ratios(self) -> torch.Tensor:
        """Aspect ratios (width / height) of the crops, float32 of shape `(n,)`."""
        left, top, right, bottom = self.crop.unbind(1)
        return (right - left) / (bottom - top)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Map points from the text plane to the crop plane, `(n, k, 2)`."""
        x, y = _bend(points[..., 0], points[..., 1], self.curvature[:, None], self.wave[:, None])
        homogeneous = torch.stack([x, y, torch.ones_like(x)], -1).double() @ self.matrix.transpose(1, 2)
        return (homogeneous[..., :2] / homogeneous[..., 2:]).float()

    def to_text(self, height: int, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Map the pixels of crops of one size to the text plane: `x` and `y` of shape `(n, height, width)`."""
        left, top, right, bottom = self.crop.double().unbind(1)
        zero, one = torch.zeros_like(left), torch.ones_like(left)
        step_x, step_y = (right - left) / width, (bottom - top) / height
        pixels = torch.stack([step_x, zero, left, zero, step_y, top, zero, zero, one], 1).reshape(-1, 3, 3)
        inverse = torch.linalg.inv(self.matrix) @ pixels
        inverse = (inverse / inverse[:, 2:, 2:]).float().to(device)
        across = torch.arange(width, device=device) + 0.5
        down = (torch.arange(height, device=device) + 0.5)[:, None]

        def plane(row: int) -> torch.Tensor:
            a, b, c = inverse[:, row, :, None, None].unbind(1)
            return (b * down + c) + a * across

        scale = plane(2).reciprocal_()
        x, y = plane(0).mul_(scale), plane(1).mul_(scale)
        bent = ((self.curvature != 0) | (self.wave[:, 0] != 0)).nonzero()[:, 0]
        if len(bent):
            rows = bent.to(device)
            curvature, *wave = columns(device, self.curvature[bent], *self.wave[bent].unbind(1))
            x[rows], y[rows] = _unbend(x[rows], y[rows], curvature, wave)
        return x, y

    def scale(self, height: int, width: int) -> torch.Tensor:
        """Return the number of atlas pixels per pixel at the center of the crop, float32 of shape `(n,)`."""
        left, top, right, bottom = self.crop.unbind(1)
        area = (right - left) * (bottom - top) / (height * width)
        zoom = torch.linalg.det(self.matrix[:, :2, :2]).abs().float()
        return (area / zoom).sqrt()


def _bend(
    x: torch.Tensor, y: torch.Tensor, curvature: torch.Tensor, wave: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    amplitude, frequency, phase = wave.unbind(-1)
    y = y + amplitude * torch.sin(frequency * x + phase)
    side = torch.where(curvature < 0, -1.0, 1.0)
    radius = 1 / curvature.abs().clamp(min=1e-6)
    from_middle = radius - side * y
    bent_x = from_middle * torch.sin(x / radius)
    bent_y = side * (radius - from_middle * torch.cos(x / radius))
    return torch.where(curvature == 0, x, bent_x), torch.where(curvature == 0, y, bent_y)


def _unbend(
    x: torch.Tensor, y: torch.Tensor, curvature: torch.Tensor, wave: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    side = torch.where(curvature < 0, -1.0, 1.0)
    radius = 1 / curvature.abs().clamp(min=1e-6)
    below = radius - side * y
    straight_x = torch.where(curvature == 0, x, radius * torch.atan2(x, below))
    straight_y = torch.where(curvature == 0, y, side * (radius - torch.sqrt(x * x + below * below)))
    amplitude, frequency, phase = wave
    return straight_x, straight_y - amplitude * torch.sin(frequency * straight_x + phase)


def sample_geometry(layout: Layout, difficulty: float, rng: RandomStreams) -> Geometry:
    """Sample bending, perspective and crop of texts."""
    left, top, right, bottom = layout.box.unbind(1)
    # A single period or dash does not fill the crop: annotators leave as much room as for a letter.
    missing = (0.62 * CAP_HEIGHT - (bottom - top)).clamp(min=0)
    top, bottom = top - missing * rng.uniform(0.3, 0.7), bottom + missing * rng.uniform(0.3, 0.7)
    middle = torch.stack([(left + right) / 2, (top + bottom) / 2], 1)
    half_width, half_height = (right - left) / 2, (bottom - top) / 2
    curvature, wave = _sample_bend(half_width, half_height, layout.stacked, difficulty, rng.substream("bend"))
    matrix = _sample_homography(half_width, half_height, layout.stacked, difficulty, rng.substream("homography"))
    geometry = Geometry(
        matrix, curvature, wave, middle, torch.stack([half_width, half_height], 1), torch.zeros(len(rng), 4)
    )
    geometry.crop = _sample_crop(geometry, layout, difficulty, rng.substream("crop"))
    return geometry


def _sample_bend(
    half_width: torch.Tensor, half_height: torch.Tensor, stacked: torch.Tensor, difficulty: float, rng: RandomStreams
) -> tuple[torch.Tensor, torch.Tensor]:
    length = half_width / half_height
    long = (length > 1.6) & (length < 12) & ~stacked
    # The rise of the arc, half_width * angle / 2, is limited to about the letter height, or twice that, as on seals.
    steep = rng.substream("steep arc")
    rise = torch.where(steep.bernoulli(0.4), steep.uniform(2.2, 4.4), 2.2)
    angle = torch.minimum(rng.uniform(0.15, 1.2), rise * half_height / half_width)
    angle = torch.where(rng.bernoulli(0.3), -angle, angle)
    arc = rng.bernoulli(0.10 * difficulty) & long
    curvature = torch.where(arc, angle / half_width, 0.0)
    waved = rng.bernoulli(0.025 * difficulty) & long & ~arc
    amplitude = torch.where(waved, half_height * rng.uniform(0.06, 0.3), 0.0)
    frequency = rng.uniform(0.6, 2.2) * math.pi / (2 * half_width).clamp(min=3 * CAP_HEIGHT)
    return curvature, torch.stack([amplitude, frequency, rng.uniform(0, 2 * math.pi)], 1)


def _sample_homography(
    half_width: torch.Tensor, half_height: torch.Tensor, stacked: torch.Tensor, difficulty: float, rng: RandomStreams
) -> torch.Tensor:
    count = len(rng)
    slight, tilted, strong = rng.normal(0, 1.4), rng.normal(0, 6), rng.uniform(12, 34)
    strong = torch.where(rng.bernoulli(0.5), strong, -strong)
    kind = rng.uniform()
    turn = torch.where(kind < 0.30 * difficulty, tilted, slight * min(difficulty, 1.0))
    turn = torch.where(kind > 1 - 0.07 * difficulty, strong, turn)
    # Limits the rotation of long lines, whose letters would become too small in the crop.
    length = half_width / half_height
    rise = (3.4 - 0.1 * length).clamp(1, 3)  # in heights of the line
    steepest = torch.rad2deg(torch.asin((rise / length).clamp(max=1)))
    turn = torch.where(stacked, turn * 0.3, torch.maximum(torch.minimum(turn, steepest), -steepest))
    short = half_width < 4.5 * half_height
    steep = rng.uniform(35, 70) * torch.where(rng.bernoulli(0.5), 1.0, -1.0)
    turn = torch.where(rng.bernoulli(0.012 * difficulty) & short & ~stacked, steep, turn)
    sideways = torch.where(rng.bernoulli(0.6), 90.0, -90.0) + rng.normal(0, 2)
    turn = torch.where(rng.bernoulli(0.008 * difficulty) & short & ~stacked, sideways, turn)
    turn = torch.deg2rad(turn)

    # Words in photographs are narrower than in most fonts: by 15 percent in IIIT5k, whose signs face the camera and often
    # use narrow fonts, and by 30 percent in ICDAR 2015, where many are viewed from the side.
    squeeze = rng.normal(-0.13, 0.15).clamp(-0.5, 0.3) - rng.bernoulli(0.3) * rng.uniform(0, 0.45)
    shear = rng.normal(0, 0.16) * rng.bernoulli(0.25 * difficulty)
    tip = rng.normal(0, 0.13, (2,)) * rng.bernoulli(0.35 * difficulty)[:, None]
    # A very oblique view, as of words of four to eight letters in SVT's square crops.
    view = rng.substream("from the side")
    from_side = view.bernoulli(0.10 * difficulty) & (length > 2) & (length < 9) & ~stacked
    squeeze = torch.exp((squeeze - from_side * view.uniform(0.25, 0.9)) * min(difficulty, 1.0))
    # Perspective is limited for long lines, whose last letters would be too small or too slanted to read.
    tip_x = (tip[:, 0] * (6 / length).clamp(max=1)).clamp(-0.3, 0.3)
    tip_y = (tip[:, 1] * (3 / length).clamp(max=1)).clamp(-0.22, 0.22)

    cosine, sine = torch.cos(turn), torch.sin(turn)
    zero, one = torch.zeros(count), torch.ones(count)
    rotation = torch.stack([cosine, -sine, sine, cosine], 1).reshape(-1, 2, 2)
    slant = torch.stack([squeeze, shear, zero, one], 1).reshape(-1, 2, 2)
    matrix = torch.zeros(count, 3, 3, dtype=torch.float64)
    matrix[:, :2, :2] = (rotation @ slant).double()
    matrix[:, 2] = torch.stack([tip_x / half_width, tip_y / half_height, one], 1).double()
    return matrix


def _sample_crop(geometry: Geometry, layout: Layout, difficulty: float, rng: RandomStreams) -> torch.Tensor:
    """Sample the crop around the text: with margins, or slightly cutting off letters."""
    stacked = layout.stacked
    steps = torch.linspace(-1, 1, _STEPS)
    edge = torch.stack([torch.cat([steps, steps]), torch.cat([-torch.ones(_STEPS), torch.ones(_STEPS)])], 1)
    outline = geometry.forward(edge * geometry.half[:, None])
    low, high = outline.amin(1), outline.amax(1)
    across = geometry.forward(torch.tensor([[0.0, -1.0], [0.0, 1.0]]) * geometry.half[:, None])
    line = (across[:, 1] - across[:, 0]).square().sum(1).sqrt()
    line = torch.where(stacked, 2 * geometry.half[:, 0], line)
    letters = line.minimum(4 * geometry.half[:, 0])[:, None]

    close = rng.normal(0, 0.05, (4,)).abs() + 0.02
    loose = rng.uniform(0.05, 0.32, (4,))
    # Annotated boxes cut off more of the first and last letters than of the tops and bottoms.
    cut = -rng.uniform(0, 1, (4,)) * torch.tensor([0.14, 0.07, 0.14, 0.07])
    kind = rng.uniform(0, 1, (4,))
    margins = torch.where(kind < 0.24, loose, close)
    margins = torch.where(kind > 1 - 0.12 * difficulty, cut, margins)
    margins = margins + (rng.bernoulli(0.05 * difficulty) * rng.uniform(0.1, 0.4))[:, None]
    # Space before or after a word, where parts of its neighbors may be visible.
    for side in (0, 2):
        room = rng.substream(f"room {side}")
        margins[:, side] += room.bernoulli(0.06 * difficulty) * room.uniform(0.15, 0.8) * ~stacked
    # A cut ends before the center of every character, so that no letter turns into another.
    middles = geometry.forward(layout.centers - geometry.middle[:, None])
    first = middles.masked_fill(middles.isnan(), math.inf).amin(1)
    last = middles.masked_fill(middles.isnan(), -math.inf).amax(1)
    low = torch.minimum(low - margins[:, :2] * letters, low + _MAX_CUT * (first - low))
    high = torch.maximum(high + margins[:, 2:] * letters, high - _MAX_CUT * (high - last))
    # Crops of a single narrow letter such as "I" are wider than the letter.
    narrow = (rng.uniform(0.45, 0.95) * line - (high[:, 0] - low[:, 0])).clamp(min=0) / 2
    widening = torch.stack([narrow, torch.zeros_like(narrow)], 1)
    return torch.cat([low - widening, high + widening], 1)
