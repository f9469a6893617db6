# SPDX-License-Identifier: Apache-2.0
"""A data loader that raises its workers' errors as they are, and ends its workers."""

import pickle
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any

from torch.utils.data import DataLoader, IterableDataset


class Loader(DataLoader):
    """Loads ready-made batches, optionally in workers.

    An error of the dataset is raised as it is, also from a worker: torch raises one whose message is the worker's traceback.
    The workers end when the iterator is closed or fails. They do not otherwise, because they may ignore SIGTERM.

    Args:
        dataset (`IterableDataset`): yields batches.
        kwargs: as of `DataLoader`.

    Raises:
        ChildProcessError: while it is read, if a worker was killed.
    """

    def __init__(self, dataset: IterableDataset, num_workers: int = 0, **kwargs: Any):
        source = _ErrorsAsItems(dataset) if num_workers else dataset
        super().__init__(source, batch_size=None, num_workers=num_workers, **kwargs)

    def __iter__(self) -> Generator[Any, None, None]:  # type: ignore[override]
        batches: Any = super().__iter__()
        try:
            with plain_worker_errors():
                for batch in batches:
                    if isinstance(batch, Exception):
                        raise batch
                    yield batch
        finally:
            if self.num_workers:
                # An error keeps the iterator alive by its traceback; at exit, multiprocessing would wait for ever.
                batches._shutdown_workers()
                for worker in batches._workers:
                    worker.kill()  # one that is busy; the others have ended


class _ErrorsAsItems(IterableDataset):
    """Yields the error that ends a dataset, to be raised in the main process with the worker's traceback as its cause."""

    def __init__(self, dataset: IterableDataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except Exception as error:
            yield ExceptionWithTraceback(_picklable(error), error.__traceback__)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its constructor takes other arguments than its message
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Raises torch's errors about killed workers as a `ChildProcessError` of one sentence that names the likely cause.

    torch raises them from a signal handler, so wherever the main process happens to be.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not re.match(r"DataLoader worker \(pid", message):
            raise
        if "Bus error" in message:
            how, why = "was killed by a bus error", "/dev/shm is full, or a data file was cut off while it was read"
        elif found := re.search(r"killed by signal: (.*?)\.", message):
            how, why = f"was killed (signal: {found[1]})", "the machine ran out of memory"
        else:
            how, why = "ended unexpectedly", "the machine ran out of memory"
        raise ChildProcessError(
            f"A worker process that reads the data {how}, most likely because {why}: use fewer workers or smaller batches."
        ) from error
