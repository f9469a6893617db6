# SPDX-License-Identifier: Apache-2.0
"""A Trainer that stops if training diverges, and saves the last complete step after other errors."""

import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from transformers import Trainer, TrainerControl, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..data.batches import EvaluationBatches, TrainingBatches
from ..modeling_svtrv2 import SVTRv2ForCTC
from .callbacks import CallAt, GracefulStop, Processes
from .checkpoint_files import DivergedError, non_finite
from .loader import Counts, TrainingStream


class RecoveringTrainer(Trainer):
    """The part of [`SVTRv2Trainer`] that handles errors.

    Attributes:
        averaged: the moving average of the weights, or `None`.
        counts: samples read and skipped by this process.
        processes: communication with the other processes.
        stop: stops training early.
        started: start of training in the time of `time.perf_counter`, moved back by the duration of earlier parts.
    """

    control: TrainerControl
    eval_dataset: Mapping[str, EvaluationBatches] | None
    lr_scheduler: LRScheduler | None
    model: SVTRv2ForCTC
    optimizer: torch.optim.Optimizer | None
    train_dataset: TrainingBatches

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.averaged: AveragedModel | None = None
        self.counts: Counts = Counter()
        self.started = time.perf_counter()
        self.processes = Processes()
        self.stop = GracefulStop(self.processes, self.args.max_hours)
        self.add_callback(self.stop)
        # first, so that errors of other callbacks occur after a complete step
        boundaries = CallAt(on_pre_optimizer_step=self._begin_update, on_step_end=self._end_step)
        self.callback_handler.callbacks.insert(0, boundaries)
        self.stream: TrainingStream | None = None
        # number of losses in float16 that were not finite since the last log
        self._overflows = torch.zeros((), device=self.args.device)
        self._reset_recovery()

    def _reset_recovery(self) -> None:
        self._restore_step: Callable[[], None] | None = None  # `None` while the weights are being updated
        self._saved_step = 0  # step of the last checkpoint
        self._evaluating = False  # during training, until the best model is chosen
        self._failed_together = False  # all processes know that one of them has failed

    @property
    def staging_folder(self) -> Path:
        """The folder for files that are being written."""
        return Path(self.args.output_dir) / ".saving"

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.scaler is not None:
            # In float16 a batch may overflow occasionally. The scaler skips such a step, and its loss does not count.
            self._overflows += ~loss.isfinite()
            loss = loss.where(loss.isfinite(), 0.0)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        control = self.control
        if control.should_log or control.should_evaluate or control.should_save or control.should_training_stop:
            self._correct_overflows(tr_loss)
            self._raise_if_diverged(tr_loss)
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _correct_overflows(self, losses: torch.Tensor) -> None:
        """Scale the sum of float16 losses as if losses that were not finite had been the mean of the others."""
        overflows = float(self._overflows)
        if overflows and self.control.should_log:
            steps = self.state.global_step - self._globalstep_last_logged
            batches = steps * self.args.gradient_accumulation_steps
            losses *= batches / (batches - overflows) if overflows < batches else math.nan
            self._overflows.zero_()

    def _begin_update(self) -> None:
        self._restore_step = None

    def _end_step(self) -> None:
        """Prepare to restore what the next step may change before it updates the weights."""
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        stream = self.stream
        assert stream is not None
        device = None if self.args.device.type == "cpu" else torch.get_device_module(self.args.device)
        position, counts, random = stream.position, self.counts.copy(), torch.get_rng_state()
        device_random = device and device.get_rng_state()
        buffers = [buffer.clone() for buffer in self.model.buffers()]  # changed by batch normalization

        @torch.no_grad()
        def restore() -> None:
            stream.position = position
            self.counts.clear()
            self.counts.update(counts)
            torch.set_rng_state(random)
            if device is not None:
                device.set_rng_state(device_random)
            for buffer, copy in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(copy)

        self._restore_step = restore

    def _save_after(self, error: BaseException) -> None:
        """Save the last complete step unless it is saved, and add a note to the error with the result."""
        step, saved = self.state.global_step, self._saved_step
        second_interrupt = isinstance(error, KeyboardInterrupt) and self.stop.interrupted
        if step <= saved or isinstance(error, DivergedError) or second_interrupt:
            return
        problem: object = None
        if self._restore_step is None:
            problem = "the weights were being updated"
        elif self.args.world_size > 1 and not self._failed_together:
            problem = "only one of several processes failed"
        else:
            if self.control.should_evaluate or self._evaluating:  # the evaluation runs when training resumes
                self.stop.evaluation_pending = True
                history = self.state.log_history
                while history and "eval_loss" in history[-1] and history[-1]["step"] == step:
                    history.pop()
            self._restore_step()
            try:
                shutil.rmtree(self.staging_folder, ignore_errors=True)  # left by a checkpoint that failed
                self._save_checkpoint(self.model_wrapped, None)
            except Exception as another:
                problem = another
        if problem is None:
            path = f"{self.args.output_dir}/checkpoint-{step}"
            error.add_note(f"Saved {path}. {how_to_resume(self.args)}")
        else:
            last = f"The last checkpoint is of step {saved}." if saved else "No checkpoint was saved."
            error.add_note(f"Step {step} cannot be saved: {problem}. {last}")

    def _raise_together(self, error: Exception | None) -> None:
        """Raise an error on all processes if any has one; all processes call this together.

        Args:
            error: the error of this process, or `None`.

        Raises:
            ChildProcessError: only another process has an error.
        """
        if any(self.processes.gather(error is not None)):
            self._failed_together = True
            raise error or ChildProcessError("Training stops because another process failed; see its error message.")

    def _raise_if_diverged(self, loss: torch.Tensor | None = None) -> None:
        """Check loss and weights before they are logged, evaluated or saved; all processes call this together.

        Args:
            loss: the sum of the losses since the last log.

        Raises:
            DivergedError: on every process, if the loss or the weights of any of them are NaN or infinite.
        """
        weights = self.model.state_dict()
        names = non_finite(weights) or ([] if self.averaged is None else non_finite(self.averaged.state_dict()))
        if not any(self.processes.gather(bool(names) or not (loss is None or bool(loss.isfinite())))):
            return
        message = f"Training has diverged by step {self.state.global_step}: "
        message += (
            f"{len(names)} of {len(weights)} weight tensors contain NaN or infinity" if names else "non-finite loss"
        )
        if self._saved_step and (last := get_last_checkpoint(self.args.output_dir)):
            message += f". The last checkpoint is {last}"
        if self.state.best_global_step:
            message += f". The best model, of step {self.state.best_global_step}, is in {self.args.output_dir}"
        raise DivergedError(f"{message}. Lower --learning_rate, or clip the gradients (--max_grad_norm 1).")


def how_to_resume(args: TrainingArguments) -> str:
    """Return a sentence that states how to resume from the last checkpoint, or why this is impossible."""
    if args.save_only_model:
        return "With --save_only_model, the checkpoint has only the model: training cannot resume from it."
    return "To resume, add --resume_from_checkpoint True to the same command."
