# SPDX-License-Identifier: Apache-2.0
"""The arguments of a training run, from a recipe and the command line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments


@dataclass
class DataAndModelArguments:
    """What is trained, and on what."""

    train_data: list[str] = field(metadata={"help": "Folders of images with a labels.tsv (file TAB text)."})
    eval_data: list[str] = field(default_factory=list, metadata={"help": "Folders to read when training is done."})
    model: str = field(
        default="tiny", metadata={"help": "A size (nano, tiny, small, base) to train from scratch, or a saved folder."}
    )
    charset: str | None = field(
        default=None,
        metadata={
            "help": "File with one character a line, for a new model. Default: the 94 printable ASCII characters."
        },
    )
    max_ratio: int | None = field(
        default=None, metadata={"help": "Widest image in units of its height. Default: the model's, or 12."}
    )
    max_label_length: int = field(
        default=25, metadata={"help": "Samples with longer labels are left out, and counted."}
    )
    drop_unknown_characters: bool = field(
        default=False,
        metadata={
            "help": "Leave characters outside the charset out of the labels, instead of stopping before training."
        },
    )


@dataclass
class SVTRv2TrainingArguments(TrainingArguments):
    """transformers' own arguments, with the paper's values as defaults (section 4.1, for 4 x 256 images a step)."""

    learning_rate: float = field(default=6.5e-4, metadata={"help": "Peak of the one-cycle schedule."})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on weights of two and more dimensions."})
    warmup_steps: float = field(
        default=0.075, metadata={"help": "Steps up to the peak; below 1, a share of all steps."}
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0 is none."})
    per_device_train_batch_size: int = field(
        default=256, metadata={"help": "Images a batch of 32 x 128 pixels; larger images make smaller batches."}
    )
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines."})
    ignore_data_skip: bool = field(default=True, metadata={"help": "Keep: SVTRv2Trainer passes over the data itself."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    report_to: str = field(
        default="none", metadata={"help": "Where to log besides the terminal: tensorboard, wandb, ..."}
    )


def parse_arguments(argv: Sequence[str]) -> tuple[DataAndModelArguments, SVTRv2TrainingArguments]:
    """`[RECIPE.yaml] [--name value ...]`: what the command line says goes before what the recipe says.

    Raises:
        ValueError: the recipe is no mapping of names to values.
    """
    arguments = list(argv)
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        recipe = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
        if not isinstance(recipe, dict):
            raise ValueError(f"{arguments[0]} must map the names of arguments to values.")
        arguments = [*_as_command_line(recipe), *arguments[1:]]
    parser = HfArgumentParser((DataAndModelArguments, SVTRv2TrainingArguments), prog="train.py")
    return parser.parse_args_into_dataclasses(arguments)


def _as_command_line(recipe: dict[str, Any]) -> list[str]:
    words = []
    for name, value in recipe.items():
        words.append(f"--{name}")
        words.extend(str(word) for word in (value if isinstance(value, list) else [value]))
    return words
