# SPDX-License-Identifier: Apache-2.0
"""Downloads a file within a time and a size, whatever the server does."""

import io
import time
import urllib.error
import urllib.request
from http.client import HTTPResponse, IncompleteRead
from typing import Any


_CHUNK = 2**20


def download(url: str, timeout: float | None, max_bytes: int) -> bytes:
    """The file behind an http, https or data URL. Redirects lead to http and https only.

    Args:
        url: its address.
        timeout: seconds for all of it, whatever the number of redirects; `None` for no limit.
        max_bytes: of the largest file.

    Raises:
        OSError: the server cannot be reached, answers with an error, or takes too long.
        HTTPException: the answer is not HTTP, or breaks off.
        ValueError: the file is too large, or the URL is malformed.
    """
    if len(url) > 2 * max_bytes:  # of a data URL, which holds the file in base64
        raise ValueError(f"it has more than {max_bytes} bytes")
    deadline = None if timeout is None else time.monotonic() + timeout
    opener = urllib.request.OpenerDirector()  # not build_opener, which adds the handlers of file:// and ftp://
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
            while chunk := response.read(_CHUNK):
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


class _Raw(io.RawIOBase):
    """What a socket receives; each wait takes no longer than the time that is left."""

    def __init__(self, socket: Any, deadline: float | None):
        self.socket, self.deadline = socket, deadline
        self.file = socket.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.socket.settimeout(_remaining(self.deadline))
        return self.file.readinto(buffer)

    def close(self) -> None:
        self.file.close()
        super().close()


class _Timed:
    """The only part of a socket that `HTTPResponse` uses."""

    def __init__(self, socket: Any, deadline: float | None):
        self.socket, self.deadline = socket, deadline

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(_Raw(self.socket, self.deadline))


class _WithDeadline(urllib.request.AbstractHTTPHandler):
    """urllib's timeout is that of one wait for the network. A server that sends a byte a second would never exceed it."""

    def __init__(self, deadline: float | None):
        super().__init__()
        self.deadline = deadline

    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
        def connection(host: str, **more: Any) -> Any:
            connection = http_class(host, **{**more, "timeout": _remaining(self.deadline)})
            connection.response_class = response
            return connection

        def response(socket: Any, *more: Any, **named: Any) -> HTTPResponse:
            timed: Any = _Timed(socket, self.deadline)
            return HTTPResponse(timed, *more, **named)

        return super().do_open(connection, req, **arguments)


class _HTTPHandler(_WithDeadline, urllib.request.HTTPHandler):
    pass


class _HTTPSHandler(_WithDeadline, urllib.request.HTTPSHandler):
    pass


__all__ = ["download"]
