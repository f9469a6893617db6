# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 demo`."""

from collections.abc import Sequence

from transformers.utils import logging

from .page import serve
from .space import export_space


def run(model: Sequence[str], host: str | None = None, port: int | None = None, export: str | None = None) -> int:
    """Serve the page until Ctrl-C, or write it to the folder `export`.

    Raises:
        ValueError: there are more than two models, or the folder to write is not empty.
        OSError: a model is not found, or the port is in use.
    """
    if len(model) > 2:
        raise ValueError(f"The page compares two models at most, not {len(model)}: {', '.join(model)}.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if export is None:
        serve(model, host, port)
    else:
        export_space(model, export)
        print(
            f"Wrote {export}. Run it with python {export}/app.py; share it with hf upload OWNER/NAME {export} . --repo-type space"
        )
    return 0
