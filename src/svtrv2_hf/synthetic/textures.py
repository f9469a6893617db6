# SPDX-License-Identifier: Apache-2.0
"""A bank of procedural textures: clouds, wood, bricks, mesh, stripes, and overlapping shapes as in photographs."""

import math
from functools import lru_cache

import torch

from .sampling import RandomStreams


TILE = 256  # height and width of a texture in pixels; textures are periodic


@lru_cache
def texture_bank(device: torch.device) -> "TextureBank":
    """Return the shared bank of a device; creating it takes a second."""
    return TextureBank(device)


class TextureBank:
    """Textures with mean 0 and standard deviation 1, mostly gray with a little color.

    They are generated on the CPU from fixed keys, so they are the same on every machine up to rounding.
    """

    def __init__(self, device: torch.device):
        rng = RandomStreams.for_images(0, torch.arange(COUNT))
        kinds = torch.arange(COUNT).split([count for _, count in _KINDS])
        parts = zip(_KINDS, kinds, strict=True)
        tiles = torch.cat([generate(rng.substream("texture", rows)) for (generate, _), rows in parts])
        tiles = tiles - tiles.mean((2, 3), keepdim=True)
        tiles = tiles / tiles.mean(1, keepdim=True).std((2, 3), keepdim=True).clamp(min=1e-3)
        tiles = torch.cat([tiles, tiles[:, :, :, :1]], 3)  # so that sampling between the last and the first works
        tiles = torch.cat([tiles, tiles[:, :, :1]], 2)
        # One tall image, so that one call samples any texture: (1, 3, COUNT * (TILE + 1), TILE + 1).
        self._image = tiles.transpose(0, 1).reshape(1, 3, -1, TILE + 1).clamp(-3, 3).to(device)

    def sample(self, which: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sample textures `which`, `(n, 1, 1)`, at pixels `x` and `y`, `(n, height, width)`: `(n, 3, height, width)`."""
        height, width = self._image.shape[2:]
        across = (torch.remainder(x, TILE) + 0.5) * (2 / width) - 1
        down = (torch.remainder(y, TILE) + which * (TILE + 1) + 0.5) * (2 / height) - 1
        grid = torch.stack([across, down], -1).reshape(1, -1, x.shape[2], 2)
        sampled = torch.nn.functional.grid_sample(self._image, grid, padding_mode="border", align_corners=False)
        return sampled.reshape(3, *x.shape).transpose(0, 1)


def _noise(
    rng: RandomStreams, slope: torch.Tensor, stretch: torch.Tensor | None = None, channels: int = 1
) -> torch.Tensor:
    """Generate noise with a spectrum of frequency to the power of `-slope`, stretched `stretch` times along x."""
    white = rng.normal(0, 1, (channels, TILE, TILE))
    across = torch.fft.rfftfreq(TILE) * TILE * (1.0 if stretch is None else stretch[:, None, None, None])
    down = torch.fft.fftfreq(TILE)[:, None] * TILE
    radius = (across.square() + down.square()).sqrt().clamp(min=1)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * radius ** -slope[:, None, None, None], s=(TILE, TILE))
    return noise / noise.std((2, 3), keepdim=True)


def _tinted(gray: torch.Tensor, rng: RandomStreams, strength: float = 0.25) -> torch.Tensor:
    """Add a slowly varying tint to a gray texture of shape `(n, 1, TILE, TILE)`."""
    tint = _noise(rng, torch.full((len(rng),), 1.6), channels=3)
    return gray + strength * rng.uniform()[:, None, None, None] * tint


def _cloud(rng: RandomStreams) -> torch.Tensor:
    stretch = torch.exp(rng.normal(0, 0.4))
    return _tinted(_noise(rng, rng.uniform(0.8, 2.0), stretch), rng)


def _speckle(rng: RandomStreams) -> torch.Tensor:
    fine = _noise(rng, rng.uniform(0.0, 0.7))
    return _tinted(fine + _noise(rng, rng.uniform(1.2, 1.8)), rng, 0.15)


def _grain(rng: RandomStreams) -> torch.Tensor:
    """Wood grain: rings cut lengthwise, and fibers."""
    bent = _noise(rng, rng.uniform(1.6, 2.2), rng.uniform(3, 8))
    down = torch.arange(TILE)[:, None] * (2 * math.pi / TILE)
    rings = torch.sin(down * rng.uniform(3, 14).round()[:, None, None, None] + 3 * bent)
    fibers = _noise(rng, rng.uniform(0.6, 1.1), rng.uniform(10, 30))
    return _tinted(rings * rng.uniform(0.2, 1.0)[:, None, None, None] + fibers, rng, 0.15)


def _brick(rng: RandomStreams) -> torch.Tensor:
    """Bricks or tiles of different brightness with joints."""
    n = len(rng)
    rows = rng.choice([4, 8, 16], [1, 2, 1])[:, None, None]
    per_row = rng.choice([2, 4, 8], [1, 2, 1])[:, None, None]
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    course = torch.floor(down * rows)
    position = across * per_row + torch.where(rng.bernoulli(0.7)[:, None, None], course % 2 / 2, 0)
    number = (course * 8 + torch.floor(position) % per_row).long()
    tones = rng.normal(0, 1, (16 * 8,)).gather(1, number.flatten(1)).reshape(n, TILE, TILE)
    joint = rng.uniform(0.02, 0.1)[:, None, None]
    between = ((down * rows) % 1 < 2 * joint) | (position % 1 < joint * per_row / rows * 2)
    depth = rng.uniform(-3, 3)[:, None, None]
    rendered = torch.where(between, depth, tones * rng.uniform(0.2, 1)[:, None, None])
    return _tinted(rendered[:, None] + 0.5 * _noise(rng, rng.uniform(0.8, 1.4)), rng)


def _stripe(rng: RandomStreams) -> torch.Tensor:
    """Corrugated iron, blinds, boards, printed stripes."""
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    slope = rng.choice([0, 1, -1, 2], [6, 1, 1, 1])[:, None, None]
    phase = (down + slope * across) * rng.choice([4, 8, 12, 20, 32], [1, 1, 1, 1, 1])[:, None, None] % 1
    duty = rng.uniform(0.1, 0.6)[:, None, None]
    rendered = torch.where(rng.bernoulli(0.5)[:, None, None], (phase < duty).float(), torch.sin(2 * math.pi * phase))
    return _tinted(rendered[:, None] + 0.25 * _noise(rng, rng.uniform(1, 2)), rng)


def _mesh(rng: RandomStreams) -> torch.Tensor:
    """Grids, perforated sheet, woven cloth."""
    down, across = torch.meshgrid(torch.arange(TILE) / TILE, torch.arange(TILE) / TILE, indexing="ij")
    count = rng.choice([12, 20, 32], [1, 1, 1])[:, None, None] * 2 * math.pi
    turned = rng.bernoulli(0.5)[:, None, None]
    first = torch.where(turned, across + down, across) * count
    second = torch.where(turned, across - down, down) * count
    rendered = (torch.sin(first) * torch.sin(second)) + 0.3 * (torch.sin(first) + torch.sin(second))
    soft = _noise(rng, rng.uniform(1.2, 2))
    return _tinted(rendered[:, None] * rng.uniform(0.3, 1)[:, None, None, None] + 0.5 * soft, rng)


def _scene(rng: RandomStreams) -> torch.Tensor:
    """Overlapping shapes, larger ones being rarer (the "dead leaves" model: Lee, Mumford and Huang 2001)."""
    n, leaves = len(rng), 110
    pixels = torch.arange(TILE, dtype=torch.float32)
    # sizes with density r^-3; later leaves cover earlier ones
    size = 8 / (1 - rng.uniform(0, 0.991, (leaves,))).sqrt()
    x, y = rng.uniform(0, TILE, (leaves,)), rng.uniform(0, TILE, (leaves,))
    aspect, turn = torch.exp(rng.normal(0, 0.7, (leaves,))), rng.uniform(0, math.pi, (leaves,))
    upright = rng.bernoulli(0.6)[:, None] & (rng.uniform(0, 1, (leaves,)) < 0.8)
    turn = torch.where(upright, 0.0, turn)
    rounded = rng.uniform(0, 1, (leaves,)) < 0.3
    gray, tint = rng.normal(0, 1, (leaves, 1)), rng.normal(0, 0.3, (leaves, 3))
    shade = rng.normal(0, 0.5, (leaves, 2))
    rendered = torch.zeros(n, 3, TILE, TILE) + _noise(rng, rng.uniform(1.5, 2.0)) * 0.4
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
        color = (gray[:, leaf] + tint[:, leaf])[:, :, None, None] + ramp[:, None].clamp(-1.5, 1.5)
        torch.where(inside[:, None], color, rendered, out=rendered)
    texture = _noise(rng, rng.uniform(0.7, 1.3))
    return rendered + rng.uniform(0.05, 0.35)[:, None, None, None] * texture


_KINDS = ((_scene, 20), (_cloud, 12), (_grain, 8), (_brick, 6), (_stripe, 8), (_speckle, 6), (_mesh, 4))
COUNT = sum(count for _, count in _KINDS)
