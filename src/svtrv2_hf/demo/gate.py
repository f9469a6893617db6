# SPDX-License-Identifier: Apache-2.0
"""Middleware that passes only the requests of the page and its endpoint to Gradio.

Gradio has many other routes, such as proxies, recordings, and calls that bypass the queue, which anyone can call with bodies of any
size and form.
"""

import asyncio
import json
import os
import re
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from ..console import warn
from ..image_loading_svtrv2 import UnreadableImageError
from .uploads import MEGABYTES, prune, upload_folder, uploaded_file


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
SMALL = 2**16  # maximum size of a body without a file, in bytes
UPLOADS = 16  # uploads at the same time; others wait
UPLOADS_PER_ADDRESS = 4
PATIENCE = 60  # maximum duration of a request in seconds
IDLE = 10  # maximum time without a byte in seconds
UNREAD = 8  # maximum number of answers that a visitor has not fetched


class Gate:
    """ASGI middleware that checks requests.

    Args:
        app: the application.
        inputs: the input of each function of the page, by its number: "image", or the number of examples.
        waiting: a function that returns the number of answers that a session has not fetched.
    """

    def __init__(self, app: Any, inputs: Mapping[int, str | int], waiting: Callable[[str], int]):
        self.app, self.inputs, self.waiting = app, inputs, waiting
        self.own_files = frozenset(path for path in upload_folder().rglob("*") if path.is_file())
        self.uploads = asyncio.Semaphore(UPLOADS)
        self.uploads_of: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request of the page to the application, and answer others with an error."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        error: HTTPException | None = None
        try:
            if scope["type"] != "http":
                raise HTTPException(404)
            await self._pass(scope, receive, answer)
        except HTTPException as refusal:
            error = refusal
        except ClientDisconnect:  # not worth a log line
            return
        except Exception as failure:  # requests that Gradio cannot handle are not worth a traceback
            warn(f"{scope['method']} {scope['path']} failed: {failure!r}")
            error = HTTPException(400, "The request could not be answered.")
            if started:
                with suppress(Exception):  # the end of the answer, for which the server would wait
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        if error and not started:
            await JSONResponse({"detail": error.detail}, error.status_code)(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if method in ("GET", "HEAD"):
            if path.startswith(FILE):
                file = path.removeprefix(FILE)
                _uploaded({"path": file if os.path.isabs(file) else f"/{file}"}, 403)  # noqa: PTH117
            elif not GET.fullmatch(path):
                raise HTTPException(404)
            await self.app(scope, receive, send)
            return
        kind = POST.get(path.rstrip("/")) if method == "POST" else None
        if kind is None:
            raise HTTPException(404)
        if kind == "upload":
            await self._upload(scope, receive, send)
            return
        content = await Request(scope, _limited(receive, SMALL)).body()
        try:
            call = json.loads(content)
            if kind != "small":
                call = self._checked(call, only_image=kind == "read")
            # without numbers and halves of characters that JSON cannot represent, so that an answer can repeat them
            body = json.dumps(call, allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, RecursionError):
            raise HTTPException(422, "The request is not JSON.") from None
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        length = (b"content-length", str(len(body)).encode())
        await self.app({**scope, "headers": [*headers, length]}, replay, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = (scope.get("client") or ("",))[0]
        of_address = self.uploads_of.setdefault(address, asyncio.Semaphore(UPLOADS_PER_ADDRESS))
        async with of_address, self.uploads:
            await asyncio.to_thread(prune, self.own_files)
            try:
                await self.app(scope, _limited(receive, (MEGABYTES + 1) * 2**20), send)
            except TypeError:  # from Gradio, if the form has no file
                raise HTTPException(422, "The request has no file.") from None

    def _checked(self, call: Any, only_image: bool) -> dict[str, Any]:
        """Return a call with only the values that the page sends."""
        try:
            [value] = call["data"]
        except (ValueError, TypeError, LookupError):
            raise HTTPException(422, 'The request does not have the form {"data": [image]}.') from None
        checked: dict[str, Any] = {}
        session = call.get("session_hash")
        if session is not None:
            if not isinstance(session, str) or not re.fullmatch(r"[\w-]{1,64}", session):
                raise HTTPException(422, "session_hash is not a name.")
            if self.waiting(session) >= UNREAD:
                raise HTTPException(429, "Fetch the answers to the previous requests first.")
            checked["session_hash"] = session
        expected: str | int = "image"
        if not only_image:
            number = call.get("fn_index")
            if type(number) is not int or number not in self.inputs:
                raise HTTPException(422, "fn_index is not a function of this page.")
            expected, checked["fn_index"] = self.inputs[number], number
            if type(call.get("trigger_id")) is int:
                checked["trigger_id"] = call["trigger_id"]
        if isinstance(expected, int):
            if type(value) is not int or not 0 <= value < expected:
                raise HTTPException(422, "The example does not exist.")
        elif value is not None:
            value = {"path": _uploaded(value, 422), "meta": {"_type": "gradio.FileData"}}
        return {**checked, "data": [value]}


def _uploaded(value: Any, status: int) -> str:
    """Return the path of an uploaded file; if it does not exist, the answer is an error with the status."""
    try:
        return str(uploaded_file(value))
    except UnreadableImageError as error:
        raise HTTPException(status, str(error)) from None


def _limited(receive: Receive, limit: int) -> Receive:
    """Limit the size of a body to `limit` bytes, and its duration by `IDLE` and `PATIENCE`."""
    received, complete, deadline = 0, False, time.monotonic() + PATIENCE

    async def limited() -> Message:
        nonlocal received, complete
        if complete:  # the next message is the disconnection of the visitor, at any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(min(IDLE, deadline - time.monotonic()), 0.001))
        except TimeoutError:
            raise HTTPException(408, "The request took too long to arrive.") from None
        received += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if received > limit:
            raise HTTPException(413, f"The request is larger than {limit} bytes.")
        return message

    return limited
