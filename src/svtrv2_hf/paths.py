# SPDX-License-Identifier: Apache-2.0
"""Paths on the command line."""

import os
from pathlib import Path


_OTHER_IMAGES = {".avif", ".eps", ".heic", ".heif", ".ico", ".jxl", ".pdf", ".psd", ".svg"}


def user_path(place: str | Path) -> Path:
    """Replace `~` by the home directory; the path stays unchanged if the user is unknown, so that errors name it."""
    return Path(os.path.expanduser(place))  # noqa: PTH111 (Path.expanduser raises a RuntimeError without the path)


def is_recipe(word: str) -> bool:
    """Return whether an argument is a training recipe, by its extension."""
    return word.endswith((".yaml", ".yml"))


def images_below(folder: str, problems: list[str]) -> list[str]:
    """Return the images in a folder and its subfolders, by their extensions; append problems, such as unsupported formats."""
    from PIL import Image

    from .image_loading_svtrv2 import FORMATS

    Image.init()
    formats = Image.registered_extensions()
    supported = {suffix for suffix, name in formats.items() if name in FORMATS and name in Image.OPEN}
    errors: list[OSError] = []
    below = sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=errors.append) for name in names)
    images = [file for file in below if file.suffix.lower() in supported]
    files = [str(file) for file in images if file.is_file()]
    others = [file.name for file in below if file.suffix.lower() in _OTHER_IMAGES - supported]
    messages = [f"The folder {error.filename} cannot be listed: {error.strerror}." for error in errors]
    for file in images:
        if not file.is_file():
            reason = "not a regular file" if file.exists() else "a broken link"
            messages.append(f"{file} is {reason} and was skipped.")
    if others:
        messages.append(
            f"{len(others)} images in {folder} have unsupported formats (first: {others[0]}): convert them to PNG or JPEG."
        )
    elif not files and not messages:
        messages.append(f"No images in the folder {folder}.")
    problems += messages
    return files
