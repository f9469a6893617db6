# SPDX-License-Identifier: Apache-2.0
"""Files that describe a run in its output folder: `run.json` and `learning_curve.png`."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation.provenance import provenance
from ..paths import is_recipe
from ..redaction import redact, redact_values
from .arguments import read_recipe


# Settings whose defaults depend on the model or the data, in `run.json`.
SETTINGS = ("max_steps", "per_device_train_batch_size", "learning_rate", "eval_steps")


class _RunFile(TrainerCallback):
    """A file that the main process updates after each evaluation and at the end."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if state.is_world_process_zero:
            self.write(args, state)

    on_train_end = on_evaluate

    def write(self, args: TrainingArguments, state: TrainerState) -> None:
        raise NotImplementedError


class RunRecord(_RunFile):
    """The file `run.json` in the output folder, updated after each evaluation and at the end.

    It contains the command and the recipe without secrets; the protocol of each evaluation dataset; commit, date, versions and
    machine of the last part of the run; the seed and main settings; steps, samples, and hours of training and evaluation over all
    parts; and the losses and evaluations.

    Args:
        argv: the arguments of the command.
        protocols: protocol of each evaluation dataset by name.
    """

    def __init__(self, argv: Sequence[str], protocols: Mapping[str, str]):
        self.protocols = dict(protocols)
        self.command = redact(shlex.join(["svtrv2", "train", *argv]))
        self.recipe = redact_values(read_recipe(argv[0])) if argv and is_recipe(argv[0]) else None
        self.provenance = provenance()

    def write(self, args: TrainingArguments, state: TrainerState) -> None:
        steps = [entry for entry in state.log_history if "loss" in entry]
        record = {
            "command": self.command,
            "recipe": self.recipe,
            "protocols": self.protocols,
            **self.provenance,
            "processes": args.world_size,
            "seed": args.seed,
            "settings": {name: getattr(args, name) for name in SETTINGS},
            "steps": state.global_step,
            "samples": steps[-1].get("data/samples") if steps else None,
            "hours": steps[-1].get("hours") if steps else None,
            "loss": [[entry["step"], entry["loss"]] for entry in steps],
            "evaluations": [
                {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
                | {"step": entry["step"]}
                for entry in state.log_history
                if "eval_loss" in entry
            ],
        }
        staging = Path(args.output_dir) / "run.json.part"
        staging.write_text(json.dumps(_finite(record), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        staging.replace(staging.with_suffix(""))


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by `None`, which JSON can represent; a set without encodable labels has such a loss."""
    if isinstance(value, dict):
        return {name: _finite(element) for name, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(element) for element in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class LearningCurve(_RunFile):
    """A chart of losses and word accuracies, `learning_curve.png` in the output folder, updated like `run.json`."""

    def write(self, args: TrainingArguments, state: TrainerState) -> None:
        figure = Figure(figsize=(11, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set(title="Loss per sample", xlabel="step", yscale="log")
        right.set(title="Word accuracy", xlabel="step", ylim=(0, 1))
        left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        left.yaxis.set_minor_formatter(NullFormatter())
        names = {name for entry in state.log_history for name in entry if name.endswith("word_accuracy")}
        if len(names) == 2:  # of a single dataset, which the mean repeats
            names.discard("eval_word_accuracy")
        for axes, lines in ((left, ["loss", "eval_loss"]), (right, sorted(names))):
            for name in lines:
                points = [(entry["step"], entry[name]) for entry in state.log_history if name in entry]
                if points:
                    marker = "." if len(points) < 20 else ""
                    axes.plot(*zip(*points, strict=True), marker=marker, label=f"{name}  {points[-1][1]:.3f}")
            if axes.lines:
                axes.legend()
            axes.grid(alpha=0.3)
        figure.savefig(Path(args.output_dir) / "learning_curve.png", dpi=100)
