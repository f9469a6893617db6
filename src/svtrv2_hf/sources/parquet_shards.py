# SPDX-License-Identifier: Apache-2.0
"""Reading of parquet files."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils.file_utils import xopen

from .decoding import decode
from .shards import OPEN_SHARDS, FileShards, is_local, name_file_in_errors
from .splits import splits_of_values


OPEN_BYTES = 1 << 30  # maximum total size of open row groups, each of which is held in memory


class ParquetShards(FileShards):
    """Parquet files. A shard is a file, or a row group if there are few local files."""

    def check(self, columns: Sequence[str]) -> None:
        for column in columns:
            self._check_types(column)

    def _check_types(self, column: str) -> None:
        first: tuple[str, pa.DataType] | None = None
        for file in filter(is_local, self.files):
            with name_file_in_errors(file):
                schema = pq.read_schema(file)
            if column not in schema.names:
                raise ValueError(f"{file} has no column {column}. Its columns are {', '.join(schema.names)}.")
            if schema.names.count(column) > 1:
                raise ValueError(f"{file} has several columns {column}. Rename all but one of them.")
            column_type = schema.field(column).type
            if pa.types.is_null(column_type):
                continue  # a shard without any value
            first = first or (file, column_type)
            if _family(column_type) != _family(first[1]):
                raise ValueError(f"{file}: the column {column} has type {column_type}, but {first[1]} in {first[0]}.")

    def shards(self) -> list[Any]:
        if len(self.files) >= OPEN_SHARDS or not all(map(is_local, self.files)):
            return [(file, None) for file in self.files]
        groups = {file: pq.read_metadata(file).num_row_groups for file in self.files}
        return [(file, group) for file, number in groups.items() for group in range(number)]

    def max_open_shards(self) -> int:
        sizes = [
            size for file in filter(is_local, self.files) for size in _sizes(pq.read_metadata(file), "total_byte_size")
        ]
        return min(OPEN_SHARDS, max(2, OPEN_BYTES // max(1, *sizes, 1)))

    @staticmethod
    def count(file: str) -> int:
        with name_file_in_errors(file):
            if not Path(file).stat().st_size:
                raise ValueError(f"{file} is empty.")
            metadata = pq.read_metadata(file)
            if metadata.num_rows != sum(_sizes(metadata, "num_rows")):
                raise ValueError("the numbers of rows in its footer contradict each other")
            return int(metadata.num_rows)

    def rows(self, shard: tuple[str, int | None], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        file, group = shard
        with name_file_in_errors(file), xopen(file, "rb") as stream, pq.ParquetFile(stream) as table:
            sizes = _sizes(table.metadata, "num_rows")
            groups = range(len(sizes)) if group is None else [group]
            expected = sum(sizes[number] for number in groups)
            start = sum(sizes[: group or 0])
            read = 0
            for batch in table.iter_batches(64, row_groups=list(groups), columns=columns):
                values = {
                    name: _values(column, f"{file}, column {name}, row", start + read)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                }
                for number in range(batch.num_rows):
                    yield {name: _with_absolute_path(column[number], file) for name, column in values.items()}
                read += batch.num_rows
            if read != expected:
                raise ValueError(f"only {read} of {expected} rows could be read")


def check_split_column(files: Sequence[str]) -> None:
    """Raise ValueError if a column `split` of local files names several splits."""
    values: set[str] = set()
    column = None
    for file in filter(is_local, files):
        with name_file_in_errors(file), pq.ParquetFile(file) as table:
            names = [name for name in table.schema_arrow.names if name.lower() == "split"]
            if len(names) == 1 and _family(table.schema_arrow.field(names[0]).type) == "string":
                column = names[0]
                for batch in table.iter_batches(1 << 16, columns=[column]):
                    values.update(filter(None, batch.column(0).unique().to_pylist()))
    if len(splits := sorted(set(splits_of_values(sorted(values)) or ()))) > 1:
        raise ValueError(
            f"{', '.join(files[:3])}: the column {column} names several splits, {', '.join(splits)}: write a file for each split, "
            "or read all rows with ?split=all."
        )


def _sizes(metadata: pq.FileMetaData, attribute: str) -> list[int]:
    """Return an attribute of each row group."""
    return [getattr(metadata.row_group(number), attribute) for number in range(metadata.num_row_groups)]


def _family(kind: pa.DataType) -> str:
    """Return a name shared by all types of the same values."""
    if pa.types.is_dictionary(kind):
        return _family(kind.value_type)
    return "struct" if pa.types.is_struct(kind) else re.sub("^large_|_view$", "", str(kind))


def _values(column: pa.Array, where: str, start: int) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        contents = enumerate(column.cast(pa.large_binary()).to_pylist(), start + 1)
        return [None if content is None else decode(content, f"{where} {number}") for number, content in contents]
    return values


def _with_absolute_path(value: Any, file: str) -> Any:
    """Resolve the path of an image that is relative to the parquet file."""
    if isinstance(value, dict) and value.get("bytes") is None and isinstance(path := value.get("path"), str):
        resolved = os.path.join(os.path.dirname(file), path)  # noqa: PTH118, PTH120
        return {**value, "path": resolved if is_local(file) and not Path(path).is_file() else path}
    return value
