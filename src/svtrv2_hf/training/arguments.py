# SPDX-License-Identifier: Apache-2.0
"""The arguments of a training run, from a recipe and the command line."""

import json
import os
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import HfArg
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_utils import SchedulerType
from transformers.utils.generic import ExplicitEnum

from ..configuration_svtrv2 import PRESETS
from ..evaluation.protocols import SUMMARY, EvaluationProtocol
from ..paths import is_recipe
from ..sources import summary


# Arguments of transformers that this trainer cannot honor, by the reason; rendered as a table in docs/training.md.
NOT_SUPPORTED = {
    "CTC does not assign a class to each frame that could be smoothed": ("label_smoothing_factor",),
    "the loss is always the mean over the samples of all processes": ("average_tokens_across_devices",),
    "training stops if the loss is not finite, which the filter would hide": ("logging_nan_inf_filter",),
    "the model has no token embeddings": ("neftune_noise_alpha",),
    "Liger has no kernels for this model": ("use_liger_kernel",),
    "a second attempt with smaller batches would train on other data": ("auto_find_batch_size",),
    "each batch consists of random samples of one image size": ("train_sampling_strategy",),
    "the data are an endless stream without a last batch": ("dataloader_drop_last",),
    "the position in the data is restored, which requires batches in their order": (
        *("ignore_data_skip", "dataloader_in_order"),
    ),
    "SIGTERM saves a checkpoint anyway": ("enable_jit_checkpoint",),
    "checks, averages and checkpoints need all weights in each process, and the model is small": (
        *("fsdp", "fsdp_config", "deepspeed", "parallelism_config"),
    ),
    "the model is evaluated with the weights that are saved; bf16 evaluates in bfloat16": (
        *("bf16_full_eval", "fp16_full_eval"),
    ),
    "evaluation always reads and compares texts": ("prediction_loss_only",),
    "processes evaluate different numbers of batches, and only logits and labels are collected": (
        *("batch_eval_metrics", "eval_do_concat_batches", "include_for_metrics"),
    ),
}
METRIC_SCHEDULES = ("reduce_lr_on_plateau", "greedy")
RANGES: dict[str, tuple[Callable[[float], bool], Sequence[str]]] = {
    "1 or more": (lambda value: value >= 1, [
        "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    ]),
    "0 or more": (lambda value: value >= 0, [
        "learning_rate", "weight_decay", "warmup_steps", "max_grad_norm", "frame_label_steps", "dataloader_num_workers",
    ]),
    "1 or more, or -1 for --num_train_epochs": (lambda value: value >= 1 or value == -1, ["max_steps"]),
    "more than 0": (lambda value: value > 0, ["num_train_epochs", "max_hours"]),
    "0 or more and less than 1": (lambda value: 0 <= value < 1, ["ema_decay"]),
}  # fmt: skip
# Defaults of arguments for a checkpoint; from scratch, they are those of the dataclasses.
FINE_TUNING = {
    "per_device_train_batch_size": 16,
    "learning_rate": 3e-4,
    "num_train_epochs": 10.0,
    "min_steps": 600,
    "eval_steps": 0.1,  # of all steps
}


@dataclass
class DataAndModelArguments:
    """The model to train, and its data.

    Raises:
        ValueError: an argument is out of its range.
    """

    train_data: list[str] = HfArg(
        help=f"Sources, optionally followed by options: PLACE?weight=2&name=NAME. {summary()}".replace("%", "%%")
    )
    eval_data: list[str] = HfArg(default_factory=list, help="Sources to evaluate on during training.")
    protocol: EvaluationProtocol | None = HfArg(
        default=None,
        help=f"Characters to compare with the labels of the evaluation datasets. {SUMMARY}. Default: exact; for a dataset "
        "with the name of a benchmark, that of the benchmark.",
    )
    model: str = HfArg(
        default="tiny",
        help="A model size (nano, tiny, small, base) to train from scratch; or a checkpoint to fine-tune: a folder, a Hub "
        "id, or default for the bundled checkpoint.",
    )
    charset: str | None = HfArg(
        default=None,
        help="File with one character per line. A checkpoint keeps its weights of characters that it shares with it. "
        "`svtrv2 charset` writes it from labels. Default: the charset of the checkpoint, or the 95 printable ASCII "
        "characters.",
    )
    use_guidance: bool | None = HfArg(default=None, help="Train with the guidance branch. Default: as the checkpoint.")
    freeze_stages: int = HfArg(default=0, help="Freeze the stem and the first stages of the backbone (1 to 3).")
    max_ratio: int | None = HfArg(
        default=None, help="Maximum width / height of images. Default: the checkpoint's, or 12."
    )
    max_label_length: int | None = HfArg(
        default=None,
        help="Skip, and count, samples with longer labels. Without it, labels may have as many characters as their image "
        "has frames.",
    )
    unknown_characters: Literal["error", "drop_sample", "drop_character"] = HfArg(
        default="error",
        help="Handling of labels with characters outside the charset: stop, skip the sample, or remove the character; "
        "skipped samples and removed characters are counted.",
    )
    normalize: Literal["none", "nfc", "nfkc"] = HfArg(
        default="none", help="Unicode normalization form of the charset file and of all labels, including --eval_data."
    )
    augment_operations: int = HfArg(default=3, help="Random augmentation operations per image; 0 disables them.")
    augment_magnitude: float = HfArg(default=5.0, help="Strength of the augmentation operations, 0 to 10.")
    min_steps: int = HfArg(
        default=0, help="Minimum number of steps, unless --max_steps or --num_train_epochs is given."
    )

    def __post_init__(self) -> None:
        if self.max_label_length is not None and self.max_label_length < 1:
            raise ValueError(f"--max_label_length must be 1 or more, not {self.max_label_length}.")
        if self.min_steps < 0:
            raise ValueError(f"--min_steps must be 0 or more, not {self.min_steps}.")


class Schedule(ExplicitEnum):
    """The schedule of the paper, in addition to those of transformers in [`SchedulerType`]."""

    ONE_CYCLE = "one_cycle"


@dataclass
class SVTRv2TrainingArguments(TrainingArguments):
    """The arguments of transformers with the paper's values as defaults (section 4.1, for 4 x 256 images per step).

    Raises:
        ValueError: an argument is not supported by [`SVTRv2Trainer`] or out of its range.
    """

    output_dir: str = HfArg(default="trainer_output", help="Folder for the model, and for checkpoints to resume from.")
    num_train_epochs: float = HfArg(default=20.0, help="Passes over the training data, unless --max_steps is given.")
    learning_rate: float = HfArg(default=6.5e-4, help="Peak learning rate of the schedule.")
    lr_scheduler_type: str = HfArg(
        default="one_cycle",
        help="one_cycle, the schedule of the paper; or one of transformers: linear, cosine, constant_with_warmup, "
        "warmup_stable_decay, and so on.",
    )
    optim: str = HfArg(
        default="adamw_torch", help="An optimizer of transformers: adamw_torch, adamw_torch_fused, sgd, ..."
    )
    weight_decay: float = HfArg(
        default=0.05, help="Weight decay of weights with two or more dimensions, except in stem and downsampling."
    )
    warmup_steps: float = HfArg(default=0.075, help="Steps up to the peak; a value below 1 is a share of all steps.")
    max_grad_norm: float = HfArg(default=0.0, help="Maximum gradient norm; 0 disables clipping.")
    per_device_train_batch_size: int = HfArg(
        default=256, help="Batch size for images of up to 32 x 128 pixels; batches of larger images are smaller."
    )
    per_device_eval_batch_size: int = HfArg(default=64, help="Batch size for evaluation.")
    logging_steps: float = HfArg(default=50, help="Number of steps between two logs.")
    eval_strategy: str = HfArg(
        default="steps", help="steps: evaluate every --eval_steps and at the end; epoch: every epoch; no: at the end."
    )
    eval_steps: float | None = HfArg(
        default=500, help="Number of steps between two evaluations; a value below 1 is a share of all steps."
    )
    metric_for_best_model: str | None = HfArg(
        default="word_accuracy",
        help="The metric that selects the best model: word_accuracy, cer, one_minus_ned or loss, which are means over the "
        "evaluation sets; or SET_word_accuracy and so on for a single set.",
    )
    logging_nan_inf_filter: bool = HfArg(
        default=False, help="Do not change: training stops if the loss is not finite."
    )
    ignore_data_skip: bool = HfArg(default=True, help="Do not change: the position in the data is restored anyway.")
    hub_token: str | None = HfArg(default=None, help="Token for the Hub; `hf auth login` is safer.")
    ddp_find_unused_parameters: bool | None = HfArg(default=False, help="Do not change: all parameters are used.")
    save_total_limit: int | None = HfArg(default=2, help="Number of checkpoints to keep.")
    ema_decay: float | None = HfArg(
        default=None,
        help="Decay of an exponential moving average of the weights, which is then the model to evaluate and save; "
        "usually 0.999 to 0.9999.",
    )
    max_hours: float | None = HfArg(default=None, help="Save a checkpoint and stop after this number of hours.")
    frame_label_steps: int = HfArg(
        default=0,
        help="Only for synthetic text: number of first steps that also learn from the positions of characters, which "
        "speeds up CTC; 600 are enough.",
    )
    resume_inexactly: bool = HfArg(default=False, help="Resume although data or settings have changed.")

    def __post_init__(self) -> None:
        if self.hub_token:
            # huggingface_hub reads the token from the environment. As an argument, it would be pickled into each checkpoint
            # and uploaded with it.
            os.environ["HF_TOKEN"] = self.hub_token
            self.hub_token = None
        defaults = {argument.name: argument for argument in fields(self)}
        for reason, names in NOT_SUPPORTED.items():
            for name in names:
                factory = defaults[name].default_factory
                default = defaults[name].default if factory is MISSING else factory()
                if getattr(self, name) not in (default, None):
                    raise ValueError(f"--{name} is not supported: {reason}. Omit it.")
        for requirement, (is_valid, limited) in RANGES.items():
            for name in limited:
                value = getattr(self, name)
                if value is not None and not is_valid(value):
                    raise ValueError(f"--{name} must be {requirement}, not {value}.")
        schedule = str(getattr(self.lr_scheduler_type, "value", self.lr_scheduler_type))
        kinds = ["one_cycle", *(kind.value for kind in SchedulerType)]
        supported = [kind for kind in kinds if kind not in METRIC_SCHEDULES]
        if schedule not in supported:
            reason = f"it is not one of {', '.join(supported)}"
            if schedule in METRIC_SCHEDULES:
                reason = "an evaluation may be postponed until training resumes, and the schedule would depend on it"
            raise ValueError(f"--lr_scheduler_type {schedule} is not supported: {reason}.")
        one_cycle = schedule == "one_cycle"
        if one_cycle:  # transformers would reject it
            self.lr_scheduler_type = SchedulerType.LINEAR
        super().__post_init__()
        if one_cycle:
            self.lr_scheduler_type = Schedule.ONE_CYCLE
        if self.fp16 and self.device.type == "cpu":
            raise ValueError("--fp16 requires a GPU. On a CPU, use --bf16 True.")
        available = get_available_reporting_integrations()
        if missing := [name for name in self.report_to if name not in available]:
            raise ValueError(f"--report_to {' '.join(missing)}: not installed, or not one of {', '.join(available)}.")

    @classmethod
    def complete(cls, args: TrainingArguments | None) -> "SVTRv2TrainingArguments":
        """Return the arguments for [`SVTRv2Trainer`]: plain `TrainingArguments` keep their values, others have the defaults.

        Raises:
            ValueError: the arguments are of another class, or one of them is not supported.
        """
        if args is None or isinstance(args, cls):
            return cls() if args is None else args
        if type(args) is not TrainingArguments:
            raise ValueError(
                f"args must be SVTRv2TrainingArguments or TrainingArguments, not {type(args).__name__}, whose other arguments "
                "SVTRv2Trainer would ignore."
            )
        values = {field.name: getattr(args, field.name) for field in fields(args) if field.init}
        # defaults of transformers that this trainer does not need
        return cls(**{**values, "logging_nan_inf_filter": False, "ignore_data_skip": True})


class _Parser(HfArgumentParser):
    """A parser that raises errors instead of printing the usage of all arguments."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)  # each argument also has a name with dashes
        raise ValueError(f"{message.removeprefix('argument ')}.")


def _names() -> list[str]:
    return [
        field.name for kind in (DataAndModelArguments, SVTRv2TrainingArguments) for field in fields(kind) if field.init
    ]


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that maps names of arguments to values.

    Raises:
        ValueError: the file is not such a mapping, or an argument does not exist.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The recipe {path} is not valid YAML: {error}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"The recipe {path} must map names of arguments to values.")
    if unknown := [name for name in recipe if str(name).replace("-", "_") not in _names()]:
        similar = get_close_matches(str(unknown[0]), _names(), 1)
        hint = f" Did you mean {similar[0]}?" if similar else ""
        raise ValueError(f"The recipe {path} has unknown arguments: {', '.join(map(str, unknown))}.{hint}")
    return recipe


def recipe_words(path: str | Path) -> list[str]:
    """Return a recipe as words of a command line; empty values are the defaults."""
    words = []
    for name, value in read_recipe(path).items():
        if value not in (None, []):
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *(json.dumps(v) if isinstance(v, dict) else str(v) for v in values)]
    return words


def parse_arguments(argv: Sequence[str]) -> tuple[DataAndModelArguments, SVTRv2TrainingArguments]:
    """Parse `[RECIPE.yaml] [--name value ...]`; the command line overrides the recipe, and the recipe the defaults.

    The defaults in `FINE_TUNING` apply to all models that are not a size to train from scratch.

    Raises:
        ValueError: the recipe is not a mapping of names to values, or an argument does not exist, is missing, invalid, not
            supported or out of its range.
    """
    arguments = list(argv)
    for previous, word in pairwise(arguments):
        if is_recipe(word) and ("=" in previous or not previous.startswith("-")):
            raise ValueError(f"A recipe must be the first argument: svtrv2 train {word} --name value ...")
    if arguments and is_recipe(arguments[0]):
        arguments = [*recipe_words(arguments[0]), *arguments[1:]]
    parser = _Parser((DataAndModelArguments, SVTRv2TrainingArguments), prog="svtrv2 train", allow_abbrev=False)
    defaults = {name: parser.get_default(name) for name in FINE_TUNING}
    parser.set_defaults(
        **{name: f"{FINE_TUNING[name]} for a checkpoint, {defaults[name]} from scratch" for name in FINE_TUNING}
    )
    parsed, unknown = parser.parse_known_args(arguments, Namespace(**dict.fromkeys(_names(), MISSING)))
    if unknown:
        word = unknown[0].partition("=")[0]  # without the value, which may be secret
        similar = get_close_matches(word.lstrip("-").replace("-", "_"), _names(), 1)
        hint = f"did you mean --{similar[0]}?" if similar else "svtrv2 train --help lists all."
        raise ValueError(f"{word} is not an argument of svtrv2 train: {hint}")
    given = {name: value for name, value in vars(parsed).items() if value is not MISSING}
    if given.get("model", DataAndModelArguments.model) not in PRESETS:
        given = {**FINE_TUNING, **({"min_steps": 0} if "num_train_epochs" in given else {}), **given}
    return parser.parse_dict(given)


def parse_data_arguments(argv: Sequence[str]) -> DataAndModelArguments:
    """Parse `[--name value ...]`, where `--train_data` is optional, and ignore the arguments of transformers.

    Raises:
        ValueError: a value is invalid.
    """
    parser = _Parser(DataAndModelArguments, allow_abbrev=False)
    [chosen, _] = parser.parse_args_into_dataclasses(["--train_data", "", *argv], return_remaining_strings=True)
    chosen.train_data = [source for source in chosen.train_data if source]
    return chosen
