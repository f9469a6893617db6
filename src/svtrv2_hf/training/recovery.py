# SPDX-License-Identifier: Apache-2.0
"""A Trainer that stops where training diverges, and saves the last complete step after other errors."""

import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.optim.swa_utils import AveragedModel
from transformers import Trainer, TrainerControl
from transformers.trainer_utils import get_last_checkpoint

from ..data.batches import Position
from ..modeling_svtrv2 import SVTRv2ForCTC
from .callbacks import StepBoundaries, StopInTime
from .divergence import DivergedError, non_finite
from .loader import TrainingStream


class Snapshot(NamedTuple):
    """The state between two steps beside weights, optimizer and schedule, which only the end of a step changes.

    Attributes:
        position: of the data stream.
        counts: samples read and skipped.
        random: states of torch's random number generators, on CPU and on the device.
        buffers: of the model, which batch normalization changes in the forward pass.
        best: metric and step of the best evaluation.
    """

    position: Position
    counts: Counter[tuple[int, str]]
    random: list[torch.Tensor]
    buffers: list[torch.Tensor]
    best: tuple[float | None, int | None]


def random_states(device: torch.device) -> list[torch.Tensor]:
    """States of torch's random number generators: the CPU's, and the device's if it is another."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def set_random_states(states: list[torch.Tensor], device: torch.device) -> None:
    """Sets what [`random_states`] returned."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1])


@torch.no_grad()
def set_buffers(model: Any, buffers: list[torch.Tensor]) -> None:
    """Sets the model's buffers to copies made before."""
    for buffer, copy in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(copy)


class RecoveringTrainer(Trainer):
    """What [`SVTRv2Trainer`] does about errors.

    Attributes:
        averaged: the moving average of the weights, if there is one.
        counts: samples read and skipped, by source number and name.
        stop_in_time: ends training early; processes agree through it.
    """

    control: TrainerControl
    model: SVTRv2ForCTC

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.averaged: AveragedModel | None = None
        self.counts: Counter[tuple[int, str]] = Counter()
        self.stop_in_time = StopInTime(self.args.max_hours)
        self.add_callback(self.stop_in_time)
        # before all others, so that an error in one of them comes after a complete step
        self.callback_handler.callbacks.insert(0, StepBoundaries(self._begin_update, self._end_step))
        self._stream: TrainingStream | None = None
        # losses in float16 that were not finite since the last log
        self._overflows = torch.zeros((), device=self.args.device)
        # It would log 0 for a loss that is not finite, and waits for the GPU at each step.
        self.args.logging_nan_inf_filter = False
        self._forget_failures()

    def _forget_failures(self) -> None:
        self._snapshot: Snapshot | None = None  # of the last complete step; `None` while the weights are being updated
        self._saved_step = 0  # of the last checkpoint
        self._evaluating = False  # during training, until the best model is chosen
        self._together = False  # all processes have agreed that one of them has failed

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.scaler is not None:
            # In float16 a batch may overflow now and then. The scaler skips such a step; its loss is not counted.
            self._overflows += ~loss.isfinite()
            loss = loss.where(loss.isfinite(), 0.0)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._count_overflows(tr_loss)
            self._stop_if_diverged(tr_loss)
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _count_overflows(self, losses: torch.Tensor) -> None:
        """Makes the sum of losses in float16 what it would be with the mean in place of those that were not finite."""
        overflows = float(self._overflows)
        if overflows and self.control.should_log:
            steps = self.state.global_step - self._globalstep_last_logged
            batches = steps * self.args.gradient_accumulation_steps
            losses *= batches / (batches - overflows) if overflows < batches else math.nan
            self._overflows.zero_()

    def _begin_update(self) -> None:
        self._snapshot = None

    def _end_step(self) -> None:
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        assert self._stream is not None
        self._snapshot = Snapshot(
            self._stream.position,
            self.counts.copy(),
            random_states(self.args.device),
            [buffer.clone() for buffer in self.model.buffers()],
            (self.state.best_metric, self.state.best_global_step),
        )

    def _save_after(self, error: BaseException) -> None:
        """Saves the last complete step if it is not saved, and notes on the error where it is, or why it is not."""
        step = self.state.global_step
        second_interrupt = isinstance(error, KeyboardInterrupt) and self.stop_in_time.interrupted
        if step <= self._saved_step or isinstance(error, DivergedError) or second_interrupt:
            return
        last = f"The last checkpoint is of step {self._saved_step}." if self._saved_step else "None was saved before."
        if self._snapshot is None or self._stream is None:
            error.add_note(
                f"Step {step} cannot be saved, because the error came while the weights were updated. {last}"
            )
            return
        if self.args.world_size > 1 and not self._together:
            error.add_note(f"Step {step} cannot be saved, because one of several processes failed alone. {last}")
            return
        if self.control.should_evaluate or self._evaluating:  # resuming makes up for it
            self.stop_in_time.evaluation_due = True
            self.state.best_metric, self.state.best_global_step = self._snapshot.best
            while self.state.log_history and "eval_loss" in self.state.log_history[-1]:
                if self.state.log_history[-1]["step"] != step:
                    break
                self.state.log_history.pop()
        self._stream.position = self._snapshot.position
        self.counts.clear()
        self.counts.update(self._snapshot.counts)
        set_random_states(self._snapshot.random, self.args.device)
        set_buffers(self.model, self._snapshot.buffers)
        try:
            shutil.rmtree(Path(self.args.output_dir) / ".saving", ignore_errors=True)  # of a checkpoint that failed
            self._save_checkpoint(self.model_wrapped, None)
        except Exception as another:
            error.add_note(f"Step {step} cannot be saved: {another}. {last}")
        else:
            error.add_note(
                f"Saved {self.args.output_dir}/checkpoint-{step}: the same command with --resume_from_checkpoint True goes on from "
                "there."
            )

    def _fail_together(self, error: Exception | None, failed: bool) -> None:
        """Raises the error of this process or, where another one has `failed`, that this is so. All processes do it together."""
        if failed:
            self._together = True
            raise error or ChildProcessError("Training stops because another process failed; its message says why.")

    def _stop_if_diverged(self, loss: torch.Tensor | None = None) -> None:
        """All processes call this together, before anything is logged, evaluated or saved.

        Args:
            loss: the sum of the losses since the last log.

        Raises:
            DivergedError: on every process, if the loss or the weights of any of them are NaN or infinite.
        """
        weights = self.model.state_dict()
        names = non_finite(weights) or ([] if self.averaged is None else non_finite(self.averaged.state_dict()))
        if names:
            what = f"{len(names)} of {len(weights)} tensors of weights hold NaN or infinity"
        else:
            what = "the loss is not a finite number"
        failed = bool(names) or (loss is not None and not bool(loss.isfinite()))
        if not self.stop_in_time.on_any_process(failed):
            return
        kept = []
        if self._saved_step and (last := get_last_checkpoint(self.args.output_dir)):
            kept.append(f"The last checkpoint is {last}.")
        if self.state.best_global_step:
            kept.append(f"The best model, of step {self.state.best_global_step}, is in {self.args.output_dir}.")
        raise DivergedError(
            f"Training has diverged by step {self.state.global_step}: {what}. No checkpoint of that is saved. "
            f"{' '.join(kept) or 'None was saved before.'} Lower --learning_rate, or limit the gradients (--max_grad_norm 1)."
        )
