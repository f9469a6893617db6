# SPDX-License-Identifier: Apache-2.0
"""A bank of drawn textures: clouds, wood, bricks, mesh, stripes, and scenes of overlapping shapes as in photographs."""

import math
from functools import lru_cache

import torch

from .draws import Draws


TILE = 256  # height and width in pixels of a texture; each goes on at its other side


@lru_cache
def texture_bank(device: torch.device) -> "TextureBank":
    """The one bank of a device: drawing it takes a second."""
    return TextureBank(device)


class TextureBank:
    """Textures of mean 0 and standard deviation 1, mostly grey, with a little colour.

    The same on every machine up to rounding: they are drawn on the CPU from fixed keys.

    Args:
        device: where they are kept.
    """

    def __init__(self, device: torch.device):
        draws = Draws.of(0, torch.arange(COUNT))
        kinds = torch.arange(COUNT).split([count for _, count in _KINDS])
        tiles = torch.cat([draw(draws.part("texture", rows)) for (draw, _), rows in zip(_KINDS, kinds, strict=True)])
        tiles = tiles - tiles.mean((2, 3), keepdim=True)
        tiles = tiles / tiles.mean(1, keepdim=True).std((2, 3), keepdim=True).clamp(min=1e-3)
        tiles = torch.cat([tiles, tiles[:, :, :, :1]], 3)  # so that sampling between the last and the first works
        tiles = torch.cat([tiles, tiles[:, :, :1]], 2)
        # One tall picture, so that one call samples any of them: (1, 3, COUNT * (TILE + 1), TILE + 1).
        self._picture = tiles.transpose(0, 1).reshape(1, 3, -1, TILE + 1).clamp(-3, 3).to(device)

    def sample(self, which: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Textures number `which`, `(n, 1, 1)`, at pixels `x` and `y`, `(n, height, width)`: `(n, 3, height, width)`."""
        height, width = self._picture.shape[2:]
        across = (torch.remainder(x, TILE) + 0.5) * (2 / width) - 1
        down = (torch.remainder(y, TILE) + which * (TILE + 1) + 0.5) * (2 / height) - 1
        grid = torch.stack([across, down], -1).reshape(1, -1, x.shape[2], 2)
        found = torch.nn.functional.grid_sample(self._picture, grid, padding_mode="border", align_corners=False)
        return found.reshape(3, *x.shape).transpose(0, 1)


def _noise(draws: Draws, slope: torch.Tensor, stretch: torch.Tensor, channels: int = 1) -> torch.Tensor:
    """Noise whose spectrum falls off as frequency to the `-slope`, drawn out `stretch` times along x."""
    white = draws.normal(0, 1, (channels, TILE, TILE))
    across = torch.fft.rfftfreq(TILE) * TILE * stretch[:, None, None, None]
    down = torch.fft.fftfreq(TILE)[:, None] * TILE
    radius = (across.square() + down.square()).sqrt().clamp(min=1)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * radius ** -slope[:, None, None, None], s=(TILE, TILE))
    return noise / noise.std((2, 3), keepdim=True)


def _tinted(grey: torch.Tensor, draws: Draws, strength: float = 0.25) -> torch.Tensor:
    """Grey of shape `(n, 1, TILE, TILE)` with a colour that comes and goes slowly."""
    tint = _noise(draws, torch.full((len(draws),), 1.6), torch.ones(len(draws)), 3)
    return grey + strength * draws.uniform()[:, None, None, None] * tint


def _cloud(draws: Draws) -> torch.Tensor:
    stretch = torch.exp(draws.normal(0, 0.4))
    return _tinted(_noise(draws, draws.uniform(0.8, 2.0), stretch), draws)


def _speckle(draws: Draws) -> torch.Tensor:
    fine = _noise(draws, draws.uniform(0.0, 0.7), torch.ones(len(draws)))
    return _tinted(fine + _noise(draws, draws.uniform(1.2, 1.8), torch.ones(len(draws))), draws, 0.15)


def _grain(draws: Draws) -> torch.Tensor:
    """Wood: rings cut lengthwise, and fibres."""
    bent = _noise(draws, draws.uniform(1.6, 2.2), draws.uniform(3, 8))
    down = torch.arange(TILE)[:, None] * (2 * math.pi / TILE)
    rings = torch.sin(down * draws.uniform(3, 14).round()[:, None, None, None] + 3 * bent)
    fibres = _noise(draws, draws.uniform(0.6, 1.1), draws.uniform(10, 30))
    return _tinted(rings * draws.uniform(0.2, 1.0)[:, None, None, None] + fibres, draws, 0.15)


def _brick(draws: Draws) -> torch.Tensor:
    """Bricks or tiles of unlike brightness with joints between."""
    n = len(draws)
    rows = draws.one_of([4, 8, 16], [1, 2, 1])[:, None, None]
    per_row = draws.one_of([2, 4, 8], [1, 2, 1])[:, None, None]
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    course = torch.floor(down * rows)
    place = across * per_row + torch.where(draws.chance(0.7)[:, None, None], course % 2 / 2, 0)
    number = (course * 8 + torch.floor(place) % per_row).long()
    tones = draws.normal(0, 1, (16 * 8,)).gather(1, number.flatten(1)).reshape(n, TILE, TILE)
    joint = draws.uniform(0.02, 0.1)[:, None, None]
    between = ((down * rows) % 1 < 2 * joint) | (place % 1 < joint * per_row / rows * 2)
    depth = draws.uniform(-3, 3)[:, None, None]
    drawn = torch.where(between, depth, tones * draws.uniform(0.2, 1)[:, None, None])
    return _tinted(drawn[:, None] + 0.5 * _noise(draws, draws.uniform(0.8, 1.4), torch.ones(n)), draws)


def _stripe(draws: Draws) -> torch.Tensor:
    """Corrugated iron, blinds, boards, printed stripes."""
    n = len(draws)
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    slope = draws.one_of([0, 1, -1, 2], [6, 1, 1, 1])[:, None, None]
    phase = (down + slope * across) * draws.one_of([4, 8, 12, 20, 32], [1, 1, 1, 1, 1])[:, None, None] % 1
    duty = draws.uniform(0.1, 0.6)[:, None, None]
    drawn = torch.where(draws.chance(0.5)[:, None, None], (phase < duty).float(), torch.sin(2 * math.pi * phase))
    return _tinted(drawn[:, None] + 0.25 * _noise(draws, draws.uniform(1, 2), torch.ones(n)), draws)


def _mesh(draws: Draws) -> torch.Tensor:
    """Grids, perforated sheet, woven cloth."""
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    count = draws.one_of([12, 20, 32], [1, 1, 1])[:, None, None] * 2 * math.pi
    turned = draws.chance(0.5)[:, None, None]
    first = torch.where(turned, across + down, across) * count
    second = torch.where(turned, across - down, down) * count
    drawn = (torch.sin(first) * torch.sin(second)) + 0.3 * (torch.sin(first) + torch.sin(second))
    soft = _noise(draws, draws.uniform(1.2, 2), torch.ones(len(draws)))
    return _tinted(drawn[:, None] * draws.uniform(0.3, 1)[:, None, None, None] + 0.5 * soft, draws)


def _scene(draws: Draws) -> torch.Tensor:
    """Shapes of all sizes that hide one another, the larger the rarer ("dead leaves": Lee, Mumford and Huang 2001)."""
    n, leaves = len(draws), 110
    pixels = torch.arange(TILE, dtype=torch.float32)
    # sizes with density r^-3, the last leaves lying on top
    size = 8 / (1 - draws.uniform(0, 0.991, (leaves,))).sqrt()
    x, y = draws.uniform(0, TILE, (leaves,)), draws.uniform(0, TILE, (leaves,))
    aspect, turn = torch.exp(draws.normal(0, 0.7, (leaves,))), draws.uniform(0, math.pi, (leaves,))
    upright = draws.chance(0.6)[:, None] & (draws.uniform(0, 1, (leaves,)) < 0.8)
    turn = torch.where(upright, 0.0, turn)
    rounded = draws.uniform(0, 1, (leaves,)) < 0.3
    grey, tint = draws.normal(0, 1, (leaves, 1)), draws.normal(0, 0.3, (leaves, 3))
    shade = draws.normal(0, 0.5, (leaves, 2))
    drawn = torch.zeros(n, 3, TILE, TILE) + _noise(draws, draws.uniform(1.5, 2.0), torch.ones(n)) * 0.4
    for leaf in range(leaves):
        across = torch.remainder(pixels - x[:, leaf, None] + TILE / 2, TILE) - TILE / 2
        down = torch.remainder(pixels - y[:, leaf, None] + TILE / 2, TILE) - TILE / 2
        cosine, sine = torch.cos(turn[:, leaf, None, None]), torch.sin(turn[:, leaf, None, None])
        along = cosine * across[:, None] + sine * down[:, :, None]
        aside = -sine * across[:, None] + cosine * down[:, :, None]
        r = size[:, leaf, None, None]
        reach_along, reach_aside = (along / (r * aspect[:, leaf, None, None])).square(), (aside / r).square()
        ellipse, rectangle = reach_along + reach_aside, torch.maximum(reach_along, reach_aside)
        inside = torch.where(rounded[:, leaf, None, None], ellipse, rectangle) < 1
        ramp = (shade[:, leaf, 0, None, None] * along + shade[:, leaf, 1, None, None] * aside) / (2 * r)
        colour = (grey[:, leaf] + tint[:, leaf])[:, :, None, None] + ramp[:, None].clamp(-1.5, 1.5)
        torch.where(inside[:, None], colour, drawn, out=drawn)
    texture = _noise(draws, draws.uniform(0.7, 1.3), torch.ones(n))
    return drawn + draws.uniform(0.05, 0.35)[:, None, None, None] * texture


_KINDS = ((_scene, 20), (_cloud, 12), (_grain, 8), (_brick, 6), (_stripe, 8), (_speckle, 6), (_mesh, 4))
COUNT = sum(count for _, count in _KINDS)
