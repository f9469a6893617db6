# SPDX-License-Identifier: Apache-2.0
"""Pairs of background and ink colors that occur on signs."""

import torch

from .sampling import RandomStreams


# Centers of 64 clusters of (background, ink) over 4,457 photographed words (training sets of IIIT5k, SVT and ICDAR 2015),
# each split into two colors; the last number is the size of the cluster.
# fmt: off
_PAIRS = (
    ("898173", "594940", 163),
    ("686968", "3f3d3f", 146),
    ("92999e", "5e646d", 141),
    ("98a3ae", "2e3e4c", 120),
    ("ccc5c0", "574d4e", 112),
    ("f4f4f0", "414041", 111),
    ("3f4248", "fafcfd", 108),
    ("303338", "626465", 108),
    ("f8f8f5", "0e0c0e", 108),
    ("7b757b", "f3f4f6", 102),
    ("304040", "7a8585", 99),
    ("f5f7f8", "aaacb3", 95),
    ("585a59", "1c1f22", 94),
    ("150f0f", "3f3631", 93),
    ("4f606a", "eff6f9", 89),
    ("151619", "565a5c", 89),
    ("493f26", "20180b", 88),
    ("2a2523", "f8f7f3", 86),
    ("c4bdb9", "8d7f7b", 85),
    ("111010", "dddddb", 84),
    ("b8d1e4", "607a9b", 83),
    ("f1f8f9", "547290", 83),
    ("e4ba52", "6f3b19", 82),
    ("12160f", "857a64", 81),
    ("6c523a", "472d1b", 79),
    ("42535f", "bdc4cb", 77),
    ("d0cdcd", "1e181c", 77),
    ("303134", "ccd6db", 75),
    ("555b59", "8d9290", 75),
    ("120e11", "bcaeaf", 73),
    ("61312f", "8e6f69", 72),
    ("2f3d46", "a5abaf", 70),
    ("172542", "f4fefc", 69),
    ("767a76", "cecbc5", 68),
    ("f5edde", "c29272", 68),
    ("552716", "7b513b", 65),
    ("191a1e", "90959a", 59),
    ("553f3a", "bea58d", 59),
    ("2b3b79", "edf4f8", 55),
    ("625044", "f1ede4", 52),
    ("0b0a0d", "fafbfb", 51),
    ("376c94", "8ad6ef", 50),
    ("33a5d9", "cef1f9", 50),
    ("aa7a25", "3d2a14", 50),
    ("9a4640", "d4adac", 49),
    ("0c5ca5", "ecf8fb", 48),
    ("8c979e", "14131a", 46),
    ("f7f1f0", "ab2626", 46),
    ("f2d01b", "140f1f", 45),
    ("235087", "7697b8", 43),
    ("b19aa9", "f5f4f6", 41),
    ("ad8e6d", "1e110b", 40),
    ("825643", "ac8670", 39),
    ("d1502c", "f8cd9b", 37),
    ("261617", "ea4c37", 37),
    ("221714", "e4bb58", 34),
    ("e2785a", "faf2e5", 33),
    ("9d3133", "f9f5f5", 33),
    ("e32917", "faeae2", 31),
    ("9d3722", "db8d65", 30),
    ("b2b5c0", "a13d3b", 27),
    ("55412d", "f4e58b", 21),
    ("b29258", "dfbd72", 17),
    ("1c5181", "e8d756", 16),
)
# fmt: on
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


def sample_color_pairs(rng: RandomStreams) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample background and ink colors in 0..1, float32 of shape `(n, 3)` each."""
    table = torch.tensor([list(bytes.fromhex(background + ink)) for background, ink, _ in _PAIRS]) / 255
    picked = rng.choice([float(i) for i in range(len(_PAIRS))], [float(size) for *_, size in _PAIRS]).long()
    pairs = table[picked].reshape(-1, 2, 3)
    pairs = pairs + rng.normal(0, _SPREAD[0], (2, 3)) + rng.normal(0, _SPREAD[1], (2, 1))
    background, ink = pairs.unbind(1)
    # In photographs, the ink color is blended with the background; undo that.
    ink = background + (ink - background) * 1.18
    # The center of a cluster is less saturated than some of its colors.
    factor = torch.where(rng.bernoulli(0.6), rng.uniform(1.1, 1.65), torch.ones(len(rng)))
    return saturate(background, factor), saturate(ink, factor)


def saturate(colors: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the distance of colors `(n, 3)` from medium gray."""
    return (0.42 + (colors - 0.42) * factor[:, None]).clamp(0, 1)
