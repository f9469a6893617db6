# SPDX-License-Identifier: Apache-2.0
"""Data loader that raises the errors of its workers unchanged, and ends its workers."""

import pickle
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any

from torch.utils.data import DataLoader, IterableDataset


class Loader(DataLoader):
    """Loader of complete batches, optionally in workers.

    An error of the dataset is raised unchanged, also if it occurs in a worker; torch raises one whose message is the worker's
    traceback. The workers are killed when the iterator is closed or fails, because they may ignore SIGTERM.

    Args:
        dataset (`IterableDataset`): dataset of batches.
        kwargs: arguments of `DataLoader`.

    Raises:
        ChildProcessError: during iteration, if a worker was killed.
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
                # The traceback of an error keeps the iterator alive; at exit, multiprocessing would wait forever.
                batches._shutdown_workers()
                for worker in batches._workers:
                    worker.kill()  # busy ones; the others have ended


class _ErrorsAsItems(IterableDataset):
    """Yields the error of a dataset as its last item, to be raised in the main process with the traceback as its cause."""

    def __init__(self, dataset: IterableDataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except Exception as error:
            yield ExceptionWithTraceback(picklable(error), error.__traceback__)


def picklable(error: Exception) -> Exception:
    """Return an error that another process can raise: the error itself, or one with its type and message as text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # its constructor takes other arguments than the message
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def plain_worker_errors() -> Iterator[None]:
    """Convert torch's errors about killed workers to a `ChildProcessError` that states the likely cause.

    torch raises them in a signal handler, and therefore anywhere in the main process.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not re.match(r"DataLoader worker \(pid", message):
            raise
        how, why = "ended unexpectedly", "the machine ran out of memory"
        if "Bus error" in message:
            how, why = "was killed by a bus error", "/dev/shm is full, or a data file was truncated during reading"
        elif killed := re.search(r"killed by signal: (.*?)\.", message):
            how = f"was killed (signal: {killed[1]})"
        raise ChildProcessError(
            f"A data loading worker {how}, most likely because {why}: use fewer workers or smaller batches."
        ) from error
