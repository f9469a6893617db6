# SPDX-License-Identifier: Apache-2.0
"""What happens beside the training steps: stopping in time, and drawing the learning curve."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .curve import draw_learning_curve


class StopInTime(TrainerCallback):
    """Saves a checkpoint and ends the training after `max_hours`, or when the process is sent SIGTERM.

    All ranks stop after the same step. The clock runs from the making of this object.
    """

    def __init__(self, max_hours: float | None = None):
        self.deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self.reason: str | None = None
        self._group: Any = None
        self._previous_handler: Any = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if threading.current_thread() is threading.main_thread():  # Python lets no other handle signals
            self._previous_handler = signal.signal(signal.SIGTERM, self._note_signal)
        if args.world_size > 1:
            # not the one of the gradients, which on a GPU would have to be waited for
            self._group = torch.distributed.new_group(backend="gloo")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = self.reason or "--max_hours have passed"
        wanted = torch.tensor(float(self.reason is not None))
        if self._group is not None:
            torch.distributed.all_reduce(wanted, torch.distributed.ReduceOp.MAX, group=self._group)
        if wanted and state.global_step < state.max_steps:
            self.reason = self.reason or "another process was told to stop"
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
        if state.global_step >= state.max_steps:
            self.reason = None

    def _note_signal(self, *_: Any) -> None:
        self.reason = "it was sent SIGTERM"


class AverageWeights(TrainerCallback):
    """Updates the moving average of the weights after each step."""

    def __init__(self, averaged: AveragedModel):
        self.averaged = averaged

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.averaged.update_parameters(kwargs["model"])


class LearningCurve(TrainerCallback):
    """Draws `learning_curve.png` into the output folder after each evaluation and at the end."""

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._draw(args, state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self._draw(args, state)

    @staticmethod
    def _draw(args: TrainingArguments, state: TrainerState) -> None:
        if state.is_world_process_zero:
            draw_learning_curve(state.log_history, Path(args.output_dir) / "learning_curve.png")
