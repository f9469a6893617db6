# SPDX-License-Identifier: Apache-2.0
"""Calls of a reader in another process, which survive images that end the process."""

import multiprocessing
import re
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch
from PIL import Image

from ..data.loader import picklable


_OUT_OF_MEMORY = 77  # exit status of a process


class ProcessDiedError(Exception):
    """The process ended before it returned a result; the message describes how."""


class IsolatedReader:
    """A [`BatchReader`] in another process.

    If the process ends while it reads a batch, it is started again and reads the images of the batch one by one. An image
    during which it ends again gets an `error`. Running out of memory counts as the end of the process.

    Args:
        reader: the reader, without kept columns.
    """

    def __init__(self, reader: Any):
        self._reader = reader
        self._process: Any = None
        self._connection: Any = None  # of the process
        self._closed = False

    def __call__(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        """Read images; see [`BatchReader`].

        Raises:
            ChildProcessError: the process ended while it loaded the model.
            Exception: an error of the reader.
        """
        try:
            return self._call(images)
        except ProcessDiedError:
            results = [self._read_alone(image) for image in images]
            return {name: [value for result in results for value in result[name]] for name in self._reader.results}

    def _read_alone(self, image: Any) -> dict[str, list[Any]]:
        try:
            return self._call([image])
        except ProcessDiedError as error:
            failed = {"text": "", "score": 0.0, "characters": [], "exceeds_max_ratio": False}
            failed["error"] = f"Cannot read the image: the process that read it {error}."
            return {name: [failed[name]] for name in self._reader.results}

    def _call(self, images: Sequence[Any]) -> dict[str, list[Any]]:
        connection = self._connection or self._start()
        try:
            connection.send(images)
            result = connection.recv()
        except (EOFError, OSError):
            raise ProcessDiedError(self._end()) from None
        if isinstance(result, Exception):
            raise result
        return dict(result)

    def _start(self) -> Any:
        if self._closed:
            raise RuntimeError("The reader is closed.")
        # Not forked from this process, whose threads hold locks. The server imports torch once for all processes.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if "forkserver" in methods:
            context.set_forkserver_preload([f"{__package__}.reader"])
        connection, other = context.Pipe()
        process = context.Process(target=_serve, args=(self._reader, other), daemon=True)
        process.start()
        other.close()
        self._connection, self._process = connection, process
        if self._closed:  # meanwhile
            process.kill()
        try:
            problem = self._connection.recv()
        except (EOFError, OSError):
            raise ChildProcessError(
                f"The process that reads images {self._end()} while it loaded the model: use fewer --workers if memory is "
                "short; otherwise, the installation of torch may be damaged."
            ) from None
        if problem is not None:
            raise problem
        return self._connection

    def _end(self) -> str:
        """Wait for the end of the process and describe it."""
        connection, process = self._connection, self._process
        self._connection = self._process = None
        connection.close()
        process.join()
        code = process.exitcode
        if code == _OUT_OF_MEMORY:
            return "ran out of memory"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    def close(self) -> None:
        """End the process; a call in another thread is interrupted."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()
            process.join()


def _serve(reader: Any, connection: Connection) -> None:
    """Send the result or the error of each list of images that is received, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process
    try:
        # Load the model and run it once, so that a damaged installation is not mistaken for a damaged image.
        blank = _result(reader, [Image.new("RGB", (64, 32))])
        connection.send(blank if isinstance(blank, Exception) else None)
        while not isinstance(blank, Exception):
            connection.send(_result(reader, connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the main process ended
        pass


def _result(reader: Any, images: Sequence[Any]) -> Any:
    try:
        return reader({reader.image: images})
    except Exception as error:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
            isinstance(error, RuntimeError) and re.search("can't allocate memory|not enough memory", str(error))
        ):
            raise SystemExit(_OUT_OF_MEMORY) from None
        return picklable(error)
