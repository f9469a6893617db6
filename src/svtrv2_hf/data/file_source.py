# SPDX-License-Identifier: Apache-2.0
"""Image files that a list names: `labels.tsv`, or the metadata of an image folder."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from zlib import crc32

import numpy as np

from .sources import OTHER_TEXT_COLUMNS, TEXT_COLUMNS, IndexedSource, Sample, pick_column


# Names of the column of the file names where there is no `file_name`.
FILE_COLUMNS = (
    "filename",
    "file",
    "filepath",
    "file_path",
    "path",
    "image",
    "image_path",
    "image_name",
    "img",
    "img_path",
)


class FileSource(IndexedSource):
    """Image files, and a list of their names and texts.

    Args:
        listing: the list, for messages.
        root: the folder that the file names are relative to.
        rows: line number in the list, file name and text of each image. The files must exist; they are not opened.
        name: for logs.
        weight: in a mixture.

    Raises:
        FileNotFoundError: files are missing; their number and the first three are told.
        ValueError: there is no row.
    """

    def __init__(
        self, listing: Path, root: Path, rows: Iterable[tuple[int, str, str]], name: str, weight: float | None = None
    ):
        files, texts, missing = [], [], []
        for line, file, text in rows:
            if not (root / file).is_file():
                missing.append((line, root / file))
            files.append(file)
            texts.append(text)
        if not files:
            raise ValueError(f"{listing} names no image.")
        if missing:
            raise FileNotFoundError(_missing_told(listing, missing, len(files)))
        self.name = name
        self.weight = weight
        self.num_samples = len(files)
        self.root = root
        # Arrays, since forked workers share their memory; a list is copied object by object as it is read.
        self._files = np.array(files, dtype=np.dtypes.StringDType())
        self._texts = np.array(texts, dtype=np.dtypes.StringDType())

    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        """Reads the files."""
        paths = [self.root / self._files[index] for index in indices]
        return [
            Sample(path.read_bytes(), self._texts[index], str(path))
            for index, path in zip(indices, paths, strict=True)
        ]

    @cached_property
    def fingerprint(self) -> int:
        """A checksum of the texts."""
        return crc32("\n".join(self._texts).encode("utf-8", "surrogatepass"))

    def texts(self) -> Iterator[str]:
        """The texts of the list."""
        return iter(self._texts)

    def repeated(self) -> dict[str, set[str]]:
        """The texts of each image that the list names more than once, by its path, in alphabetical order."""
        files = np.array([os.path.normpath(file) for file in self._files], dtype=np.dtypes.StringDType())
        names, number_of, counts = np.unique(files, return_inverse=True, return_counts=True)
        several: dict[str, set[str]] = {str(self.root / name): set() for name in names[counts > 1]}
        for index in np.flatnonzero(counts[number_of] > 1):
            several[str(self.root / files[index])].add(self._texts[index])
        return several


def _missing_told(listing: Path, missing: Sequence[tuple[int, Path]], rows: int) -> str:
    """One message about all missing files, or a list would have to be mended line by line."""
    if len(missing) == 1:
        return f"{listing}, line {missing[0][0]}: there is no file {missing[0][1]}."
    first = ", ".join(f"{path} (line {line})" for line, path in missing[:3])
    return (
        f"{listing}: {len(missing):,} of the {rows:,} files that it names are missing: "
        f"{first}{', ...' if len(missing) > 3 else ''}."
    )


def open_list(listing: Path, name: str, weight: float | None = None) -> FileSource:
    """Reads a list: UTF-8, a line for each image, its file name and its text parted by a tab.

    File names are relative to the list's folder; those of a `labels.tsv` to `images/` in it, if there is that, and those of
    another list, too, if the first one lies there alone.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: a line has no tab, or there is none.
    """
    images = listing.parent / "images"
    rows = _list_rows(listing)
    first = list(islice(rows, 1))
    root = listing.parent
    if listing.name == "labels.tsv":
        root = images if images.is_dir() else root
    elif any(not (root / file).is_file() and (images / file).is_file() for _, file, _ in first):
        root = images
    return FileSource(listing, root, chain(first, rows), name, weight)


def open_metadata(
    listing: Path, name: str, weight: float | None = None, image: str | None = None, text: str | None = None
) -> FileSource:
    """Reads the `metadata.csv` or `metadata.jsonl` of an image folder.

    Not by `datasets`, whose image folders make a number of the text "007" and nothing at all of "NA" and "null".

    Args:
        listing: the file; the image files are relative to its folder.
        name: for logs.
        weight: in a mixture.
        image: the column of the file names; `file_name` if not given.
        text: the column of the texts; if not given, the one that has a usual name.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the columns cannot be told, a line is malformed, or there is none.
    """
    return FileSource(listing, listing.parent, _metadata_rows(listing, image, text), name, weight)


def _decode(listing: Path) -> str:
    try:
        return listing.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{listing} is not in UTF-8: {error}.") from error


def _list_rows(listing: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(_decode(listing).split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{listing}, line {number}: there is no tab between file name and text in {line!r}.")
        yield number, file, text


def _metadata_rows(listing: Path, image: str | None, text: str | None) -> Iterator[tuple[int, str, str]]:
    records = _csv_records(listing) if listing.suffix == ".csv" else _jsonl_records(listing)
    for number, record in records:
        columns = list(record)
        image = pick_column(f"{listing}, line {number}", columns, "image", image, ("file_name",), FILE_COLUMNS)
        text = pick_column(f"{listing}, line {number}", columns, "text", text, TEXT_COLUMNS, OTHER_TEXT_COLUMNS)
        file, label = record[image], "" if record[text] is None else record[text]
        if not isinstance(file, str) or not isinstance(label, str):
            raise ValueError(f"{listing}, line {number}: {image} and {text} must be strings in {record}.")
        yield number, file, label


_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def _csv_records(listing: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    content = _decode(listing)
    separator = max(",;\t", key=content.partition("\n")[0].count)  # a comma if none is there
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    header = next(reader, [])
    for row in reader:
        if len(row) not in (0, len(header)):
            raise ValueError(
                f"{listing}, line {reader.line_num}: {len(row)} values for the {len(header)} columns "
                f"{', '.join(header)}. A text with a {_SEPARATORS[separator]} must be in double quotes."
            )
        if row:
            yield reader.line_num, dict(zip(header, row, strict=True))


def _jsonl_records(listing: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    for number, line in enumerate(_decode(listing).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{listing}, line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{listing}, line {number} is not an object but {line!r}.")
        yield number, record
