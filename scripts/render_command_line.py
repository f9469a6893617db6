#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Renders `docs/api/command_line.md` from what the commands say of themselves; run it when an option changes."""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest.mock import patch

from svtrv2_hf.cli import main


PAGE = Path(__file__).parents[1] / "docs" / "api" / "command_line.md"
TRAIN = (
    "`svtrv2 train [RECIPE.yaml] [--name value ...]` takes its arguments from a recipe and from what follows it. They are those "
    "of [training](training.md) and those of transformers' `TrainingArguments`; `svtrv2 train --help` lists all."
)


def page() -> str:
    """The page: what `--help` prints, command by command."""
    overview = told([])
    parts = ["<!-- rendered by scripts/render_command_line.py -->", "# Command line", code(overview)]
    for command in re.findall(r"^    (\w+)(?: |$)", overview, flags=re.MULTILINE):
        parts += [f"## svtrv2 {command}", TRAIN if command == "train" else code(told([command]))]
    return "\n\n".join(parts) + "\n"


def told(command: list[str]) -> str:
    """What a command's `--help` prints, as Python 3.13 and later write options that have two names."""
    with (
        patch.dict(os.environ, COLUMNS="88", NO_COLOR="1"),
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.suppress(SystemExit),
    ):
        main([*command, "--help"])
    return re.sub(r"(--[\w-]+) (\S+), (--[\w-]+) \2", r"\1, \3 \2", output.getvalue())


def code(text: str) -> str:
    """A block of text as it is."""
    return f"```text\n{text.strip()}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
