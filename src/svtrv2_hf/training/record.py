# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind to be found again: how it was started, where, what it cost and what came of it."""

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..evaluation.provenance import provenance
from ..redaction import redact, redact_values
from .arguments import read_recipe


class RunRecord(TrainerCallback):
    """Writes `run.json` into the output folder after each evaluation and at the end.

    It holds the command and the recipe as they were, without secrets; commit, date, versions and machine of the last part of the run; the
    seed; steps, samples read, and hours of training and evaluating over all its parts; and the learning curve.

    Args:
        argv: of the command.
    """

    def __init__(self, argv: Sequence[str]):
        self.command = redact(shlex.join(["python", "scripts/train.py", *argv]))
        self.recipe = redact_values(read_recipe(argv[0])) if argv and argv[0].endswith((".yaml", ".yml")) else None
        self.provenance = provenance()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._write(args, state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._write(args, state)

    def _write(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        steps = [entry for entry in state.log_history if "loss" in entry]
        record = {
            "command": self.command,
            "recipe": self.recipe,
            **self.provenance,
            "processes": args.world_size,
            "seed": args.seed,
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
    """The same with `None` for NaN and infinity, which JSON cannot hold: the loss of a set whose labels cannot be encoded."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
