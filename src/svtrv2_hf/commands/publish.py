# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 publish`."""

from typing import Annotated

import typer

from .options import option


LICENSE = "License of the weights for a new card (apache-2.0, cc-by-4.0, ...)."
HANDLER = "Add a handler.py for Inference Endpoints of Hugging Face."
DRY_RUN = "Check the folder and write the card without uploading."


def publish(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder of a saved model.")],
    repo: Annotated[str, option("OWNER/NAME", "Repository on the Hub, which is created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help=DRY_RUN)] = False,
    license: Annotated[str | None, option("NAME", LICENSE)] = None,
    language: Annotated[str | None, option("CODE", "Language of the text for a new card (en, zh, ...).")] = None,
    results: Annotated[str | None, option("FILE.json", "Results of svtrv2 evaluate for a new card.")] = None,
    sample: Annotated[str | None, option("IMAGE", "Image to test the model with.", "a rendered one")] = None,
    handler: Annotated[bool, typer.Option("--handler", help=HANDLER)] = False,
) -> int:
    """Check a saved model and upload it to the Hub.

    Checks that the folder is complete, contains no pickles, has a card, and that the model loads and predicts in an
    environment without this package. Writes a model card if the folder has none. Run the command again to resume an
    interrupted upload.
    """
    from ..hub.publish import run

    return run(folder, repo, private, dry_run, license, language, results, sample, handler)
