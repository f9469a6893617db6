# SPDX-License-Identifier: Apache-2.0
"""Folder of the results of a run: its settings, and a parquet file for each part that is complete."""

import glob
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..evaluation.provenance import provenance
from ..reporting import plural
from ..sources.shards import name_file_in_errors
from .parts import Part


RUN = "_run.json"


def check_settings(folder: Path, settings: dict[str, Any], model: str) -> None:
    """Write the settings of a run, with the name of its model, or compare them with those of an earlier start.

    Raises:
        ValueError: the folder has results of other settings or of another program.
    """
    path = folder / RUN
    if not path.exists():
        if next(folder.rglob("*.parquet"), None) is not None:
            raise ValueError(f"{folder} has parquet files, but no {RUN}: choose a new folder for --output.")
        aside = path.with_name(_aside(RUN))
        content = {"settings": settings, "model": model, **provenance()}
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        aside.replace(path)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        changed = [name for name, value in settings.items() if before[name] != value]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged: choose a new folder for --output.") from error
    if changed:
        listed = "; ".join(f"{name} was {before[name]!r}, now {settings[name]!r}" for name in changed)
        raise ValueError(f"{folder} has results of a run with other settings ({listed}): choose another --output.")


def check_results(folder: Path, parts: Sequence[Part]) -> set[str]:
    """Return the names of the parts with results.

    Raises:
        ValueError: results are damaged or do not fit the parts.
    """
    planned = {part.name: part for part in parts}
    done = {file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet")}
    for name in sorted(done):
        if name not in planned:
            raise ValueError(
                f"{folder / name} is not a result of the files of this dataset, which have changed: choose another --output."
            )
        with name_file_in_errors(str(folder / name)):
            rows = pq.read_metadata(folder / name).num_rows
        if planned[name].num_rows not in (None, rows):
            raise ValueError(
                f"{folder / name} has {plural(rows, 'row')}, but {planned[name].source} now has {planned[name].num_rows:,}: "
                "remove the results to read the part again."
            )
    return done


class PartFile:
    """Results of a part, which are written aside until they are complete.

    Args:
        folder: folder of all results.
        part: the part.
        kept: schema of the kept columns.
        results: schema of the other columns.
    """

    def __init__(self, folder: Path, part: Part, kept: pa.Schema, results: pa.Schema):
        self._part = part
        self._path = folder / part.name
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for old in self._path.parent.glob(f".{glob.escape(self._path.name)}.*.tmp"):  # of an interrupted run
            old.unlink(missing_ok=True)
        self._aside = self._path.with_name(_aside(self._path.name))
        self._results = results
        self._schema = pa.schema([("part", pa.string()), ("row", pa.int64()), *kept, *results])
        self._writer = pq.ParquetWriter(self._aside, self._schema)
        self._next_row = part.start

    def write(self, kept: pa.Table, columns: dict[str, list[Any]]) -> None:
        """Append rows."""
        rows = range(self._next_row, self._next_row + kept.num_rows)
        position = [pa.array([self._part.source] * len(rows), pa.string()), pa.array(rows, pa.int64())]
        results = [pa.array(columns[field.name], field.type) for field in self._results]
        self._writer.write_table(pa.Table.from_arrays([*position, *kept.columns, *results], schema=self._schema))
        self._next_row = rows.stop

    def commit(self) -> None:
        """Give the complete file its name, after its content is stored.

        Raises:
            FileNotFoundError: another run has begun to read the same part.
        """
        self._writer.close()
        try:
            with self._aside.open("rb+") as file:
                os.fsync(file.fileno())
        except FileNotFoundError as error:  # removed as that of an interrupted run
            raise FileNotFoundError(
                f"Another run reads {self._part.source} to the same --output: divide the parts with --shard, or stop one of the runs."
            ) from error
        self._aside.replace(self._path)

    def discard(self) -> None:
        """Remove an incomplete file; without an effect on a complete one."""
        self._writer.close()
        self._aside.unlink(missing_ok=True)


def _aside(name: str) -> str:
    """Return a name for writing a file aside that no other process uses."""
    return f".{name}.{socket.gethostname()}.{os.getpid()}.tmp"
