# SPDX-License-Identifier: Apache-2.0
"""What happens beside the training steps: stopping in time, and drawing the learning curve."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .curve import draw_learning_curve


class StopInTime(TrainerCallback):
    """Saves a checkpoint and ends the training after `max_hours`, or when the process is sent SIGTERM or SIGINT (Ctrl-C).

    All ranks stop after the same step. A second SIGINT aborts at once. The clock runs from the making of this object. No
    evaluation is waited for.

    Attributes:
        reason: why training was ended before its last step, or `None`.
        interrupted: by SIGINT.
        evaluation_due: an evaluation was left out, or broken off, in order to stop.
    """

    def __init__(self, max_hours: float | None = None):
        self.deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self.reason: str | None = None
        self.interrupted = False
        self.evaluation_due = False
        self._previous_handlers: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if threading.current_thread() is threading.main_thread():  # Python lets no other handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous_handlers[number] = signal.signal(number, self._note_signal)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.agreed() and state.global_step < state.max_steps:
            self.save_and_stop(control, control.should_evaluate)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if state.global_step >= state.max_steps and not self.evaluation_due:
            self.reason = None
            self.interrupted = False

    def told(self) -> bool:
        """Whether this process is to stop."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = self.reason or "--max_hours have passed"
        return self.reason is not None

    def agreed(self) -> bool:
        """Whether any process is to stop; all ask this together."""
        wanted = self.on_any_process(self.told())
        if wanted:
            self.reason = self.reason or "another process was told to stop"
        return wanted

    def on_any_process(self, flag: bool) -> bool:
        """Whether any process says so; all ask this together."""
        return self.sum_over_processes(flag)[0] > 0

    def sum_over_processes(self, *numbers: float) -> list[float]:
        """The sums over all processes, which call this together. It does not wait for a GPU."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        if self._group is not None:
            torch.distributed.all_reduce(sums, group=self._group)
        return sums.tolist()

    @cached_property
    def _group(self) -> Any:
        """Not the one of the gradients, which on a GPU would have to be waited for."""
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        return torch.distributed.new_group(backend="gloo") if several else None

    def save_and_stop(self, control: TrainerControl, evaluation_left: bool) -> None:
        """Lets a checkpoint come next, and then the end."""
        control.should_save = control.should_training_stop = True
        control.should_evaluate = False
        self.evaluation_due |= evaluation_left

    def let_signals_be(self) -> None:
        """Gives them back to who handled them before: after training, and after an error in it."""
        while self._previous_handlers:
            signal.signal(*self._previous_handlers.popitem())

    def _note_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            # not by print, which may be what the signal came into
            os.write(2, b"Saving a checkpoint after this step. Ctrl-C again stops at once, and saves nothing.\n")
        self.reason = f"it was sent {signal.Signals(number).name}"


class StepBoundaries(TrainerCallback):
    """Calls `begin` before the optimizer changes the weights, and `end` when a step is complete, before other callbacks."""

    def __init__(self, begin: Callable[[], None], end: Callable[[], None]):
        self.begin, self.end = begin, end

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ):
        self.begin()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.end()


class EvaluateFirst(TrainerCallback):
    """Makes up for the evaluation that a stop left out, before training goes on."""

    def __init__(self, make_up: Callable[[], None]):
        self.make_up = make_up

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        self.make_up()


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
