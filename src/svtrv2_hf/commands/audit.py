# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 audit`."""

from typing import Annotated

import typer

from ..paths import is_recipe
from .options import Normalization, UnknownCharacters, Workers, extra, number, option


SOURCES = (
    "Sources as in --train_data of svtrv2 train; the first one can be a training recipe (.yaml or .yml), whose data are "
    "checked with its settings."
)
MODEL = "Model to fine-tune, whose charset and maximum aspect ratio are used: a folder, a Hub id, or 'default'."
UNKNOWN = "Handling of labels with characters outside the charset."
NORMALIZE = "Unicode normalization form of the charset file and the labels."
OUTPUT = (
    "Also write the report (audit.json, audit.md), charts (audit.png) and examples of the augmentation "
    "(augmentation.png) to this folder."
)


def _recipe_first(words: list[str]) -> list[str]:
    for word in words[1:]:
        if is_recipe(word):
            raise typer.BadParameter(f"only the first argument can be a recipe, {word} cannot.")
    return words


def audit(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", callback=_recipe_first, help=SOURCES)],
    model: Annotated[str | None, option("MODEL", MODEL, "the recipe's, or none")] = None,
    charset: Annotated[
        str | None,
        option("FILE", "File with one character per line.", "the recipe's, the model's, or 95 ASCII characters"),
    ] = None,
    max_label_length: Annotated[
        int | None, number("Maximum number of characters of a label.", "the recipe's, or no limit")
    ] = None,
    max_ratio: Annotated[
        int | None, number("Maximum aspect ratio (width / height).", "the recipe's, the model's, or 12")
    ] = None,
    unknown_characters: Annotated[UnknownCharacters | None, option(None, UNKNOWN, "the recipe's, or error")] = None,
    normalize: Annotated[Normalization | None, option(None, NORMALIZE, "the recipe's, or none")] = None,
    workers: Workers = 0,
    limit: Annotated[int | None, number("Maximum number of samples of each source.", "all")] = None,
    output: Annotated[str | None, option("FOLDER", OUTPUT)] = None,
) -> int:
    """Check data before training.

    Reads the data as training does, decodes all images, counts the samples that would be skipped or repaired, and
    gives advice.

    The exit status is 0 if training would use all samples unchanged, otherwise 1, or 130 after Ctrl-C, which prints
    the report of the samples read so far.
    """
    with extra("eval", "Auditing"):
        from ..training.audit import run
    return run(
        sources,
        model=model,
        charset=charset,
        max_label_length=max_label_length,
        max_ratio=max_ratio,
        unknown_characters=unknown_characters,
        normalize=normalize,
        workers=workers,
        limit=limit,
        output=output,
    )
