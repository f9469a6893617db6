# SPDX-License-Identifier: Apache-2.0
"""Pairs of background and ink colors that occur on signs."""

from functools import cache
from pathlib import Path

import torch

from .sampling import RandomStreams


_SPREAD = (0.03, 0.06)  # standard deviation of a color within a cluster: per channel, and of the brightness
_LUMINANCE = (0.299, 0.587, 0.114)


def luminance(colors: torch.Tensor, dim: int = -1) -> torch.Tensor:
    """Return the luminance of colors with red, green and blue along `dim`."""
    red, green, blue = colors.unbind(dim)
    return red * _LUMINANCE[0] + green * _LUMINANCE[1] + blue * _LUMINANCE[2]


def contrast(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compute the contrast of colors of shape `(n, 3)`: mostly brightness, and a little hue."""
    difference = first - second
    brightness = luminance(difference)
    hue = (difference - brightness[:, None]).square().sum(-1).sqrt()
    return brightness.abs() + 0.3 * hue


def enforce_contrast(background: torch.Tensor, ink: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Shift the brightness of ink colors away from the background until the contrast is at least `target`."""
    deficit = (target - contrast(background, ink)).clamp(min=0)
    brighter = luminance(ink) >= luminance(background)
    # switch between lighter and darker if the range does not suffice
    room = torch.where(brighter, 1 - luminance(background), luminance(background))
    flip = (deficit > 0) & (room < target + 0.03)
    side = torch.where(brighter ^ flip, 1.0, -1.0)
    moved = luminance(background) + side * target
    shifted = ink + (moved - luminance(ink))[:, None]
    return torch.where(deficit[:, None] > 0, shifted, ink).clamp(0, 1)


@cache
def _clusters() -> tuple[torch.Tensor, list[float]]:
    """Return the background and ink color of each cluster, float32 of shape `(clusters, 2, 3)`, and its size."""
    lines = (Path(__file__).parent / "data" / "color_pairs.tsv").read_text("utf-8").splitlines()
    backgrounds, inks, sizes = zip(*(line.split("\t") for line in lines), strict=True)
    colors = [list(bytes.fromhex(background + ink)) for background, ink in zip(backgrounds, inks, strict=True)]
    return torch.tensor(colors).reshape(-1, 2, 3) / 255, [float(size) for size in sizes]


def sample_color_pairs(rng: RandomStreams) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample background and ink colors in 0..1, float32 of shape `(n, 3)` each."""
    colors, sizes = _clusters()
    pairs = colors[rng.choice(list(range(len(sizes))), sizes)]
    pairs = pairs + rng.normal(0, _SPREAD[0], (2, 3)) + rng.normal(0, _SPREAD[1], (2, 1))
    background, ink = pairs.unbind(1)
    # In photographs, the ink color is blended with the background; undo that.
    ink = background + (ink - background) * 1.18
    # The center of a cluster is less saturated than some of its colors.
    factor = torch.where(rng.bernoulli(0.6), rng.uniform(1.1, 1.65), 1.0)
    return saturate(background, factor), saturate(ink, factor)


def saturate(colors: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the distance of colors `(n, 3)` from medium gray."""
    return (0.42 + (colors - 0.42) * factor[:, None]).clamp(0, 1)
