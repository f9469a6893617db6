# SPDX-License-Identifier: Apache-2.0
"""What reaches Gradio: the requests that the page and its endpoint make, and nothing else.

Gradio has many more routes: proxies, recordings, calls that bypass the queue. Anyone may call them, with bodies of any size and
shape, so requests are checked here, before Gradio sees them.
"""

import asyncio
import json
import os
import re
import sys
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from ..console import printable
from ..image_loading_svtrv2 import UnreadableImageError
from .uploads import MEGABYTES, prune, upload_folder, uploaded_file


Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

GET = re.compile(
    r"/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|login_check)/?|/(assets|static|svelte)/.*"
    r"|/gradio_api/(info|openapi\.json|startup-events|app_id|upload_progress|queue/(data|status)|heartbeat/[\w-]{1,64})/?"
    r"|/gradio_api/call/read/[\w-]{1,64}"
)
FILE = "/gradio_api/file="
POST = {
    "/gradio_api/queue/join": "event",
    "/gradio_api/run/predict": "event",
    "/gradio_api/call/read": "read",
    "/gradio_api/cancel": "small",
    "/gradio_api/reset": "small",
    "/gradio_api/upload": "upload",
}
SMALL = 2**16  # bytes of a body without a file
UPLOADS = 16  # files received at the same time; others wait
UPLOADS_OF_ONE = 4  # of them from the same address
PATIENCE = 60  # seconds for a body to arrive
IDLE = 10  # seconds without a byte of it
UNREAD = 8  # answers that wait for the same visitor to fetch them


class RefusedError(Exception):
    """A request that is answered here."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status = status


class Gate:
    """ASGI middleware.

    Args:
        app: what gets the good requests.
        inputs: of each of the page's functions by its number, what it takes: "image", or the number of examples.
        waiting: the number of answers that a session has not fetched yet.
    """

    def __init__(self, app: Any, inputs: Mapping[int, str | int], waiting: Callable[[str], int]):
        self.app, self.inputs, self.waiting = app, inputs, waiting
        self.own_files = frozenset(path for path in upload_folder().rglob("*") if path.is_file())
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.uploads_of: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started = False

        async def answer(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if scope["type"] != "http":
                raise RefusedError(404, "Not found.")
            await self._pass(scope, receive, answer)
        except RefusedError as error:
            if not started:
                await JSONResponse({"detail": str(error)}, error.status)(scope, receive, send)
        except ClientDisconnect:  # of no concern to whoever reads the log
            pass
        except Exception as error:  # a request that Gradio stumbles over is not worth a traceback
            print(printable(f"svtrv2: {scope['method']} {scope['path']} failed: {error!r}"), file=sys.stderr)
            if not started:
                await JSONResponse({"detail": "The request could not be answered."}, 400)(scope, receive, send)
            else:
                with suppress(Exception):  # the end, which the server misses otherwise
                    await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path.startswith(FILE):
                self._check_path(path.removeprefix(FILE))
            elif not GET.fullmatch(path):
                raise RefusedError(404, "Not found.")
            await self.app(scope, receive, send)
            return
        kind = POST.get(path.rstrip("/")) if method == "POST" else None
        if kind is None:
            raise RefusedError(404, "Not found.")
        if kind == "upload":
            await self._upload(scope, receive, send)
            return
        body = await self._body(receive)
        if kind == "small":
            body = _strict(body)
        else:
            body = json.dumps(self._checked(body, only_image=kind == "read")).encode()
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        rest = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> dict[str, Any]:
            return rest.pop() if rest else await receive()

        await self.app(scope, again, send)

    def _check_path(self, path: str) -> None:
        try:
            uploaded_file({"path": path if os.path.isabs(path) else f"/{path}"})  # noqa: PTH117
        except UnreadableImageError as error:
            raise RefusedError(403, str(error)) from None

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("",))[0]
        of_one = self.uploads_of.setdefault(address, asyncio.Semaphore(UPLOADS_OF_ONE))
        async with of_one, self.uploads:
            await asyncio.to_thread(prune, self.own_files)
            try:
                await self.app(scope, _limited(receive, (MEGABYTES + 1) * 2**20), send)
            except TypeError:  # from Gradio, for a form without a file
                raise RefusedError(422, "The request has no file.") from None

    @staticmethod
    async def _body(receive: Receive) -> bytes:
        limited, body, more = _limited(receive, SMALL), b"", True
        while more:
            message = await limited()
            if message["type"] != "http.request":
                raise RefusedError(400, "The request broke off.")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        return body

    def _checked(self, body: bytes, only_image: bool) -> dict[str, Any]:
        """What a call is made of, without anything that the page does not send."""
        try:
            call = json.loads(body)
            [value] = call["data"]
        except (ValueError, TypeError, LookupError, RecursionError):
            raise RefusedError(422, 'The request is not JSON of the form {"data": [image]}.') from None
        checked: dict[str, Any] = {}
        session = call.get("session_hash")
        if session is not None:
            if not isinstance(session, str) or not re.fullmatch(r"[\w-]{1,64}", session):
                raise RefusedError(422, "session_hash is not a name.")
            if self.waiting(session) >= UNREAD:
                raise RefusedError(429, "Fetch the answers to the requests before.")
            checked["session_hash"] = session
        takes: str | int = "image"
        if not only_image:
            number = call.get("fn_index")
            if type(number) is not int or number not in self.inputs:
                raise RefusedError(422, "fn_index is not a function of this page.")
            takes, checked["fn_index"] = self.inputs[number], number
            if type(call.get("trigger_id")) is int:
                checked["trigger_id"] = call["trigger_id"]
        if isinstance(takes, int):
            if type(value) is not int or not 0 <= value < takes:
                raise RefusedError(422, "The example does not exist.")
        elif value is not None:
            try:
                value = {"path": str(uploaded_file(value)), "meta": {"_type": "gradio.FileData"}}
            except UnreadableImageError as error:
                raise RefusedError(422, str(error)) from None
        return {**checked, "data": [value]}


def _strict(body: bytes) -> bytes:
    """JSON without the numbers and halves of characters that an answer cannot repeat."""
    try:
        return json.dumps(json.loads(body), allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise RefusedError(422, "The request is not JSON.") from None


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive`, until more than `limit` bytes came, none came for `IDLE` seconds, or `PATIENCE` is over."""
    received, complete, deadline = 0, False, time.monotonic() + PATIENCE

    async def limited() -> dict[str, Any]:
        nonlocal received, complete
        if complete:  # what comes now is that the visitor has left, at some time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(min(IDLE, deadline - time.monotonic()), 0.001))
        except TimeoutError:
            raise RefusedError(408, "The request took too long to arrive.") from None
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > limit:
            raise RefusedError(413, f"The request has more than the {limit} bytes that are taken.")
        return message

    return limited


__all__ = ["Gate"]
