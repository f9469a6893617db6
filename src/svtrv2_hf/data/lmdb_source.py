# SPDX-License-Identifier: Apache-2.0
"""Labelled images in LMDB, in the layout that is usual in text recognition."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import lmdb
import numpy as np

from .sources import IndexedSource, Sample


_environments: dict[tuple[int, Path], lmdb.Environment] = {}


def _environment(folder: Path) -> lmdb.Environment:
    """The LMDB of a folder, opened once in each process.

    One that was inherited over a fork must not be used, and its file cannot be opened again before it is closed.
    """
    key = (os.getpid(), folder)
    if key not in _environments:
        for inherited in [other for other in _environments if other[0] != key[0]]:
            _environments.pop(inherited).close()
        try:
            _environments[key] = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise ValueError(f"{folder / 'data.mdb'} cannot be opened as LMDB: {error}.") from error
    return _environments[key]


def _num_samples(folder: Path) -> int:
    with _environment(folder).begin() as transaction:
        value = transaction.get(b"num-samples")
    if value is None or not value.isdigit():
        raise ValueError(
            f"{folder / 'data.mdb'}: num-samples is {value!r}. It must hold the number of images; "
            f"image-000000001 is the first, and label-000000001 its text."
        )
    return int(value)


class LmdbSource(IndexedSource):
    """One or more LMDBs with the keys `num-samples`, and from 1 `image-%09d` and `label-%09d`.

    A sample whose image is missing has an image of no bytes; one whose text is missing or not in UTF-8 has an empty
    text. So the label rules count them.

    Args:
        folders: each with a `data.mdb`.
        name: for logs.
        weight: in a mixture.

    Raises:
        ValueError: a file is not LMDB, has no `num-samples`, or there is no sample at all.
    """

    def __init__(self, folders: Sequence[Path], name: str, weight: float | None = None):
        self.name = name
        self.weight = weight
        self.folders = [folder.resolve() for folder in folders]
        self._ends = np.cumsum([_num_samples(folder) for folder in self.folders])
        self.num_samples = int(self._ends[-1])
        if not self.num_samples:
            raise ValueError(f"There is no sample in {', '.join(map(str, folders))}: num-samples is 0.")

    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        """Reads the records, in a transaction that ends with it: a worker's fork must not find one open."""
        samples = []
        with ExitStack() as stack:
            transactions: dict[int, lmdb.Transaction] = {}
            for index, place in zip(indices, np.searchsorted(self._ends, indices, side="right").tolist(), strict=True):
                if place not in transactions:
                    transactions[place] = stack.enter_context(_environment(self.folders[place]).begin())
                number = index + 1 - (int(self._ends[place - 1]) if place else 0)
                image = bytes(transactions[place].get(b"image-%09d" % number) or b"")
                text = _text(transactions[place].get(b"label-%09d" % number))
                samples.append(Sample(image, text, f"{self.folders[place]}, image-{number:09}"))
        return samples

    def texts(self) -> Iterator[str]:
        """The labels; the images are not read."""
        start = 0
        for folder, end in zip(self.folders, self._ends.tolist(), strict=True):
            for first in range(1, end - start + 1, 1024):
                with _environment(folder).begin() as transaction:
                    numbers = range(first, min(first + 1024, end - start + 1))
                    texts = [_text(transaction.get(b"label-%09d" % number)) for number in numbers]
                yield from texts
            start = end


def _text(label: bytes | memoryview | None) -> str:
    try:
        return bytes(label or b"").decode()
    except UnicodeDecodeError:
        return ""
