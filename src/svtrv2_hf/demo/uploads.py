# SPDX-License-Identifier: Apache-2.0
"""Where the page keeps the files that visitors send: a folder of its own, of limited size, deleted at the end."""

import os
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ..image_loading_svtrv2 import UnreadableImageError


MEGABYTES = 20  # of the largest file that is taken
SECONDS = 600  # that a file is kept
KEPT_BYTES = 200 * 2**20  # of all files; the oldest are deleted first
KEPT_FILES = 1000

_folder: Any = None  # held, for it is deleted with the object


@cache
def upload_folder() -> Path:
    """The folder for what is sent to this process. Gradio finds it by its environment variable."""
    global _folder
    _folder = tempfile.TemporaryDirectory(prefix="svtrv2-demo-", dir=os.environ.get("GRADIO_TEMP_DIR"))
    folder = Path(_folder.name).resolve()
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return folder


def uploaded_file(value: Any) -> Path:
    """The file that a request means; only files in the upload folder can be meant.

    Raises:
        UnreadableImageError: it is not there, for whatever reason; the message is for whoever sent the request.
    """
    name = value.get("path") if isinstance(value, dict) else None
    if isinstance(name, str) and "\0" not in name:
        with suppress(ValueError):  # of characters that no file name can have
            path = os.path.realpath(name)
            if Path(path).is_relative_to(upload_folder()) and os.path.isfile(path):  # noqa: PTH113  Path's raises for long ones
                return Path(path)
    raise UnreadableImageError("The image is not on this page, or not any more: send it again.")


def prune(keep: frozenset[Path]) -> None:
    """Deletes old files, and the oldest of the others until the rest is within the limits.

    Args:
        keep: files of the page itself, which stay.
    """
    found = []
    for path in upload_folder().rglob("*"):
        try:
            status = path.lstat()
            if path.is_dir():
                path.rmdir()  # fails unless it is empty
            elif path not in keep:
                found.append((status.st_mtime, status.st_size, path))
        except OSError:  # not empty, or deleted in the meantime
            continue
    size, count = sum(size for _, size, _ in found), len(found)
    for modified, bytes_of_file, path in sorted(found):
        if size <= KEPT_BYTES and count <= KEPT_FILES and modified > time.time() - SECONDS:
            return
        path.unlink(missing_ok=True)
        size, count = size - bytes_of_file, count - 1
