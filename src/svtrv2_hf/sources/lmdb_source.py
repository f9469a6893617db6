# SPDX-License-Identifier: Apache-2.0
"""Labelled images in LMDB, in the layout that is usual in text recognition."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lmdb
import numpy as np

from ..data.sample import IndexedSource, Sample
from .decoding import decode, label_of


# By process and folder, with what tells whether the file is still the one that was opened.
_environments: dict[tuple[int, Path], tuple[tuple[int, ...], lmdb.Environment]] = {}


def _environment(folder: Path) -> lmdb.Environment:
    """The LMDB of a folder, opened once in each process, and again if its file has changed.

    One that was inherited over a fork must not be used, and its file cannot be opened again before it is closed.
    """
    key = (os.getpid(), folder)
    status = (folder / "data.mdb").stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _environments or _environments[key][0] != state:
        for other in [other for other in _environments if other[0] != key[0] or other == key]:
            _environments.pop(other)[1].close()
        _environments[key] = (state, _open(folder, status.st_size))
    return _environments[key][1]


def _open(folder: Path, size: int) -> lmdb.Environment:
    file = folder / "data.mdb"
    if not size:
        raise ValueError(f"{file} is empty.")
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"{file} cannot be opened as LMDB: {error}.") from error
    # The file is mapped into memory, where reading beyond its end would end the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        environment.close()
        raise ValueError(f"{file} is cut off: it has {size:,} of at least {needed:,} bytes. Get or write it again.")
    return environment


@contextmanager
def _transaction(folder: Path) -> Iterator[lmdb.Transaction]:
    """A transaction for reading, whose errors name the file."""
    try:
        with _environment(folder).begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise ValueError(f"{folder / 'data.mdb'} is damaged: {error}. Get or write it again.") from error


def _num_samples(folder: Path) -> int:
    """The number of images, which the first and the last of them confirm.

    Raises:
        ValueError: `num-samples` is missing or no number, or does not suit the images that are there.
    """
    file = folder / "data.mdb"
    with _transaction(folder) as transaction:
        found = transaction.get(b"num-samples")
        value = None if found is None else bytes(found)
        number = int(value) if value is not None and value.strip().isdigit() and len(value) < 12 else None
        if number is None:
            raise ValueError(
                f"{file}: num-samples is {value!r}. It must hold the number of images; image-000000001 is the first, and "
                "label-000000001 its text."
            )
        entries = transaction.stat()["entries"]
        says = f"{file}: num-samples is {number:,}, but"
        cursor = transaction.cursor()  # at the next image, also where some are missing before it
        beyond = bytes(cursor.key()) if cursor.set_range(b"image-%09d" % (number + 1)) else b""
        if re.fullmatch(rb"image-\d{9,}", beyond):
            raise ValueError(
                f"{says} there is an {beyond.decode()}; its {entries:,} entries may be up to {(entries - 1) // 2:,} "
                "images with their labels. Set num-samples to the number of images."
            )
        if number and transaction.get(b"image-%09d" % number) is None:
            first = " The first image must be image-000000001, not image-000000000."
            counted_from_0 = transaction.get(b"image-%09d" % 0) is not None
            raise ValueError(
                f"{says} image-{number:09} is missing; there are {entries:,} entries.{first if counted_from_0 else ''} Set "
                "num-samples to the number of images, or get or write the file again."
            )
    return number


class LmdbSource(IndexedSource):
    """One or more LMDBs with the keys `num-samples`, and from 1 `image-%09d` and `label-%09d`.

    A sample whose image is missing has an image of no bytes; one whose text is missing has an empty text. So the label
    rules count them.

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
                    transactions[place] = stack.enter_context(_transaction(self.folders[place]))
                number = index + 1 - (int(self._ends[place - 1]) if place else 0)
                image = bytes(transactions[place].get(b"image-%09d" % number) or b"")
                text = _text(transactions[place], self.folders[place], number)
                samples.append(Sample(image, text, f"{self.folders[place]}, image-{number:09}"))
        return samples

    def texts(self) -> Iterator[str]:
        """The labels; the images are not read."""
        start = 0
        for folder, end in zip(self.folders, self._ends.tolist(), strict=True):
            for first in range(1, end - start + 1, 1024):
                with _transaction(folder) as transaction:
                    numbers = range(first, min(first + 1024, end - start + 1))
                    texts = [_text(transaction, folder, number) for number in numbers]
                yield from texts
            start = end


def _text(transaction: lmdb.Transaction, folder: Path, number: int) -> str:
    key = b"label-%09d" % number
    where = f"{folder / 'data.mdb'}: {key.decode()}"
    return label_of(decode(bytes(transaction.get(key) or b""), where), where)
