# SPDX-License-Identifier: Apache-2.0
"""Random numbers that belong to an image, whatever the batch it is drawn in and wherever that is."""

import math
from zlib import crc32

import torch


# Odd constants of the finaliser of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def _mix(keys: torch.Tensor) -> torch.Tensor:
    """A bijection of int64 that leaves no trace of the order of its arguments."""
    keys = (keys ^ ((keys >> 30) & 0x3FFFFFFFF)) * _FIRST  # the mask makes the shift one without sign
    keys = (keys ^ ((keys >> 27) & 0x1FFFFFFFFF)) * _SECOND
    return keys ^ ((keys >> 31) & 0x1FFFFFFFF)


class Draws:
    """Streams of random numbers, one for each of n images.

    A number is a hash of the image's key and of how many numbers its stream has given before, so it depends neither on
    the other images nor on the device. All numbers are made on the CPU. What is drawn for each character must come from a
    stream of its own, since the longest text of the batch decides how many are drawn.

    Args:
        keys: int64 of shape `(n,)`.
    """

    def __init__(self, keys: torch.Tensor):
        self.keys = keys
        self._given = 0

    @classmethod
    def of(cls, seed: int, indices: torch.Tensor) -> "Draws":
        """The streams of the images `indices`, int64 of shape `(n,)`, of a run with a seed."""
        start = _mix(torch.tensor(seed) + 1)
        return cls(_mix(start + indices * _STEP))

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, name: str, rows: torch.Tensor | None = None) -> "Draws":
        """Streams of their own for one purpose, of all images or of some `rows`.

        What is drawn for a purpose leaves all other streams as they are. So some images may have it and others not.
        """
        keys = self.keys if rows is None else self.keys[rows]
        return Draws(_mix(keys + _mix(torch.tensor(crc32(name.encode())))))

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Float32 in `low`..`high` of shape `(n, *shape)`."""
        count = math.prod(shape)
        counters = torch.arange(self._given + 1, self._given + count + 1) * _STEP  # wraps around
        self._given += count
        bits = (_mix(self.keys[:, None] + counters) >> 40) & 0xFFFFFF
        return (bits.float() * ((high - low) / 2**24) + low).reshape(-1, *shape)

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Normally distributed float32 of shape `(n, *shape)`, at most 5.8 `std` from the mean (Box and Muller 1958)."""
        radius, angle = self.uniform(0, 1, (*shape, 2)).unbind(-1)
        return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos() * std + mean

    def chance(self, probability: float | torch.Tensor) -> torch.Tensor:
        """Bool of shape `(n,)`, true with a probability."""
        return self.uniform() < probability

    def some(self, probability: float | torch.Tensor) -> torch.Tensor:
        """The rows of the images that a chance falls on, int64."""
        return self.chance(probability).nonzero()[:, 0]

    def one_of(self, values: list[float], weights: list[float]) -> torch.Tensor:
        """One of `values` for each image, float32 of shape `(n,)`."""
        bounds = torch.tensor(weights).cumsum(0)
        picked = torch.searchsorted(bounds / bounds[-1], self.uniform(), right=True)
        return torch.tensor(values)[picked.clamp(max=len(values) - 1)]


def columns(device: torch.device, *values: torch.Tensor) -> list[torch.Tensor]:
    """One number per image, `(n,)`, to the shape `(n, 1, 1)` of planes, brought to a device all at once."""
    return [
        column[:, None, None] for column in torch.stack([value.float() for value in values], 1).to(device).unbind(1)
    ]
