# SPDX-License-Identifier: Apache-2.0
"""What `svtrv2 demo` does."""

from collections.abc import Sequence

from transformers.utils import logging

from .page import serve
from .space import export_space


def run(model: Sequence[str], host: str | None = None, port: int | None = None, export: str | None = None) -> int:
    """Serves the page until Ctrl-C, or writes it as a folder.

    Args:
        model: one folder, name on the Hub or "default"; or two, to compare them.
        host: the address to listen at.
        port: (default: the first that is free from 7860 on).
        export: a folder to write instead.

    Returns:
        0.

    Raises:
        ValueError: there are more than two models, or the folder to write is not empty.
        OSError: there is no such model, or the port is taken.
    """
    if len(model) > 2:
        raise ValueError(f"The page compares two models at most, and {len(model)} were given: {', '.join(model)}.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if export is None:
        serve(model, host, port)
    else:
        export_space(model, export)
        print(
            f"{export}: to run it, python {export}/app.py; to share it, hf upload OWNER/NAME {export} . --repo-type space"
        )
    return 0
