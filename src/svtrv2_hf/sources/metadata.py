# SPDX-License-Identifier: Apache-2.0
"""Image folders with metadata in CSV, JSON Lines or parquet.

`datasets` is not used because its image folders parse the text "007" as a number, and "NA" and "null" as missing.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import FILE, TEXT, pick_column
from .decoding import read_text
from .format import COLUMNS, SPLIT, Format, Place
from .spec import Spec


if TYPE_CHECKING:
    from .file_source import FileSource, Row

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}

Records = Iterator[tuple[int, dict[str, Any]]]  # line numbers and values by column


def is_metadata(place: Place) -> bool:
    """Return whether the only parquet file of a local place is a `metadata.parquet`."""
    return [Path(file).name.lower() for file in place.find(".parquet")] == ["metadata.parquet"]


def _match(place: Place) -> list[str]:
    files = place.find(".csv", ".jsonl", names=("metadata.csv", "metadata.jsonl"))
    return files + (place.find(".parquet") if is_metadata(place) else [])


def _search(place: Place) -> list[str]:
    return place.find(names=("labels.csv",))


def _open(spec: Spec, files: Sequence[str]) -> "FileSource":
    from .file_source import FileSource

    listing = Path(files[0])
    return FileSource(spec, listing, [""], _rows(listing, spec.options.get("image"), spec.options.get("text")))


def _rows(listing: Path, image: str | None, text: str | None) -> Iterator["Row"]:
    read = {".csv": _csv_records, ".jsonl": _jsonl_records, ".parquet": _parquet_records}[listing.suffix.lower()]
    for number, record in read(listing):
        where, columns = f"{listing}, line {number}", list(record)
        image = pick_column(where, columns, "image", image, FILE)
        text = pick_column(where, columns, "text", text, TEXT)
        file, label = record[image], "" if record[text] is None else record[text]
        if not isinstance(file, str) or not isinstance(label, str):
            raise ValueError(f"{where}: {image} and {text} must be strings in {record}.")
        split = next((value for name, value in record.items() if name.strip().lower() == "split"), None)
        yield number, file, label, split


def _check_columns(where: object, columns: Sequence[str]) -> None:
    if len(set(columns)) < len(columns):
        raise ValueError(f"{where}: columns of the same name: {', '.join(columns)}.")


def _csv_records(listing: Path) -> Records:
    content = read_text(listing)
    separator = max(SEPARATORS, key=content.partition("\n")[0].count)  # a comma by default
    # Not strict, a quote that is not closed would take all further lines into its field.
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        _check_columns(f"{listing}, line 1", header)
        for row in filter(None, reader):
            where = f"{listing}, line {reader.line_num}"
            if len(row) != len(header):
                raise ValueError(
                    f"{where}: {len(row)} values for the {len(header)} columns {', '.join(header)}. A text with a "
                    f"{SEPARATORS[separator]} must be in double quotes."
                )
            if unclosed := [value for value in row if "\n" in value.rstrip("\r\n")]:
                raise ValueError(f"{where}: a quote is not closed before {unclosed[0]!r}.")
            yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(
            f"{listing}, line {reader.line_num}: {error}; quotes in a quoted text must be doubled."
        ) from error


def _jsonl_records(listing: Path) -> Records:
    for number, line in enumerate(read_text(listing).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line, object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{listing}, line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{listing}, line {number}: not a JSON object: {line!r}.")
        yield number, record


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name in record:
            raise ValueError(f"the key {name!r} is repeated")
        record[name] = value
    return record


def _parquet_records(listing: Path) -> Records:
    from pyarrow.parquet import read_schema

    from .parquet_shards import ParquetShards

    if not ParquetShards.count(str(listing)):
        raise ValueError(f"No samples in {listing}.")
    _check_columns(listing, read_schema(listing).names)
    yield from enumerate(ParquetShards([str(listing)]).rows((str(listing), None), None), start=1)


FORMAT = Format(
    name="image folder",
    help="a folder of images with a `metadata.csv`, `metadata.jsonl`, `metadata.parquet` or `labels.csv`, or such a file itself; "
    "columns `file_name` and `text` or other common names (`filename`, `words`, ...); commas, semicolons or tabs in CSV",
    options=(*COLUMNS, SPLIT),
    match=_match,
    search=_search,
    open=_open,
    single_file=True,
)
