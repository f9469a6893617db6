# SPDX-License-Identifier: Apache-2.0
"""The arguments of a training run, from a recipe and the command line."""

import json
import os
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_available_reporting_integrations


_SCHEDULE = "the schedule is always one cycle"
_OPTIMISER = "the optimiser is always AdamW"
_ORDER = "the data are a stream whose order --seed decides"
_EVALUATION = "evaluation adds up counts, and needs no such setting"
# What the parent understands and this trainer would pass over, or fail with.
NOT_SUPPORTED = {
    "lr_scheduler_type": _SCHEDULE,
    "lr_scheduler_kwargs": _SCHEDULE,
    "optim": _OPTIMISER,
    "optim_args": _OPTIMISER,
    "optim_target_modules": _OPTIMISER,
    "label_smoothing_factor": "the loss is always CTC's, and guidance's where the model has that branch",
    "neftune_noise_alpha": "the model embeds no tokens",
    "auto_find_batch_size": "the data come in batches of a fixed size",
    "data_seed": _ORDER,
    "train_sampling_strategy": _ORDER,
    "dataloader_drop_last": "the data are an endless stream, which has no last batch",
    "dataloader_persistent_workers": "workers live as long as the stream that they read",
    "average_tokens_across_devices": "the loss is always the mean over the samples of all processes",
    "save_only_model": "a checkpoint is there to go on from, and the best recogniser lies in the output folder",
    "load_best_model_at_end": "the output folder holds the best recogniser anyway",
    "prediction_loss_only": _EVALUATION,
    "eval_accumulation_steps": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "logging_nan_inf_filter": "training stops where the loss is not a finite number",
}
NOT_NEGATIVE = (
    "learning_rate",
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "frame_label_steps",
    "dataloader_num_workers",
)


@dataclass
class DataAndModelArguments:
    """What is trained, and on what."""

    train_data: list[str] = field(
        metadata={
            "help": "Sources: a folder with labels.tsv, a list file, LMDB (also nested), imagefolder, parquet, webdataset "
            "tars, or hub:NAME; each may go on with ?weight=2&image=COLUMN&text=COLUMN and so on."
        }
    )
    eval_data: list[str] = field(default_factory=list, metadata={"help": "Sources to read during training."})
    protocol: Literal["english", "chinese"] | None = field(
        default=None,
        metadata={
            "help": "What readings must agree in: ASCII letters and digits (english), or everything but spaces (chinese); case "
            "ignored. Default: chinese if the charset has other letters or digits."
        },
    )
    model: str = field(
        default="tiny",
        metadata={
            "help": "A size (nano, tiny, small, base) to train from scratch; or a saved folder, or default, the package's own, "
            "to go on from."
        },
    )
    charset: str | None = field(
        default=None,
        metadata={
            "help": "File with one character a line. A saved model keeps what it knows of them. Default: that of the saved "
            "model, or the 94 printable ASCII characters."
        },
    )
    use_guidance: bool | None = field(
        default=None,
        metadata={"help": "Train with the semantic guidance branch. Default: as the model has it, or no."},
    )
    freeze_stages: int = field(
        default=0, metadata={"help": "Leave the stem and so many stages of the backbone as they are (1 to 3)."}
    )
    max_ratio: int | None = field(
        default=None, metadata={"help": "Widest image in units of its height. Default: the model's, or 12."}
    )
    max_label_length: int = field(
        default=25, metadata={"help": "Samples with longer labels are left out, and counted."}
    )
    unknown_characters: Literal["error", "drop_sample", "drop_character"] = field(
        default="error",
        metadata={
            "help": "What to do about characters outside the charset: stop, leave the sample out, or leave the character "
            "out of the label; counted either way."
        },
    )
    normalize: Literal["none", "nfc", "nfkc"] = field(
        default="none",
        metadata={"help": "Unicode normalization form of the charset file and of all labels, of --eval_data, too."},
    )
    augment_operations: int = field(default=3, metadata={"help": "Operations drawn for each image; 0 is none."})
    augment_magnitude: float = field(default=5.0, metadata={"help": "How strong they are, 0 to 10."})


@dataclass
class SVTRv2TrainingArguments(TrainingArguments):
    """transformers' own arguments, with the paper's values as defaults (section 4.1, for 4 x 256 images a step)."""

    num_train_epochs: float = field(
        default=20.0, metadata={"help": "Passes over the training data, where --max_steps does not tell."}
    )
    learning_rate: float = field(default=6.5e-4, metadata={"help": "Peak of the one-cycle schedule."})
    weight_decay: float = field(default=0.05, metadata={"help": "AdamW's, on weights of two and more dimensions."})
    warmup_steps: float = field(
        default=0.075, metadata={"help": "Steps up to the peak; below 1, a share of all steps."}
    )
    max_grad_norm: float = field(default=0.0, metadata={"help": "Gradient clipping; 0 is none."})
    per_device_train_batch_size: int = field(
        default=256, metadata={"help": "Images a batch of 32 x 128 pixels or less; wider images make smaller batches."}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Images a batch in evaluation."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines."})
    eval_strategy: str = field(
        default="steps", metadata={"help": "steps: evaluate every --eval_steps, and at the end; no: at the end only."}
    )
    eval_steps: float | None = field(default=500, metadata={"help": "Steps between two evaluations."})
    metric_for_best_model: str | None = field(
        default="word_accuracy",
        metadata={
            "help": "What the best model is best in: word_accuracy, one_minus_ned or loss, the mean over the sets; or that of one "
            "set, SET_word_accuracy and so on."
        },
    )
    greater_is_better: bool | None = field(
        default=None, metadata={"help": "Whether more of it is better. Default: yes, but of a loss."}
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Keep: training that diverges stops with an error."}
    )
    ignore_data_skip: bool = field(default=True, metadata={"help": "Keep: SVTRv2Trainer finds its place by itself."})
    hub_token: str | None = field(
        default=None,
        metadata={"help": "Token for the Hub. Kept in this process's environment only; `hf auth login` is safer."},
    )
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Keep: all are used."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    report_to: str = field(
        default="none", metadata={"help": "Where to log besides the terminal: tensorboard, wandb, ..."}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate and save an exponential moving average of the weights; 0.999 to 0.9999 are usual."
        },
    )
    max_hours: float | None = field(
        default=None, metadata={"help": "Save a checkpoint and stop after so many hours, to go on another time."}
    )
    frame_label_steps: int = field(
        default=0,
        metadata={
            "help": "Drawn text alone: tell in the first steps where each character stands, by which CTC learns sooner; 600 are enough."
        },
    )
    resume_inexactly: bool = field(
        default=False,
        metadata={"help": "Go on from a checkpoint although data or settings differ from those it was made with."},
    )

    def __post_init__(self) -> None:
        if self.hub_token:
            # Where huggingface_hub looks for it. Kept among the arguments, it would be pickled into each checkpoint and
            # uploaded with it.
            os.environ["HF_TOKEN"] = self.hub_token
            self.hub_token = None
        for one in fields(self):
            if one.name in NOT_SUPPORTED:
                default = one.default if one.default_factory is MISSING else one.default_factory()
                if getattr(self, one.name) not in (default, None):
                    raise ValueError(f"--{one.name} is not supported here: {NOT_SUPPORTED[one.name]}. Leave it out.")
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(self, name) == "epoch":
                raise ValueError(
                    f"--{name} epoch is not supported here: the data are an endless stream, in which no epoch ends. Use steps, and "
                    f"--{name.removesuffix('strategy')}steps."
                )
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, not {getattr(self, name)}.")
        for name in ("num_train_epochs", "max_hours"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"--{name} must be more than 0, not {getattr(self, name)}.")
        for name in NOT_NEGATIVE:
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{name} must be 0 or more, not {getattr(self, name)}.")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ValueError(f"--ema_decay must be 0 or more and less than 1, not {self.ema_decay}.")
        super().__post_init__()
        available = get_available_reporting_integrations()
        if missing := [name for name in self.report_to if name not in available]:
            raise ValueError(
                f"--report_to {' '.join(missing)}: transformers finds no package of that name to report to. It finds "
                f"{', '.join(available) or 'none'}: install what is missing, or leave it out."
            )


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A YAML file that maps names of arguments to values.

    Raises:
        ValueError: it is no such file.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {path} is no YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe {path} must map names of arguments to values.")
    return recipe


def parse_arguments(argv: Sequence[str]) -> tuple[DataAndModelArguments, SVTRv2TrainingArguments]:
    """`[RECIPE.yaml] [--name value ...]`: what the command line says goes before what the recipe says.

    Raises:
        ValueError: the recipe is no mapping of names to values; or an argument is not supported, or out of its range.
    """
    arguments = list(argv)
    if arguments and arguments[0].endswith((".yaml", ".yml")):
        arguments = [*_as_command_line(read_recipe(arguments[0])), *arguments[1:]]
    parser = HfArgumentParser((DataAndModelArguments, SVTRv2TrainingArguments), prog="train.py")
    return parser.parse_args_into_dataclasses(arguments)


def _as_command_line(recipe: dict[str, Any]) -> list[str]:
    words = []
    for name, value in recipe.items():
        if value is None or value == []:  # as if it were not there
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(json.dumps(word) if isinstance(word, dict) else str(word) for word in values)]
    return words
