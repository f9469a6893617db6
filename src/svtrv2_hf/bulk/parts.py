# SPDX-License-Identifier: Apache-2.0
"""Parts of a dataset: parquet files, row groups of large ones, and tar archives in the layout of webdataset."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from datasets.utils.file_utils import xopen

from ..paths import user_path
from ..redaction import redact
from ..reporting import first, plural
from ..sources import Place, split_spec
from ..sources.columns import IMAGE, pick_column
from ..sources.shards import check_numbers, is_local, name_file_in_errors
from ..sources.webdataset import EXTENSIONS, read_samples


PART_ROWS = 20_000  # larger files are divided at the next row group
WINDOW_BYTES = 64 << 20  # of images that are in memory together
KEY = "__key__"  # column with the names of the samples of an archive
CHECKED_SAMPLES = 32  # number of samples of an archive among which an image and each kept field must occur


@dataclass(frozen=True)
class Part:
    """A file, or consecutive row groups of it.

    Attributes:
        file: path or address.
        source: path of the file relative to the dataset.
        name: relative path of the results.
        start: number of its first row in the file.
        num_rows: number of its rows, if it is known without reading them.
        row_groups: numbers of the row groups; `None` for the whole file.
    """

    file: str
    source: str
    name: str
    start: int = 0
    num_rows: int | None = None
    row_groups: tuple[int, ...] | None = None

    @property
    def is_archive(self) -> bool:
        """Whether the file is a tar archive."""
        return self.file.lower().endswith(EXTENSIONS)


class Plan(NamedTuple):
    """The parts of a dataset, its location with its version, the column of the images, and whether subfolders belong to it."""

    parts: list[Part]
    root: str
    image: str | None
    recursive: bool


class Window(NamedTuple):
    """Consecutive rows of a part: their images and kept columns."""

    images: list[Any]
    kept: pa.Table


def plan_parts(place: str, image: str | None = None, keep: Sequence[str] = ()) -> Plan:
    """Find the files of a dataset and divide large ones, which depends only on the files.

    Args:
        place: a folder, which includes its subfolders; a file or a pattern, also remote ones (`hf://`, `https://`); or
            `hub:OWNER/NAME` with the options `split` and `config`.
        image: column of the images, or extension in archives; by default the usual names.
        keep: columns to keep.

    Raises:
        FileNotFoundError: no files were found.
        ValueError: files are of different formats, some of a numbered series are missing, or a column does not exist; in
            archives, it must occur in the first samples.
    """
    root, files = _find_hub_files(place) if place.startswith("hub:") else _find_files(place)
    if not all(file.startswith(root) for file in files):  # of a linked folder, or in another form of the address
        folders = [f"{file.rpartition('/')[0]}/" for file in files]
        root = os.path.commonprefix(folders).rpartition("/")[0] + "/"  # noqa: RUF071 (commonpath would change "://")
    archives = [file for file in files if file.lower().endswith(EXTENSIONS)]
    tables = [file for file in files if file.lower().endswith(".parquet")]
    if not archives and not tables:
        raise FileNotFoundError(
            f"No .parquet or .tar files at {redact(place)!r}. For a folder of images, first run: svtrv2 pack FOLDER OUTPUT."
        )
    if archives and tables:
        raise ValueError(
            f"{redact(place)} contains .parquet and .tar files. Specify one kind with a pattern, such as 'data/*.parquet'."
        )
    parts: list[Part] = []
    _check_fields(archives, image, keep)
    for file in archives:
        source = file.removeprefix(root)
        stem = source[: -len(next(end for end in EXTENSIONS if source.lower().endswith(end)))]
        parts.append(Part(file, source, f"{stem}.parquet"))
    for file in tables:
        try:
            with name_file_in_errors(file), xopen(file, "rb") as stream, pq.ParquetFile(stream) as table:
                names = table.schema_arrow.names
                sizes = [table.metadata.row_group(number).num_rows for number in range(table.num_row_groups)]
        except (ValueError, OSError):  # reported when the part is read
            parts.append(Part(file, file.removeprefix(root), file.removeprefix(root)))
            continue
        image = pick_column(file, names, "image", image, IMAGE, "--image COLUMN")
        if missing := [name for name in keep if name not in names]:
            raise ValueError(f"{redact(file)}: no column {missing[0]!r} to keep among {', '.join(names)}.")
        parts += _divide(file, file.removeprefix(root), sizes)
    if repeated := [name for name, count in Counter(part.name for part in parts).items() if count > 1]:
        raise ValueError(f"The results of several files would be named {first(repeated)}: rename the files.")
    return Plan(parts, root, image, place.startswith("hub:") or "**" in place or Place(place).is_folder)


def _find_files(place: str) -> tuple[str, list[str]]:
    """Return the folder of the files, with a slash at its end, and the files."""
    where = Place(place)
    if where.is_folder:
        root = f"{where.path.resolve()}/"
        files = sorted(map(str, Path(root).rglob("*")))
        # neither hidden files nor those that tools write next to data, such as _temporary
        files = [file for file in files if not re.search("/[._]", file[len(root) - 1 :])]
    else:
        pattern = where.text if where.is_remote else os.path.abspath(where.path)  # noqa: PTH100
        root = re.split(r"[*?\[]", pattern)[0].rpartition("/")[0] + "/"
        files = where.files if where.is_remote else [os.path.abspath(file) for file in where.files]  # noqa: PTH100
    check_numbers(files, "*" if where.is_folder else Path(where.text).name)
    return root, files


def _find_hub_files(place: str) -> tuple[str, list[str]]:
    """Return the location of a dataset of the Hub, with its commit, and the files of its splits."""
    from datasets import load_dataset_builder

    place, options = split_spec(place)
    if unknown := sorted(options.keys() - {"split", "config"}):
        raise ValueError(
            f"{place}: unknown option {unknown[0]}; a dataset of the Hub has the options split and config."
        )
    dataset = place.removeprefix("hub:")
    with name_file_in_errors(dataset):
        builder = load_dataset_builder(dataset, options.get("config"))
    splits = builder.config.data_files or {}
    if builder.name not in ("parquet", "webdataset") or not splits:
        raise ValueError(
            f"{dataset} consists of neither parquet files nor tars. The Hub converts most datasets to parquet: try --input "
            f"'hf://datasets/{dataset}@refs%2Fconvert%2Fparquet/**/*.parquet'."
        )
    if (split := options.get("split")) not in (None, *splits):
        raise ValueError(f"{dataset} has no split {split!r} (found: {', '.join(map(str, splits))}).")
    files = [file for name, listed in splits.items() if split in (None, name) for file in listed]
    check_numbers(files)
    if is_local(files[0]):
        return f"{user_path(dataset).resolve()}/", files
    # hf://datasets/OWNER/NAME@COMMIT/
    return "/".join(files[0].split("/")[:5]) + "/", files


def _check_fields(archives: Sequence[str], image: str | None, keep: Sequence[str]) -> None:
    """Raise ValueError if none of the first samples of the archives has an image, or a kept field."""
    for file in archives:
        try:
            samples = [sample for _, sample in islice(read_samples(file, lambda _: False), CHECKED_SAMPLES)]
        except (ValueError, OSError):  # reported when the part is read
            continue
        if samples:
            break
    else:
        return
    found = {field for sample in samples for field in sample}
    where = f"{redact(file)}: the first {plural(len(samples), 'sample')}"
    members = f"their members are {', '.join(f'.{field}' for field in sorted(found))}"
    if found.isdisjoint(_image_fields(image)):
        wanted = f"image .{image}" if image else "image"
        raise ValueError(f"{where} have no {wanted}; {members}. Specify its extension with --image EXTENSION.")
    if missing := [name for name in keep if name not in found and name != KEY]:
        raise ValueError(f"{where} have no member .{missing[0]} to keep; {members}.")


def _image_fields(image: str | None) -> tuple[str, ...]:
    return (image.lower(),) if image else IMAGE.common


def _divide(file: str, source: str, sizes: Sequence[int]) -> list[Part]:
    """Divide a file with row groups of these sizes."""
    groups: list[list[int]] = [[]]
    for number in range(len(sizes)):
        if sum(sizes[group] for group in groups[-1]) >= PART_ROWS:
            groups.append([])
        groups[-1].append(number)
    if len(groups) == 1:
        return [Part(file, source, source, num_rows=sum(sizes))]
    return [
        Part(
            file,
            source,
            f"{source.removesuffix('.parquet')}.rows-{sum(sizes[: chosen[0]]):09}.parquet",
            start=sum(sizes[: chosen[0]]),
            num_rows=sum(sizes[number] for number in chosen),
            row_groups=tuple(chosen),
        )
        for chosen in groups
    ]


def read_part(part: Part, image: str | None, keep: Sequence[str], window: int) -> tuple[pa.Schema, Iterator[Window]]:
    """Return the schema of the kept columns, and the rows in windows of about this size.

    Raises:
        ValueError, OSError: now or during iteration, if the file is damaged, or differs from the plan.
    """
    if part.is_archive:
        schema = pa.schema([(name, pa.string() if name == KEY else pa.binary()) for name in keep])
        return schema, _read_archive(part, image, schema, window)
    with name_file_in_errors(part.file), xopen(part.file, "rb") as stream:
        names = pq.read_schema(stream)
        schema = pa.schema([names.field(name).remove_metadata() for name in keep])
    return schema, _read_table(part, image or "image", schema, window)


def _read_table(part: Part, image: str, schema: pa.Schema, window: int) -> Iterator[Window]:
    folder = part.file.rpartition("/")[0]
    read = 0
    # The buffer lets pyarrow read a column in pieces, so that memory does not depend on the size of row groups.
    with (
        name_file_in_errors(part.file),
        xopen(part.file, "rb") as stream,
        pq.ParquetFile(stream, buffer_size=1 << 20) as table,
    ):
        groups = range(table.num_row_groups) if part.row_groups is None else part.row_groups
        columns = list(dict.fromkeys([image, *schema.names]))
        batches = table.iter_batches(min(32, window), row_groups=list(groups), columns=columns, use_threads=False)
        for rows in _join(batches, window):
            column = rows[image].combine_chunks()
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            read += rows.num_rows
            yield Window([_with_folder(value, folder) for value in column.to_pylist()], rows.select(schema.names))
        if part.num_rows not in (None, read):
            raise ValueError(f"only {read} of {part.num_rows} rows could be read")


def _join(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Join batches, which end with their row group, to tables of at least `size` rows or `WINDOW_BYTES`, except the last one."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= size or sum(part.nbytes for part in waiting) >= WINDOW_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _with_folder(value: Any, folder: str) -> Any:
    """Return an image whose path, if it has no bytes, is relative to the folder of its file."""
    path = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else value
    return f"{folder}/{path}" if isinstance(path, str) and path[:1] != "/" and "://" not in path else value


def _read_archive(part: Part, image: str | None, schema: pa.Schema, window: int) -> Iterator[Window]:
    usual = _image_fields(image)
    images: list[Any] = []
    kept: list[dict[str, Any]] = []
    size = 0
    for key, sample in read_samples(part.file, lambda field: field in usual or field in schema.names):
        fields = [field for field in sample if field in usual]
        if len(fields) > 1:
            raise ValueError(
                f"{redact(part.file)}: {key} has several images, .{' and .'.join(fields)}: choose one with --image EXTENSION."
            )
        images.append(sample[fields[0]] if fields else None)
        kept.append({KEY: key, **sample})
        size += len(images[-1] or b"")
        if len(images) == window or size >= WINDOW_BYTES:
            yield Window(images, pa.Table.from_pylist(kept, schema))
            images, kept, size = [], [], 0
    if images:
        yield Window(images, pa.Table.from_pylist(kept, schema))
