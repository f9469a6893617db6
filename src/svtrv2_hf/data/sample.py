# SPDX-License-Identifier: Apache-2.0
"""Samples, and the interface of their sources."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """An encoded image, its label, and a name for messages: a path, or file and position."""

    image: bytes
    text: str
    name: str


class Source(ABC):
    """A set of samples that can be read in parts.

    Attributes:
        name: short name for logs and tables.
        weight: relative share in a mixture; `None` for one pass per epoch.
        num_samples: number of samples; `None` if only a complete pass can count them.
        local: whether all labels can be checked before training because the samples are on this machine.
        fingerprint: JSON-compatible value that distinguishes the samples from others of the same name and number; `None` if this
            takes a complete pass.
    """

    name: str
    weight: float | None
    num_samples: int | None
    local: bool = False
    fingerprint: Any = None

    @abstractmethod
    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """Yield the samples of a part; together, the `parts` parts of an epoch contain each sample exactly once.

        The order depends only on the arguments; without a seed, it is that of the files. With a seed, lists of files and LMDBs
        are shuffled as a whole; parquet, tars and datasets of the Hub are read from several shards at a time, in a random order
        of the shards, through a shuffle buffer.
        """

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """Yield the labels in the order of the files, without the images if the format allows it."""


class IndexedSource(Source):
    """A source with random access, which can be read in any order."""

    num_samples: int
    local = True

    @abstractmethod
    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        """Return the samples with these indices, from 0, in this order."""

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        if seed is None:
            order = np.arange(part, self.num_samples, parts)
        else:  # a copy, since a view would keep the order of all parts in memory
            order = np.random.default_rng([seed, epoch]).permutation(self.num_samples)[part::parts].copy()
        for start in range(0, len(order), 64):
            yield from self.fetch(order[start : start + 64].tolist())
