# SPDX-License-Identifier: Apache-2.0
"""Paths on the command line."""

import os
from pathlib import Path


def user_path(place: str | Path) -> Path:
    """Replace `~` by the home directory; the path stays unchanged if the user is unknown, so that errors name it."""
    return Path(os.path.expanduser(place))  # noqa: PTH111 (Path.expanduser raises a RuntimeError without the path)


def is_recipe(word: str) -> bool:
    """Return whether an argument is a training recipe, by its extension."""
    return word.endswith((".yaml", ".yml"))
