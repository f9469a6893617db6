# SPDX-License-Identifier: Apache-2.0
"""Image files that a list names: `labels.tsv`, or the metadata of an image folder."""

import csv
import io
import json
import logging
import os
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ..data.sample import IndexedSource, Sample
from .columns import OTHER_TEXT_COLUMNS, TEXT_COLUMNS, pick_column
from .decoding import decode, label_of
from .splits import TRAIN, SplitChoice, choose_split, splits_of_paths, splits_of_values


logger = logging.getLogger(__name__)

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


Row = tuple[int, str, str, Any]  # line number, file name, text, and the value of the column `split`


class FileSource(IndexedSource):
    """Image files, and a list of their names and texts.

    Args:
        listing: the list, for messages.
        folders: what the file names are relative to: the folder of the list, and folders in it. A file is that of the
            first one that has it.
        rows: line number in the list, file name, text and split of each image. The files must exist; they are not opened.
        name: for logs.
        weight: in a mixture.
        choice: the split to read, if rows belong to several by their column `split` or else by the folders of their files.

    Raises:
        FileNotFoundError: files are missing; the message has their number and the first three.
        ValueError: there is no row, or none of the split.
    """

    def __init__(
        self,
        listing: Path,
        folders: Sequence[str],
        rows: Iterable[Row],
        name: str,
        weight: float | None = None,
        choice: SplitChoice = TRAIN,
    ):
        root = listing.parent
        lines = array("q")
        files, texts, values = [], [], []
        for line, file, text, value in rows:
            lines.append(line)
            files.append(file)
            texts.append(label_of(text, f"{listing}, line {line}"))
            values.append(value)
        if not files:
            raise ValueError(f"{listing} names no image.")
        _warn_of_open_end(listing, texts[-1])
        splits = splits_of_values(values)
        if splits is None:
            inside = f"{root.absolute()}{os.sep}"
            splits = splits_of_paths([file.removeprefix(inside) for file in files], by_name=False)
        split = choose_split(str(listing), files, splits, choice, "row")
        if split is not None:
            kept = [number for number, other in enumerate(splits) if other == split]
            lines = array("q", (lines[number] for number in kept))
            files = [files[number] for number in kept]
            texts = [texts[number] for number in kept]
        missing = []
        for number, (line, file) in enumerate(zip(lines, files, strict=True)):
            found = _find(root, folders, file)
            if found is None:
                missing.append((line, root / folders[0] / file))
            files[number] = found or file
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


def _find(root: Path, folders: Sequence[str], file: str) -> str | None:
    """The path of a file from `root`; `None` if there is none. Windows parts folders by backslashes."""
    names = [file, file.replace("\\", "/")] if "\\" in file else [file]
    paths = [os.path.join(folder, name) for name in names for folder in folders]  # noqa: PTH118
    return next((path for path in paths if os.path.isfile(root / path)), None)  # noqa: PTH113


def _warn_of_open_end(listing: Path, text: str) -> None:
    """Warns if a list ends within a line; where quotes or brackets close it, it is complete."""
    if listing.suffix.lower() not in (".tsv", ".txt", ".csv"):
        return
    with listing.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read()
    if last not in (b"\n", b"\r") and not (last == b'"' and listing.suffix.lower() == ".csv"):
        logger.warning(
            "%s: the last line has no line end, so the file and its last label %r may be cut off.", listing, text
        )


def _missing_told(listing: Path, missing: Sequence[tuple[int, Path]], rows: int) -> str:
    """One message about all missing files, or a list would have to be mended line by line."""
    if len(missing) == 1:
        line, path = missing[0]
        return f"{listing}, line {line}: {path} is {'a folder' if os.path.isdir(path) else 'not found'}."  # noqa: PTH112
    first = ", ".join(f"{path} (line {line})" for line, path in missing[:3])
    return (
        f"{listing}: {len(missing):,} of the {rows:,} files that it names are missing: "
        f"{first}{', ...' if len(missing) > 3 else ''}."
    )


def open_list(listing: Path, name: str, weight: float | None = None, choice: SplitChoice = TRAIN) -> FileSource:
    """Reads a list: UTF-8, a line for each image, its file name and its text parted by a tab.

    File names are relative to the list's folder or to `images/` in it; where both have such a file, that in `images/` is meant by
    a `labels.tsv`, and the other one by other lists.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: a line has no tab, or there is none; the list is not UTF-8, or its fields are quoted as in CSV.
    """
    folders = ["images", ""] if listing.name.lower() == "labels.tsv" else ["", "images"]
    if not (listing.parent / "images").is_dir():
        folders = [""]
    return FileSource(listing, folders, _list_rows(listing), name, weight, choice)


def open_metadata(
    listing: Path,
    name: str,
    weight: float | None = None,
    image: str | None = None,
    text: str | None = None,
    choice: SplitChoice = TRAIN,
) -> FileSource:
    """Reads the `metadata.csv`, `metadata.jsonl` or `metadata.parquet` of an image folder.

    Not by `datasets`, whose image folders make a number of the text "007" and nothing at all of "NA" and "null".

    Args:
        listing: the file; the image files are relative to its folder.
        name: for logs.
        weight: in a mixture.
        image: the column of the file names; `file_name` if not given.
        text: the column of the texts; if not given, the one that has a usual name.
        choice: the split to read.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: the columns cannot be told, a line is malformed, or there is none.
    """
    return FileSource(listing, [""], _metadata_rows(listing, image, text), name, weight, choice)


def _read(listing: Path) -> str:
    text = decode(listing.read_bytes(), str(listing))
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{listing}, line {line} holds a NUL byte: the file is damaged, or UTF-16 and not UTF-8.")
    return text


def _list_rows(listing: Path) -> Iterator[Row]:
    lines = _read(listing).split("\n")
    _check_quotes(listing, lines)
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{listing}, line {number}: there is no tab between file name and text in {line!r}.")
        if "\t" in text:
            raise ValueError(f"{listing}, line {number} has more than two fields, file name and text: {line!r}.")
        yield number, file, text, None


def _check_quotes(listing: Path, lines: Sequence[str]) -> None:
    """Refuses what pandas and spreadsheets write: fields in quotes, quotes in them doubled.

    Quotes are characters like any other in a list; so only where all fields with quotes look like that, and one has some inside.
    """
    quoted = [
        (number, field)
        for number, line in enumerate(lines, 1)
        if '"' in line
        for field in line.rstrip("\r").split("\t")
    ]
    quoted = [(number, field) for number, field in quoted if '"' in field]
    if any(not re.fullmatch(r'"([^"]|"")*"', field) for _, field in quoted):
        return
    if doubled := [number for number, field in quoted if '""' in field[1:-1]]:
        raise ValueError(
            f"{listing}, line {doubled[0]} is quoted as in CSV: write the list without quotes (of pandas: quoting=csv.QUOTE_NONE), "
            "or as a metadata.csv with the columns file_name,text."
        )


def _metadata_rows(listing: Path, image: str | None, text: str | None) -> Iterator[Row]:
    records = {".csv": _csv_records, ".jsonl": _jsonl_records, ".parquet": _parquet_records}
    for number, record in records[listing.suffix.lower()](listing):
        columns = list(record)
        image = pick_column(f"{listing}, line {number}", columns, "image", image, ("file_name",), FILE_COLUMNS)
        text = pick_column(f"{listing}, line {number}", columns, "text", text, TEXT_COLUMNS, OTHER_TEXT_COLUMNS)
        file, label = record[image], "" if record[text] is None else record[text]
        if not isinstance(file, str) or not isinstance(label, str):
            raise ValueError(f"{listing}, line {number}: {image} and {text} must be strings in {record}.")
        split = next((value for name, value in record.items() if name.strip().lower() == "split"), None)
        yield number, file, label, split


_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


def _csv_records(listing: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    content = _read(listing)
    separator = max(",;\t", key=content.partition("\n")[0].count)  # a comma if none is there
    # strict, since a quote that is not closed would take all that follows into its field
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise ValueError(f"{listing}, line 1: columns of the same name: {', '.join(header)}.")
        for row in reader:
            if len(row) not in (0, len(header)):
                raise ValueError(
                    f"{listing}, line {reader.line_num}: {len(row)} values for the {len(header)} columns "
                    f"{', '.join(header)}. A text with a {_SEPARATORS[separator]} must be in double quotes."
                )
            if broken := [value for value in row if "\n" in value.rstrip("\r\n")]:
                raise ValueError(f"{listing}, line {reader.line_num}: a quote is not closed before {broken[0]!r}.")
            if row:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{listing}, line {reader.line_num}: {error}; quotes in a quoted text are doubled."
        ) from error


def _jsonl_records(listing: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(_read(listing).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{listing}, line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{listing}, line {number} is not an object but {line!r}.")
        yield number, record


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, which must not have two values of one name."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is repeated")
    return record


def _parquet_records(listing: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow.parquet import read_schema

    from .shards import ParquetShards, open_shards

    shards, _ = open_shards(ParquetShards, [str(listing)])
    names = read_schema(listing).names
    if len(set(names)) < len(names):
        raise ValueError(f"{listing}: columns of the same name: {', '.join(names)}.")
    yield from enumerate((row for shard in shards.shards() for row in shards.rows(shard, None)), start=1)
