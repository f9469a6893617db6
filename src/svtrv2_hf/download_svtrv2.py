# SPDX-License-Identifier: Apache-2.0
"""Download of a file with limits on time and size."""

import io
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse, IncompleteRead
from typing import Any


def download(url: str, timeout: float | None, max_bytes: int) -> bytes:
    """Download a file from an http, https or data URL, following redirects to http and https only.

    Args:
        url: address of the file.
        timeout: limit of the total time in seconds, redirects included; `None` for no limit.
        max_bytes: limit of the size.

    Raises:
        OSError: the server is unreachable, returns an error, or takes too long.
        HTTPException: the response is not HTTP or is incomplete.
        ValueError: the file is too large, or the URL is malformed.
    """
    if len(url) > 2 * max_bytes:  # a data URL, which contains the file in base64
        raise ValueError(f"it has more than {max_bytes} bytes")
    deadline = None if timeout is None else time.monotonic() + timeout
    opener = urllib.request.OpenerDirector()  # build_opener would add handlers for file:// and ftp://
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.DataHandler(),
        _HTTPHandler(deadline),
        _HTTPSHandler(deadline),
    ):
        opener.add_handler(handler)
    content = io.BytesIO()
    try:
        with opener.open(url, timeout=timeout) as response:
            while chunk := response.read(2**20):
                content.write(chunk)
                if content.tell() > max_bytes:
                    raise ValueError(f"it has more than {max_bytes} bytes")
            if missing := getattr(response, "length", None):
                raise IncompleteRead(content.getvalue(), missing)
    except (TimeoutError, urllib.error.URLError) as error:
        if deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError(f"the download took longer than {timeout:g} seconds") from error
        raise
    return content.getvalue()


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("timed out")
    return remaining


class _TimedSocket(io.RawIOBase):
    """The part of a socket that `HTTPResponse` uses; each read waits until the deadline at most."""

    def __init__(self, socket: Any, deadline: float | None):
        self.socket, self.deadline = socket, deadline
        self.file = socket.makefile("rb", buffering=0)

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.socket.settimeout(_remaining(self.deadline))
        return self.file.readinto(buffer)

    def close(self) -> None:
        self.file.close()
        super().close()


class _DeadlineHandler(urllib.request.AbstractHTTPHandler):
    """Handler with a total time limit. The timeout of urllib limits a single read, so slow servers never exceed it."""

    def __init__(self, deadline: float | None):
        super().__init__()
        self.deadline = deadline

    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
        def connection(host: str, **options: Any) -> Any:
            connection = http_class(host, **{**options, "timeout": _remaining(self.deadline)})
            connection.response_class = response
            return connection

        def response(socket: Any, *arguments: Any, **options: Any) -> HTTPResponse:
            timed: Any = _TimedSocket(socket, self.deadline)
            return HTTPResponse(timed, *arguments, **options)

        return super().do_open(connection, req, **arguments)


class _HTTPHandler(_DeadlineHandler, urllib.request.HTTPHandler):
    pass


class _HTTPSHandler(_DeadlineHandler, urllib.request.HTTPSHandler):
    pass


__all__ = ["download"]
