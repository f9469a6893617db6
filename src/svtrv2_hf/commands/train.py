# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 train`, whose options are parsed by HfArgumentParser of transformers."""

from typing import Annotated

import typer

from .options import extra


def train(arguments: Annotated[list[str] | None, typer.Argument()] = None) -> int:
    """Train or fine-tune a model: svtrv2 train [RECIPE.yaml] [--name value]..."""
    with extra("train", "Training"):
        from ..training.train import main
    main(arguments or [])
    return 0
