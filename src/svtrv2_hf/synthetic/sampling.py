# SPDX-License-Identifier: Apache-2.0
"""Random numbers per image, independent of batch composition and device."""

import math
from dataclasses import dataclass, fields, replace
from typing import Self
from zlib import crc32

import torch


# Odd constants of the SplitMix64 finalizer (Steele, Lea and Flood 2014), as signed integers.
_STEP = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


@dataclass
class PerImage:
    """Base of dataclasses whose fields are all tensors with one row per image."""

    def select(self, rows: torch.Tensor) -> Self:
        """Return the rows of some of the images."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def _mix(keys: torch.Tensor) -> torch.Tensor:
    """Hash int64 keys with a bijection (SplitMix64's finalizer)."""
    keys = (keys ^ ((keys >> 30) & 0x3FFFFFFFF)) * _FIRST  # the mask makes the shift logical
    keys = (keys ^ ((keys >> 27) & 0x1FFFFFFFFF)) * _SECOND
    return keys ^ ((keys >> 31) & 0x1FFFFFFFF)


class RandomStreams:
    """One stream of random numbers for each of n images.

    Each number is a hash of the image's key and a counter, so it depends neither on the other images of the batch nor on
    the device. All numbers are computed on the CPU. Sample values per character from a separate substream: the longest
    text of the batch determines how many are sampled, which would shift the numbers that follow.

    Args:
        keys: int64 of shape `(n,)`.
    """

    def __init__(self, keys: torch.Tensor):
        self.keys = keys
        self._counter = 0

    @classmethod
    def for_images(cls, seed: int, indices: torch.Tensor) -> "RandomStreams":
        """Return the streams of images `indices`, int64 of shape `(n,)`, for a seed."""
        start = _mix(torch.tensor(seed) + 1)
        return cls(_mix(start + indices * _STEP))

    def __len__(self) -> int:
        return len(self.keys)

    def substream(self, name: str, rows: torch.Tensor | None = None) -> "RandomStreams":
        """Derive independent streams for one purpose, for all images or for some `rows`.

        Sampling from a substream does not advance the parent, so an effect can apply to some images only. The name is
        part of the seed: renaming a substream changes the images.
        """
        keys = self.keys if rows is None else self.keys[rows]
        return RandomStreams(_mix(keys + _mix(torch.tensor(crc32(name.encode())))))

    def uniform(self, low: float = 0.0, high: float = 1.0, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Sample uniformly from `low` to `high`: float32 of shape `(n, *shape)`."""
        count = math.prod(shape)
        counters = torch.arange(self._counter + 1, self._counter + count + 1) * _STEP  # wraps around
        self._counter += count
        bits = (_mix(self.keys[:, None] + counters) >> 40) & 0xFFFFFF
        return (bits.float() * ((high - low) / 2**24) + low).reshape(-1, *shape)

    def normal(self, mean: float = 0.0, std: float = 1.0, shape: tuple[int, ...] = ()) -> torch.Tensor:
        """Sample a normal distribution (Box and Muller 1958), truncated at 5.8 `std`: float32 of shape `(n, *shape)`."""
        radius, angle = self.uniform(0, 1, (*shape, 2)).unbind(-1)
        return (-2 * (1 - radius).log()).sqrt() * (2 * math.pi * angle).cos() * std + mean

    def bernoulli(self, probability: float | torch.Tensor) -> torch.Tensor:
        """Sample true with the given probability: bool of shape `(n,)`."""
        return self.uniform() < probability

    def pick(self, chosen: torch.Tensor, name: str) -> tuple[torch.Tensor, "RandomStreams"]:
        """Return the rows where `chosen` is true, int64, and their substream."""
        rows = chosen.nonzero()[:, 0]
        return rows, self.substream(name, rows)

    def choice(self, values: list[int], weights: list[float]) -> torch.Tensor:
        """Choose one of `values` for each image by `weights`: int64 of shape `(n,)`."""
        bounds = torch.tensor(weights).cumsum(0)
        picked = torch.searchsorted(bounds / bounds[-1], self.uniform(), right=True)
        return torch.tensor(values)[picked.clamp(max=len(values) - 1)]


def columns(device: torch.device, *values: torch.Tensor) -> list[torch.Tensor]:
    """Reshape per-image values from `(n,)` to `(n, 1, 1)` and move them to a device in one transfer."""
    return [
        column[:, None, None] for column in torch.stack([value.float() for value in values], 1).to(device).unbind(1)
    ]
