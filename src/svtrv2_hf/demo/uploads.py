# SPDX-License-Identifier: Apache-2.0
"""The folder of uploaded files: temporary, of limited size, deleted when the process ends."""

import os
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from ..image_loading_svtrv2 import UnreadableImageError


MEGABYTES = 20  # maximum size of a file
SECONDS = 600  # time until a file is deleted
KEPT_BYTES = 200 * 2**20  # maximum size of all files; the oldest are deleted first
KEPT_FILES = 1000


@cache
def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="svtrv2-demo-", dir=os.environ.get("GRADIO_TEMP_DIR"))
    os.environ["GRADIO_TEMP_DIR"] = os.path.realpath(directory.name)  # where Gradio writes uploads
    return directory


def upload_folder() -> Path:
    """Return the folder of the files uploaded to this process."""
    return Path(_temporary_directory().name).resolve()


def uploaded_file(value: Any) -> Path:
    """Return the path of the uploaded file that a request refers to.

    Raises:
        UnreadableImageError: it is not a file in the upload folder; the message is for the visitor.
    """
    name = value.get("path") if isinstance(value, dict) else None
    if isinstance(name, str) and "\0" not in name:
        with suppress(ValueError):  # characters that no file name can have
            path = os.path.realpath(name)
            # Path.is_file raises an error for long names
            if Path(path).is_relative_to(upload_folder()) and os.path.isfile(path):  # noqa: PTH113
                return Path(path)
    raise UnreadableImageError("The image is not on this page, or was deleted: upload it again.")


def prune(keep: frozenset[Path]) -> None:
    """Delete old files, and the oldest of the others until the rest is within the limits.

    Args:
        keep: files of the page itself, which are not deleted.
    """
    files = []
    for path in upload_folder().rglob("*"):
        try:
            status = path.lstat()
            if path.is_dir():
                path.rmdir()  # fails unless it is empty
            elif path not in keep:
                files.append((status.st_mtime, status.st_size, path))
        except OSError:  # not empty, or already deleted
            continue
    size, count = sum(size for _, size, _ in files), len(files)
    for modified, file_size, path in sorted(files):
        if size <= KEPT_BYTES and count <= KEPT_FILES and modified > time.time() - SECONDS:
            return
        path.unlink(missing_ok=True)
        size, count = size - file_size, count - 1
