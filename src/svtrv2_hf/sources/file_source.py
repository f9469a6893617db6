# SPDX-License-Identifier: Apache-2.0
"""Source of image files that a list names."""

import logging
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ..data.sample import IndexedSource, Sample
from ..reporting import first
from .decoding import clean_label
from .spec import Spec
from .splits import choose_split, splits_of_paths, splits_of_values


logger = logging.getLogger(__name__)

Row = tuple[int, str, str, Any]  # line number, file name, label, and value of the column `split`


class FileSource(IndexedSource):
    """Image files, with labels from a list.

    Args:
        spec: name, weight and split. Rows are split by their column `split`, or else by the folders of their files.
        listing: the list.
        folders: folders that file names may be relative to, relative to that of the list. The first that has a file counts.
        rows: rows of the list. Files must exist, but are not opened.

    Raises:
        FileNotFoundError: files are missing. The message states their number and the first three.
        ValueError: the list or the split is empty.
    """

    def __init__(self, spec: Spec, listing: Path, folders: Sequence[str], rows: Iterable[Row]):
        root = listing.parent
        lines = array("q")
        files, texts, values = [], [], []
        for line, file, text, value in rows:
            lines.append(line)
            files.append(file)
            texts.append(clean_label(text, f"{listing}, line {line}"))
            values.append(value)
        if not files:
            raise ValueError(f"{listing} contains no images.")
        _warn_if_truncated(listing, texts[-1])
        splits = splits_of_values(values)
        if splits is None:
            inside = f"{root.absolute()}{os.sep}"
            splits = splits_of_paths([file.removeprefix(inside) for file in files], by_name=False)
        split = choose_split(str(listing), files, splits, spec.split, "row")
        kept = [number for number, other in enumerate(splits) if split in (None, other)]
        paths, missing = [], []
        for number in kept:
            paths.append(_find(root, folders, files[number]) or "")
            if not paths[-1]:
                missing.append((lines[number], root / folders[0] / files[number]))
        if missing:
            raise FileNotFoundError(_describe_missing(listing, missing, len(kept)))
        self.name = spec.name
        self.weight = spec.weight
        self.num_samples = len(kept)
        self.root = root
        # Arrays, since forked workers share their memory; a list is copied object by object as it is read.
        self._files = np.array(paths, dtype=np.dtypes.StringDType())
        self._texts = np.array([texts[number] for number in kept], dtype=np.dtypes.StringDType())

    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        paths = [self.root / self._files[index] for index in indices]
        return [
            Sample(path.read_bytes(), self._texts[index], str(path))
            for index, path in zip(indices, paths, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> int:
        """Checksum of the labels."""
        return crc32("\n".join(self._texts).encode("utf-8", "surrogatepass"))

    def texts(self) -> Iterator[str]:
        return iter(self._texts)

    def repeated(self) -> dict[str, set[str]]:
        """Return the labels of each image that the list contains more than once, by path in alphabetical order."""
        files = np.array([os.path.normpath(file) for file in self._files], dtype=np.dtypes.StringDType())
        names, number_of, counts = np.unique(files, return_inverse=True, return_counts=True)
        repeated: dict[str, set[str]] = {str(self.root / name): set() for name in names[counts > 1]}
        for index in np.flatnonzero(counts[number_of] > 1):
            repeated[str(self.root / files[index])].add(self._texts[index])
        return repeated


def _find(root: Path, folders: Sequence[str], file: str) -> str | None:
    """Return the path of a file relative to `root`, or `None`. Backslashes may separate folders, as on Windows."""
    names = [file, file.replace("\\", "/")] if "\\" in file else [file]
    paths = [os.path.join(folder, name) for name in names for folder in folders]  # noqa: PTH118
    return next((path for path in paths if os.path.isfile(root / path)), None)  # noqa: PTH113


def _warn_if_truncated(listing: Path, label: str) -> None:
    """Warn if a list ends within a line; closing quotes or brackets show that it is complete."""
    if listing.suffix.lower() not in (".tsv", ".txt", ".csv"):
        return
    with listing.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
    if last not in (b"\n", b"\r") and not (last == b'"' and listing.suffix.lower() == ".csv"):
        logger.warning(
            "%s: the last line has no line end, so the file and its last label %r may be truncated.", listing, label
        )


def _describe_missing(listing: Path, missing: Sequence[tuple[int, Path]], rows: int) -> str:
    if len(missing) == 1:
        line, path = missing[0]
        return f"{listing}, line {line}: {path} is {'a folder' if os.path.isdir(path) else 'not found'}."  # noqa: PTH112
    listed = first([f"{path} (line {line})" for line, path in missing])
    return f"{listing}: {len(missing):,} of its {rows:,} files are missing: {listed}."
