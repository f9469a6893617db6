# SPDX-License-Identifier: Apache-2.0
"""LMDB in the layout that is common in text recognition: `num-samples`, `image-000000001` and `label-000000001`."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.sample import IndexedSource, Sample
from .decoding import clean_label, decode
from .format import SPLIT, Format, Place
from .spec import Spec
from .splits import files_of_split


if TYPE_CHECKING:
    import lmdb

# By process and folder, with the state of the file when it was opened.
_environments: dict[tuple[int, Path], tuple[tuple[int, ...], "lmdb.Environment"]] = {}


def _environment(folder: Path) -> "lmdb.Environment":
    """Return the LMDB of a folder, opened once per process, and again if its file has changed."""
    key = (os.getpid(), folder)
    status = (folder / "data.mdb").stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _environments or _environments[key][0] != state:
        # An environment of the parent process must not be used, and must be closed before the file is opened again.
        for other in [other for other in _environments if other[0] != key[0] or other == key]:
            _environments.pop(other)[1].close()
        _environments[key] = (state, _open_environment(folder, status.st_size))
    return _environments[key][1]


def _open_environment(folder: Path, size: int) -> "lmdb.Environment":
    import lmdb

    file = folder / "data.mdb"
    if not size:
        raise ValueError(f"{file} is empty.")
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, meminit=False)
    except lmdb.Error as error:
        raise ValueError(f"{file} cannot be opened as LMDB: {error}.") from error
    # The file is mapped into memory, where reading beyond its end would kill the process.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size < needed:
        environment.close()
        raise ValueError(f"{file} is truncated: it has {size:,} of at least {needed:,} bytes. Get or write it again.")
    return environment


@contextmanager
def _transaction(folder: Path) -> Iterator["lmdb.Transaction"]:
    import lmdb

    try:
        with _environment(folder).begin() as transaction:
            yield transaction
    except lmdb.Error as error:
        raise ValueError(f"{folder / 'data.mdb'} is damaged: {error}. Get or write it again.") from error


def _num_samples(folder: Path) -> int:
    """Return `num-samples`; raise ValueError if it is missing, or inconsistent with the first and the last image."""
    file = folder / "data.mdb"
    with _transaction(folder) as transaction:
        record = transaction.get(b"num-samples")
        value = None if record is None else bytes(record)
        if value is None or not value.strip().isdigit() or len(value) >= 12:
            raise ValueError(
                f"{file}: num-samples is {value!r}. It must be the number of images, of which the first is image-000000001 "
                "with the label label-000000001."
            )
        number = int(value)
        entries = transaction.stat()["entries"]
        cursor = transaction.cursor()  # at the next image, even if some before it are missing
        beyond = bytes(cursor.key()) if cursor.set_range(b"image-%09d" % (number + 1)) else b""
        if re.fullmatch(rb"image-\d{9,}", beyond):
            raise ValueError(
                f"{file}: num-samples is {number:,}, but {beyond.decode()} exists; its {entries:,} entries may be up to "
                f"{(entries - 1) // 2:,} images with labels. Set num-samples to the number of images."
            )
        if number and transaction.get(b"image-%09d" % number) is None:
            from_zero = transaction.get(b"image-%09d" % 0) is not None
            first = " The first image must be image-000000001, not image-000000000." if from_zero else ""
            raise ValueError(
                f"{file}: num-samples is {number:,}, but image-{number:09} is missing; the file has {entries:,} entries."
                f"{first} Set num-samples to the number of images, or get or write the file again."
            )
    return number


class LmdbSource(IndexedSource):
    """One or more LMDBs. A missing image has no bytes and a missing label is empty, so that the label rules count them.

    Args:
        spec: name and weight.
        folders: folders with a `data.mdb` each.

    Raises:
        ValueError: a file is not LMDB, is damaged or lacks `num-samples`, or all are empty.
    """

    def __init__(self, spec: Spec, folders: Sequence[Path]):
        self.name = spec.name
        self.weight = spec.weight
        self.folders = [folder.resolve() for folder in folders]
        self._ends = np.cumsum([_num_samples(folder) for folder in self.folders])
        self.num_samples = int(self._ends[-1])
        if not self.num_samples:
            raise ValueError(f"No samples in {', '.join(map(str, folders))}: num-samples is 0.")

    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        samples = []
        with ExitStack() as stack:  # no transaction may be open when a worker is forked
            transactions: dict[int, lmdb.Transaction] = {}
            for index, place in zip(indices, np.searchsorted(self._ends, indices, side="right").tolist(), strict=True):
                folder = self.folders[place]
                if place not in transactions:
                    transactions[place] = stack.enter_context(_transaction(folder))
                number = index + 1 - (int(self._ends[place - 1]) if place else 0)
                image = bytes(transactions[place].get(b"image-%09d" % number) or b"")
                text = _label(transactions[place], folder, number)
                samples.append(Sample(image, text, f"{folder}, image-{number:09}"))
        return samples

    def texts(self) -> Iterator[str]:
        for folder, count in zip(self.folders, np.diff(self._ends, prepend=0).tolist(), strict=True):
            for first in range(1, count + 1, 1024):
                with _transaction(folder) as transaction:
                    numbers = range(first, min(first + 1024, count + 1))
                    labels = [_label(transaction, folder, number) for number in numbers]
                yield from labels


def _label(transaction: "lmdb.Transaction", folder: Path, number: int) -> str:
    key = b"label-%09d" % number
    where = f"{folder / 'data.mdb'}: {key.decode()}"
    return clean_label(decode(bytes(transaction.get(key) or b""), where), where)


def _match(place: Place) -> list[str]:
    files = place.find(".mdb", names=("data.mdb",))
    return _search(place) if files and place.is_folder else files


def _search(place: Place) -> list[str]:
    """Return every `data.mdb` in or below a folder once, including those behind links."""

    def fail(error: OSError) -> None:
        raise error

    paths = []
    seen: set[Path] = set()
    for parent, folders, files in os.walk(place.path, followlinks=True, onerror=fail):
        if (real := Path(parent).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if "data.mdb" in files:
            paths.append(str(Path(parent, "data.mdb")))
    return paths


def _open(spec: Spec, files: Sequence[str]) -> LmdbSource:
    return LmdbSource(spec, [Path(file).parent for file in files_of_split(str(spec), files, spec.split)])


FORMAT = Format(
    name="LMDB",
    help="a folder with a `data.mdb` (keys `num-samples`, `image-000000001`, `label-000000001`, ...), or a folder with such folders "
    "at any depth, which form one source",
    options=(SPLIT,),
    match=_match,
    search=_search,
    open=_open,
)
