# SPDX-License-Identifier: Apache-2.0
"""Callbacks that stop a run early or call the trainer, and the communication between processes."""

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Processes:
    """The training processes, which call the methods together; does not wait for GPUs."""

    @cached_property
    def _group(self) -> Any:
        initialized = torch.distributed.is_available() and torch.distributed.is_initialized()
        return torch.distributed.new_group(backend="gloo") if initialized else None

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes."""
        if self._group is None:
            return [value]
        values = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(values, value, group=self._group)
        return values


class GracefulStop(TrainerCallback):
    """End of training, with a checkpoint, after `max_hours`, or on SIGTERM or SIGINT (Ctrl-C).

    All processes stop after the same step. A second SIGINT aborts immediately. Time is measured from construction. A pending
    evaluation is skipped.

    Attributes:
        reason: why training stops before its last step, or `None`.
        interrupted: whether the reason is SIGINT.
        evaluation_pending: whether an evaluation was skipped or aborted in order to stop.
    """

    def __init__(self, processes: Processes, max_hours: float | None = None):
        self.processes = processes
        self.deadline = None if max_hours is None else time.monotonic() + max_hours * 3600
        self.reason: str | None = None
        self.interrupted = False
        self.evaluation_pending = False
        self._previous_handlers: dict[int, Any] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if threading.current_thread() is threading.main_thread():  # other threads cannot handle signals
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous_handlers[number] = signal.signal(number, self._handle_signal)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if self.requested_anywhere() and state.global_step < state.max_steps:
            self.save_and_stop(control, control.should_evaluate)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        if state.global_step >= state.max_steps and not self.evaluation_pending:
            self.reason = None
            self.interrupted = False

    def requested(self) -> bool:
        """Return whether this process should stop."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.reason = self.reason or "--max_hours have passed"
        return self.reason is not None

    def requested_anywhere(self) -> bool:
        """Return whether any process should stop; all processes call this together."""
        stop = any(self.processes.gather(self.requested()))
        if stop:
            self.reason = self.reason or "another process was asked to stop"
        return stop

    def save_and_stop(self, control: TrainerControl, evaluation_pending: bool) -> None:
        """Let the trainer save a checkpoint and end training."""
        control.should_save = control.should_training_stop = True
        control.should_evaluate = False
        self.evaluation_pending |= evaluation_pending

    def restore_signal_handlers(self) -> None:
        """Restore the handlers that were active before training."""
        while self._previous_handlers:
            signal.signal(*self._previous_handlers.popitem())

    def _handle_signal(self, number: int, _: Any) -> None:
        if number == signal.SIGINT:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            # print is not reentrant, and may be what the signal interrupts
            os.write(
                2, b"Saving a checkpoint after this step. Press Ctrl-C again to stop immediately without saving.\n"
            )
        self.reason = f"received {signal.Signals(number).name}"


class CallAt(TrainerCallback):
    """Callback that calls functions without arguments at events: `CallAt(on_step_end=function)`."""

    def __init__(self, **functions: Callable[[], None]):
        for event, function in functions.items():
            setattr(self, event, lambda *_, function=function, **__: function())
