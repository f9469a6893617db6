# SPDX-License-Identifier: Apache-2.0
"""Parquet files and webdataset tars, read so that what is cut off or inconsistent is an error and never less data."""

import logging
import os
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
from datasets import IterableDataset
from datasets.utils.file_utils import xopen

from ..redaction import redact
from .decoding import decode
from .splits import splits_of_values


logger = logging.getLogger(__name__)

OPEN_SHARDS = 16  # shards that are read at the same time; of fewer parquet files, the row groups are the shards
OPEN_BYTES = 1 << 30  # of parquet, of which an open shard holds a whole row group


@dataclass(frozen=True)
class Shards(ABC):
    """Files of one format; calling it opens a stream of their rows.

    Args:
        files: the shards, paths or addresses.
        image, text: the columns, if they are chosen.
    """

    files: Sequence[str]
    image: str | None = None
    text: str | None = None

    def __call__(self, columns: Sequence[str] | None = None) -> IterableDataset:
        """A stream of these columns, or of all."""
        chosen = None if columns is None else tuple(columns)
        return IterableDataset.from_generator(self._all_rows, gen_kwargs={"shards": self.shards(), "columns": chosen})

    def _all_rows(self, shards: Sequence[Any], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        for shard in shards:
            yield from self.rows(shard, columns)

    def shards(self) -> list[Any]:
        """What [`rows`] reads one by one."""
        return list(self.files)

    def at_once(self) -> int:
        """How many shards a shuffled pass may read at the same time."""
        return OPEN_SHARDS

    @abstractmethod
    def rows(self, shard: Any, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """The samples of a shard.

        Raises:
            ValueError: the shard is cut off, damaged or inconsistent; the message names the file and the place.
        """

    @classmethod
    @abstractmethod
    def count(cls, file: str) -> int | None:
        """Checks a local file as far as that is cheap, and counts its samples; `None` if only reading tells.

        Raises:
            ValueError: the file is cut off or damaged.
        """


def open_shards(
    form: type[Shards], files: Sequence[str], image: str | None = None, text: str | None = None
) -> tuple[Shards, int | None]:
    """Opens files of one format, without those that have no rows, and counts the samples where that is cheap.

    Raises:
        ValueError: a file is cut off or damaged, or none has a sample.
    """
    # remote ones are not looked at: each would cost a request
    counts = {file: form.count(file) if is_local(file) else None for file in files}
    if not any(number != 0 for number in counts.values()):
        raise ValueError(f"There is no sample in {', '.join(files)}.")
    if empty := [file for file, number in counts.items() if number == 0]:
        logger.warning("Files without samples are skipped: %s.", ", ".join(empty))
    known = [number for number in counts.values() if number is not None]
    return (
        form([file for file, number in counts.items() if number != 0], image, text),
        sum(known) if len(known) == len(counts) else None,
    )


def check_numbers(files: Sequence[str], pattern: str = "*") -> None:
    """Refuses shards that say by their names (`train-00000-of-00003.parquet`) that others are missing.

    Args:
        files: the shards.
        pattern: of the names that were asked for; others are not missed.

    Raises:
        ValueError: shards are missing; the message names the first three.
    """
    numbers: defaultdict[tuple[str, str, str, str], set[int]] = defaultdict(set)
    for file in files:
        folder, _, name = file.replace(os.sep, "/").rpartition("/")
        if parts := re.fullmatch(r"(.*?)(\d{3,})-of-(\d{3,})(?:-[0-9a-f]+)?(\.[^/]*)", name):
            numbers[folder, parts[1], parts[3], parts[4]].add(int(parts[2]))
    for (folder, start, total, suffix), found in numbers.items():
        first = 1 if int(total) in found and 0 not in found else 0
        absent = (number for number in range(first, first + int(total)) if number not in found)
        names = (f"{start}{number:0{len(total)}}-of-{total}{suffix}" for number in absent)
        if missing := [name for name in names if fnmatchcase(name, pattern)]:
            listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ValueError(
                f"{redact(folder) or '.'}: {len(missing):,} of {int(total):,} shards are missing: {listed}. Get them, or read "
                "the others by a pattern that does not match these."
            )


def check_split_column(files: Sequence[str]) -> None:
    """Refuses local parquet files with rows of several splits.

    Raises:
        ValueError: a column `split` holds the names of several.
    """
    values: set[str] = set()
    column = None
    for file in filter(is_local, files):
        with naming(file), pyarrow.parquet.ParquetFile(file) as table:
            names = [name for name in table.schema_arrow.names if name.lower() == "split"]
            if len(names) == 1 and _family(table.schema_arrow.field(names[0]).type) == "text":
                column = names[0]
                for batch in table.iter_batches(1 << 16, columns=[column]):
                    values.update(filter(None, batch.column(0).unique().to_pylist()))
    if len(splits := sorted(set(splits_of_values(sorted(values)) or ()))) > 1:
        raise ValueError(
            f"{', '.join(files[:3])}: the column {column} names several splits, {', '.join(splits)}: write a file for each split, "
            "or read all rows by ?split=all after the place."
        )


def is_local(file: str) -> bool:
    """Whether a file is on this machine."""
    return "://" not in file


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Around reading: an error of a library becomes one that names the file.

    Raises:
        ValueError: instead of what the library raises.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, (ValueError, OSError)) and str(file) in str(error):
            raise
        why = next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
        hint = " It may be cut off or damaged: get or write it again." if is_local(file) else ""
        raise ValueError(f"{file} cannot be read: {why}.{hint}") from error


class ParquetShards(Shards):
    """Parquet files; a shard is a file, or a row group if there are few local files."""

    def __call__(self, columns: Sequence[str] | None = None) -> IterableDataset:
        for column in columns or ():
            self._check_types(column)
        return super().__call__(columns)

    def _check_types(self, column: str) -> None:
        """Refuses a column that is not the same in all files.

        Raises:
            ValueError: a file lacks it, or holds values of another type.
        """
        first: tuple[str, pa.DataType] | None = None
        for file in filter(is_local, self.files):
            with naming(file):
                schema = pyarrow.parquet.read_schema(file)
            if column not in schema.names:
                raise ValueError(f"{file} has no column {column}. Its columns are {', '.join(schema.names)}.")
            if schema.names.count(column) > 1:
                raise ValueError(f"{file} has several columns {column}. Rename all but one of them.")
            found = schema.field(column).type
            if pa.types.is_null(found):
                continue  # of a shard without any value
            first = first or (file, found)
            if _family(found) != _family(first[1]):
                raise ValueError(f"{file}: the column {column} holds {found}, and {first[1]} in {first[0]}.")

    def shards(self) -> list[Any]:
        if len(self.files) >= OPEN_SHARDS or not all(map(is_local, self.files)):
            return [(file, None) for file in self.files]
        groups = {file: pyarrow.parquet.read_metadata(file).num_row_groups for file in self.files}
        return [(file, group) for file, number in groups.items() for group in range(number)]

    def at_once(self) -> int:
        footers = [pyarrow.parquet.read_metadata(file) for file in self.files if is_local(file)]
        sizes = (
            footer.row_group(group).total_byte_size for footer in footers for group in range(footer.num_row_groups)
        )
        return min(OPEN_SHARDS, max(2, OPEN_BYTES // max(1, *sizes, 1)))

    @classmethod
    def count(cls, file: str) -> int:
        with naming(file):
            if not Path(file).stat().st_size:
                raise ValueError(f"{file} is empty.")
            metadata = pyarrow.parquet.read_metadata(file)
            if metadata.num_rows != sum(
                metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)
            ):
                raise ValueError("the numbers of rows in its footer contradict each other")
            return int(metadata.num_rows)

    def rows(self, shard: tuple[str, int | None], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        file, group = shard
        with naming(file), xopen(file, "rb") as stream, pyarrow.parquet.ParquetFile(stream) as table:
            groups = range(table.num_row_groups) if group is None else [group]
            expected = sum(table.metadata.row_group(number).num_rows for number in groups)
            start = 0 if group is None else sum(table.metadata.row_group(number).num_rows for number in range(group))
            read = 0
            for batch in table.iter_batches(64, row_groups=list(groups), columns=columns):
                values = {
                    name: _values(column, f"{file}, column {name}, row", start + read)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for number in range(batch.num_rows):
                    row = {name: column[number] for name, column in values.items()}
                    yield {name: _beside(value, file) for name, value in row.items()}
                read += batch.num_rows
            if read != expected:
                raise ValueError(f"{read} of {expected} rows could be read")


def _family(kind: pa.DataType) -> str:
    """A name for all types that hold the same values."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    is_a = pa.types
    if is_a.is_string(kind) or is_a.is_large_string(kind) or is_a.is_string_view(kind):
        return "text"
    if is_a.is_binary(kind) or is_a.is_large_binary(kind) or is_a.is_binary_view(kind):
        return "bytes"
    return "struct" if is_a.is_struct(kind) else str(kind)


def _values(column: pa.Array, where: str, start: int) -> list[Any]:
    """The values of a column; texts are decoded by the rules of all formats."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        contents = column.cast(pa.large_binary()).to_pylist()
        return [
            None if content is None else decode(content, f"{where} {number}")
            for number, content in enumerate(contents, start + 1)
        ]
    return values


def _beside(image: Any, file: str) -> Any:
    """An image whose path is relative to the file that names it, found from anywhere."""
    if isinstance(image, dict) and image.get("bytes") is None and isinstance(path := image.get("path"), str):
        beside = os.path.join(os.path.dirname(file), path)  # noqa: PTH118, PTH120
        return {**image, "path": beside if is_local(file) and not Path(path).is_file() else path}
    return image
