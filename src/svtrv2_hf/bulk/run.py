# SPDX-License-Identifier: Apache-2.0
"""Reading of a dataset part by part: `svtrv2 read --input`."""

import copy
import os
import queue
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

from ..console import note, warn
from ..paths import user_path
from ..redaction import redact
from ..reporting import first, plural
from .isolation import IsolatedReader
from .parts import PART_ROWS, Part, Window, plan_parts, read_part
from .reader import BatchReader
from .results import PartFile, check_results, check_settings


WINDOW_BATCHES = 16  # number of batches of images that are grouped by size together


def read_dataset(
    place: str,
    output: str,
    model: str = "default",
    image: str | None = None,
    keep: Sequence[str] = (),
    shard: tuple[int, int] = (0, 1),
    workers: int = 1,
    batch_size: int = 32,
    max_ratio: int | str | None = None,
    characters: bool = False,
    backend: str = "torch",
    file_name: str | None = None,
) -> int:
    """Read the images of a dataset, and write a parquet file of texts for each part of it.

    The results have the columns `part` and `row`, the file and the number of the row in it, from 0; the kept columns; and those of
    [`BatchReader`]. They are in the order of the rows. A file of results is written aside and renamed when it is complete. Parts
    with results are not read again, so an interrupted run continues where it was.

    It starts processes, so a script must call it within `if __name__ == "__main__":`.

    Args:
        place, image, keep: see [`plan_parts`].
        output: a local folder, which may contain the results of an earlier start with the same arguments.
        model, batch_size, max_ratio, characters, backend, file_name: see [`BatchReader`].
        shard: `(index, number)`; read every `number`-th part, beginning with part `index`, from 0.
        workers: number of processes that read images; they share the cores.

    Returns:
        0 if all parts are read, even if images are unreadable; 1 if a part is damaged, which is reported.

    Raises:
        ValueError, OSError: the dataset or the model cannot be opened; or `output` has results of other data, of another model,
            or with other arguments.
    """
    folder = user_path(output).resolve()
    keep = list(dict.fromkeys(keep))
    plan = plan_parts(place, image, keep)
    if plan.recursive and f"{folder}/".startswith(plan.root):
        raise ValueError(f"--output {output} is in the folder of the dataset: choose one outside of it.")
    threads = max(1, _cores() // workers)
    reader = BatchReader(model, "image", (), batch_size, threads, "cpu", max_ratio, characters, backend, file_name)
    reader = copy.copy(reader)  # without the model, which the other processes load
    reader.device = None
    if clash := [name for name in keep if name in ("part", "row", *reader.results)]:
        raise ValueError(f"--keep {clash[0]}: the results have a column of this name; rename it in the dataset.")
    settings = {
        "backend": backend,
        "model_sha256": reader.fingerprint,
        "input": redact(plan.root),
        "image": plan.image,
        "keep": keep,
        "max_ratio": max_ratio,
        "characters": characters,
        "part_rows": PART_ROWS,
    }
    folder.mkdir(parents=True, exist_ok=True)
    check_settings(folder, settings, redact(model))
    done = check_results(folder, plan.parts)
    index, number = shard
    parts = plan.parts[index::number]
    todo = [part for part in parts if part.name not in done]
    run = _Run(folder, reader, plan.image, keep, workers, WINDOW_BATCHES * batch_size)
    try:
        run.read(todo, sum(part.num_rows or 0 for part in parts if part.name in done))
    except KeyboardInterrupt:
        note(f"Stopped after {plural(run.rows, 'row')}: run the same command to continue.")
        raise
    run.report()
    read = len(todo) - len(run.damaged)
    print(
        f"{folder}: {len(parts) - len(run.damaged):,} of {plural(len(parts), 'part')} complete, {read:,} of them read now."
    )
    return int(bool(run.damaged))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Run:
    """Reads parts in other processes, and writes their results."""

    def __init__(
        self, folder: Path, reader: BatchReader, image: str | None, keep: Sequence[str], workers: int, window: int
    ):
        self.folder, self.reader, self.image, self.keep = folder, reader, image, keep
        self.workers, self.window = workers, window
        self.rows = self.errors = self.compressed = 0
        self.missing: Counter[str] = Counter()  # kept fields of archives, with the number of rows without them
        self.damaged: list[str] = []

    def read(self, parts: Sequence[Part], rows_before: int) -> None:
        """Read parts; `rows_before` is the number of rows of the others, for the progress."""
        known = [part.num_rows for part in parts if part.num_rows is not None]
        total = rows_before + sum(known) if len(known) == len(parts) else None
        file: PartFile | None = None
        with (
            closing(self._recognized(parts)) as steps,
            tqdm(total=total, initial=rows_before, unit=" rows", disable=None) as bar,
        ):
            try:
                for part, step, columns in steps:
                    if isinstance(step, pa.Schema):
                        file = PartFile(self.folder, part, step, self.reader.schema)
                    elif file is not None and isinstance(step, Window):
                        file.write(step.kept, columns)
                        self._count(columns)
                        if part.is_archive:
                            self.missing.update({name: step.kept[name].null_count for name in self.keep})
                        bar.set_postfix(errors=self.errors, refresh=False)
                        bar.update(len(step.images))
                    elif file is not None and step is None:
                        file.commit()
                    else:
                        self.damaged.append(part.source)
                        warn(str(step))
                        if file is not None:
                            file.discard()
            finally:
                if file is not None:
                    file.discard()

    def _count(self, columns: dict[str, list[Any]]) -> None:
        self.rows += len(columns["error"])
        self.errors += sum(error is not None for error in columns["error"])
        self.compressed += sum(columns["exceeds_max_ratio"])

    def _recognized(self, parts: Sequence[Part]) -> Generator[tuple[Part, Any, dict[str, list[Any]]], None, None]:
        """Yield the steps of [`_steps`] in their order, windows with their results, while other processes read ahead."""
        readers = [IsolatedReader(self.reader) for _ in range(self.workers)]
        idle: queue.SimpleQueue[IsolatedReader] = queue.SimpleQueue()
        for reader in readers:
            idle.put(reader)

        def recognize(images: list[Any]) -> dict[str, list[Any]]:
            reader = idle.get()
            try:
                return reader(images)
            finally:
                idle.put(reader)

        pool = ThreadPoolExecutor(self.workers)  # a thread for each process, which waits for it
        waiting: deque[tuple[Part, Any, Future[dict[str, list[Any]]] | None]] = deque()
        try:
            for part, step in self._steps(parts):
                waiting.append((part, step, pool.submit(recognize, step.images) if isinstance(step, Window) else None))
                while len(waiting) > 2 * self.workers:
                    yield _with_result(*waiting.popleft())
            while waiting:
                yield _with_result(*waiting.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for reader in readers:
                reader.close()

    def _steps(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Any]]:
        """Yield for each part the schema of its kept columns, its windows, and at the end `None`, or the error of a damaged file."""
        for part in parts:
            try:
                schema, windows = read_part(part, self.image, self.keep, self.window)
                yield part, schema
                for window in windows:
                    yield part, window
            except (ValueError, OSError) as error:
                yield part, error
            else:
                yield part, None

    def report(self) -> None:
        """Report unusual images and damaged parts on stderr."""
        if self.compressed:
            note(
                f"{self.compressed:,} of {plural(self.rows, 'image')} are wider than the maximum aspect ratio and were compressed, "
                "which loses narrow letters: see the column exceeds_max_ratio, and --max-ratio auto."
            )
        if self.errors:
            note(f"{self.errors:,} of {plural(self.rows, 'image')} could not be read: see the column error.")
        for name, count in (+self.missing).items():
            note(f"{count:,} of {plural(self.rows, 'row')} have no member .{name}: their value is null.")
        if self.damaged:
            warn(
                f"{plural(len(self.damaged), 'part')} could not be read: {first(self.damaged)}. Run the same command again after "
                "you have replaced the files."
            )


def _with_result(
    part: Part, step: Any, future: Future[dict[str, list[Any]]] | None
) -> tuple[Part, Any, dict[str, list[Any]]]:
    return part, step, {} if future is None else future.result()
