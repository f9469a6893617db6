# SPDX-License-Identifier: Apache-2.0
"""Samples, and the interface of sources of samples."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """An image, still encoded, and its text."""

    image: bytes
    text: str
    name: str
    """What to call it in messages: a path, or the place in its file."""


class Source(ABC):
    """A set of samples that can be read in parts.

    Attributes:
        name: short, for logs and tables.
        weight: share of the draws in a mixture, in proportion to those of the other sources; `None` for one pass an epoch.
        num_samples: how many there are; `None` where only a whole pass would tell.
        local: the samples lie on this machine, so that all labels can be looked at before training.
        fingerprint: tells these samples from as many others of the same name, in a form that JSON can hold; `None` where only a
            whole pass would tell.
    """

    name: str
    weight: float | None
    num_samples: int | None
    local: bool = False
    fingerprint: Any = None

    @abstractmethod
    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """One pass over a part of the samples; together, the `parts` parts of an epoch hold each sample exactly once.

        The order is a function of `part`, `parts`, `seed` and `epoch`; without a seed it is that of the files. With a seed,
        lists of files and LMDBs are shuffled as a whole; parquet, tars and datasets of the Hub are read from several shards at
        a time, in a random order of the shards, through a shuffle buffer.
        """

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The labels alone, in the order of the files, as cheaply as the format allows."""


class IndexedSource(Source):
    """A source whose samples can be had by number, so that every order is possible."""

    num_samples: int
    local = True

    @abstractmethod
    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of these numbers, from 0, in this order."""

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """One pass over a part, shuffled as a whole where there is a seed."""
        if seed is None:
            order = np.arange(part, self.num_samples, parts)
        else:
            # A copy, since a view would keep the order of all parts in the memory of each.
            order = np.random.default_rng([seed, epoch]).permutation(self.num_samples)[part::parts].copy()
        for start in range(0, len(order), 64):
            yield from self.fetch(order[start : start + 64].tolist())
