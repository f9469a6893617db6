#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Render `docs/api/command_line.md` from the help of the commands. Run this script after you change an option."""

import contextlib
import io
import os
from pathlib import Path
from unittest.mock import patch

from svtrv2_hf.cli import app, main


PAGE = Path(__file__).parents[1] / "docs" / "api" / "command_line.md"
TRAIN = (
    "`svtrv2 train [RECIPE.yaml] [--name value]...` takes its options from a recipe and from the command line. They are "
    "those of [training](training.md) and those of `TrainingArguments` of transformers; `svtrv2 train --help` lists all. "
    "`--max-steps` is the same as `--max_steps`."
)


def page() -> str:
    """Return the page: the overview and the help of each command."""
    parts = ["<!-- rendered by scripts/render_command_line.py -->", "# Command line", code(help_of())]
    for command in app.registered_commands:
        name = getattr(command.callback, "__name__", "")
        parts += [f"## svtrv2 {name}", TRAIN if name == "train" else code(help_of(name))]
    return "\n\n".join(parts) + "\n"


def help_of(*command: str) -> str:
    """Return the help of a command, 90 columns wide."""
    with patch.dict(os.environ, COLUMNS="92"), contextlib.redirect_stdout(io.StringIO()) as output:
        main([*command, "--help"])
    return output.getvalue()


def code(text: str) -> str:
    """Return a code block."""
    return f"```text\n{text.strip()}\n```"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
