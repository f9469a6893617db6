# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 demo`."""

from typing import Annotated

from .options import Backend, FileName, extra, number, option


def demo(
    model: Annotated[
        list[str], option("MODEL", "Folder or Hub id of a model; repeat to compare two.", "the bundled checkpoint")
    ] = ["default"],  # noqa: B006
    host: Annotated[
        str | None,
        option("ADDRESS", "Address to listen on; 0.0.0.0 allows other machines.", "this machine only"),
    ] = None,
    port: Annotated[int | None, number("Port to listen on.", "the first free one from 7860")] = None,
    export: Annotated[
        str | None, option("FOLDER", "Instead of serving it, write the page as a Space with models and code.")
    ] = None,
    backend: Backend = "torch",
    file_name: FileName = None,
) -> int:
    """Recognize text in the browser, or export the page as a Space.

    Serves a page on which you drop the image of a word or a line, or take it with the camera. It shows the position
    and the score of each character. Stop it with Ctrl-C.
    """
    with extra("demo", "The demo"):
        from ..demo.page import serve
        from ..demo.space import export_space
    from transformers.utils import logging

    if export is not None and backend != "torch":
        raise ValueError(f"A Space runs torch: omit --backend {backend} or --export.")
    if len(model) > 2:
        raise ValueError(f"The page compares two models at most, not {len(model)}: {', '.join(model)}.")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if export is None:
        serve(model, host, port, backend=backend, file_name=file_name)
    else:
        export_space(model, export)
        print(
            f"Wrote {export}. Run it with python {export}/app.py; share it with "
            f"hf upload OWNER/NAME {export} . --repo-type space"
        )
    return 0
