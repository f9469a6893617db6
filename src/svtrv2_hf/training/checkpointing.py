# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are complete under their names, and from which training resumes exactly."""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints
from transformers.utils import logging

from ..data.batches import Position, Progress
from .checkpoint_files import (
    AVERAGED_WEIGHTS,
    DATA_STATE,
    check_optimizer_files,
    read_finite_weights,
    read_states,
    reading,
)
from .evaluating import EvaluatingTrainer


logger = logging.get_logger(__name__)

# The arguments that determine how training continues.
SETTINGS = (
    "dataloader_num_workers", "gradient_accumulation_steps", "max_steps", "learning_rate", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "optim", "optim_args", "optim_target_modules", "adam_beta1",
    "adam_beta2", "adam_epsilon", "max_grad_norm", "bf16", "fp16", "ema_decay", "frame_label_steps",
)  # fmt: skip


def find_checkpoint(value: object, output_dir: str) -> Path | None:
    """Return the checkpoint that a value of `resume_from_checkpoint` refers to.

    Args:
        value: `None`, `False`, "false" or "no" for none; `True`, "true" or "yes" for the last one in `output_dir`; or a folder.

    Raises:
        ValueError: the value is empty, or the checkpoint does not exist.
    """
    text = str(value).strip()
    if value is None or text.lower() in ("false", "no"):
        return None
    if not value or not text:  # would start a new run in the folder of an earlier one
        raise ValueError(
            f"--resume_from_checkpoint {str(value)!r} is empty (an unset variable?): pass True or the folder of a checkpoint, or "
            "omit the option to start a new run."
        )
    if text.lower() in ("true", "yes"):
        last = get_last_checkpoint(output_dir) if Path(output_dir).is_dir() else None
        if last is None:
            raise ValueError(f"No checkpoint to resume from in {output_dir}.")
        return Path(last)
    if not Path(text).is_dir():
        raise ValueError(f"Checkpoint {value} to resume from not found.")
    return Path(text)


def random_state_file(args: TrainingArguments) -> str:
    """Return the name of the file with the random states of this process."""
    return "rng_state.pth" if args.world_size == 1 else f"rng_state_{args.process_index}.pth"


class Checkpoints:
    """The checkpoints of a trainer.

    Args:
        trainer: the owner of this object.
        freeze_stages: as of [`SVTRv2Trainer`].

    Attributes:
        is_staging: whether a checkpoint is being written to the staging folder.
        resumed_from: the checkpoint that this run was resumed from, or `None`.
        is_exact: whether its settings are those of this run.
    """

    def __init__(self, trainer: EvaluatingTrainer, freeze_stages: int):
        self.trainer = trainer
        self.freeze_stages = freeze_stages
        self.is_staging = False
        self.resumed_from: Path | None = None
        self.is_exact = True
        self.seed_shift = 0  # changes the order of the data after an inexact resume

    def reset(self) -> None:
        """Prepare the trainer for a new run."""
        self.resumed_from = None
        self.trainer.started = time.perf_counter()
        self.trainer.counts.clear()
        self.trainer.stop.evaluation_pending = False
        self.trainer.evaluations_from = 0
        self.trainer.train_dataset.start = Position()
        self._shift_seed(0)

    @contextmanager
    def staged(self) -> Iterator[None]:
        """Let the trainer write a checkpoint to the staging folder, complete it, and rename it.

        A killed process never leaves an incomplete checkpoint.
        """
        trainer = self.trainer
        trainer.update_best()
        self.is_staging = True
        try:
            yield
        finally:
            self.is_staging = False
        states = self._data_states()  # gathered, so all processes have written their files
        if trainer.args.should_save:
            staging, output = trainer.staging_folder, Path(trainer.args.output_dir)
            name = f"checkpoint-{trainer.state.global_step}"
            # The best model is in the output folder; transformers refers to the staging folder.
            trainer.state.best_model_checkpoint = None
            trainer.state.save_to_json(str(staging / name / "trainer_state.json"))
            (staging / name / DATA_STATE).write_text(json.dumps(states, indent=1))
            if trainer.averaged is not None:
                safetensors.torch.save_file(trainer.averaged.state_dict(), staging / name / AVERAGED_WEIGHTS)
            if (output / name).exists():  # from an earlier part of the run
                (output / name).rename(staging / "replaced")
            (staging / name).rename(output / name)
            shutil.rmtree(staging)
            rotate_checkpoints(str(output), save_total_limit=trainer.args.save_total_limit, use_mtime=True)
        trainer.accelerator.wait_for_everyone()

    def _data_states(self) -> dict[str, Any]:
        trainer = self.trainer
        assert trainer.stream is not None
        position = trainer.stream.position
        counts = [[number, name, count] for (number, name), count in trainer.counts.items()]
        return {
            "settings": {**self._settings(), "seed": trainer.train_dataset.seed - self.seed_shift},
            "seed_shift": self.seed_shift,
            "seconds": time.perf_counter() - trainer.started,
            "comparison": self._comparison(),
            "evaluations_from": trainer.evaluations_from,
            "evaluation_pending": trainer.stop.evaluation_pending,
            "ranks": trainer.processes.gather(
                {"taken": position.taken, "workers": position.workers, "counts": counts}
            ),
        }

    def _comparison(self) -> dict[str, Any]:
        """Return the properties that comparable evaluations have in common."""
        sets = {name: batches.source.num_samples for name, batches in (self.trainer.eval_dataset or {}).items()}
        protocols = {name: self.trainer.protocol_of(name) for name in sets}
        return {"metric": self.trainer.args.metric_for_best_model, "protocols": protocols, "eval_data": sets}

    def _settings(self) -> dict[str, Any]:
        """Return everything that determines the next batches and the updates of the weights."""
        args = self.trainer.args
        return {
            "processes": args.world_size,
            **{name: getattr(args, name) for name in SETTINGS},
            "optimizer": type(self._optimizer()).__name__,
            "freeze_stages": self.freeze_stages,
            **self.trainer.train_dataset.settings(),
        }

    def _optimizer(self) -> torch.optim.Optimizer:
        optimizer = self.trainer.create_optimizer()
        return getattr(optimizer, "optimizer", optimizer)  # without the wrapper of accelerate

    def restore(self, checkpoint: Path) -> TrainerState:
        """Check a checkpoint, and restore data, counts and averaged weights; transformers restores the rest.

        Raises:
            ValueError: the checkpoint is damaged, of another model, or of a run with other data or settings, and
                `resume_inexactly` is not set.
        """
        trainer, args = self.trainer, self.trainer.args
        self.resumed_from = checkpoint
        states, state = read_states(checkpoint)
        now, before = json.loads(json.dumps(self._settings())), states["settings"]
        self._check_model(checkpoint, now, before)
        differing = [name for name in now if now[name] != before.get(name)]
        self.is_exact = not differing
        if differing and not args.resume_inexactly:
            raise ValueError(
                f"{checkpoint} was made with other settings: "
                + "; ".join(f"{name} was {before.get(name)!r} and is {now[name]!r}" for name in differing)
                + ". With the same settings, training resumes exactly. To resume with these settings and a new order of the data, "
                "pass --resume_inexactly True."
            )
        ranks = states["ranks"]
        if not differing:
            own = ranks[args.process_index]
            trainer.train_dataset.start = Position(own["taken"], [Progress(*worker) for worker in own["workers"]])
            ranks = [own]
        elif args.process_index:
            ranks = []
        self._shift_seed(states["seed_shift"] + (state.global_step if differing else 0))
        for rank in ranks:
            trainer.counts.update({(number, name): count for number, name, count in rank["counts"]})
        trainer.started -= states["seconds"]
        trainer.stop.evaluation_pending = states["evaluation_pending"]
        trainer.evaluations_from = states["evaluations_from"]
        reason = None
        if states["comparison"] != self._comparison():
            reason = "evaluation datasets, metric or protocol have changed"
        elif not (Path(args.output_dir) / "model.safetensors").is_file():
            reason = f"it is not in {args.output_dir}"
        if reason is not None:
            trainer.evaluations_from = len(state.log_history)
            if state.best_metric is not None and args.process_index == 0:
                logger.warning(f"The best model so far is ignored, because {reason}.")
        files = ["optimizer.pt", "scheduler.pt"]
        if args.world_size == before["processes"]:
            files.append(random_state_file(args))
        if args.fp16 and before.get("fp16"):
            files.append("scaler.pt")
        # The float16 scaler skips steps; so it may have before an inexact resume.
        exact = not before.get("fp16", True) and not states["seed_shift"]
        optimizer, shapes = self._optimizer(), None
        if isinstance(optimizer, torch.optim.AdamW):
            shapes = [[parameter.shape for parameter in group["params"]] for group in optimizer.param_groups]
        check_optimizer_files(checkpoint, files, shapes, state.global_step, exact)
        if trainer.averaged is not None and before.get("ema_decay") is not None:
            averaged = read_finite_weights(checkpoint / AVERAGED_WEIGHTS)
            with reading(checkpoint / AVERAGED_WEIGHTS):
                trainer.averaged.load_state_dict(averaged)
        return state

    def _check_model(self, checkpoint: Path, now: dict[str, Any], before: dict[str, Any]) -> None:
        """Reject a checkpoint whose weights and optimizer do not fit, even to resume inexactly."""
        weights, own = read_finite_weights(checkpoint / "model.safetensors"), self.trainer.model.state_dict()
        differing = [name for name in ("charset", "freeze_stages", "optimizer") if before.get(name) != now[name]]
        if {name: weights[name].shape for name in weights} != {name: own[name].shape for name in own}:
            differing = ["model or number of characters"]
        if differing:
            raise ValueError(
                f"{checkpoint} was made with another {differing[0]}, so this run cannot resume from it. To start a new run with its "
                f"weights, pass --model {checkpoint} and another --output_dir."
            )

    def _shift_seed(self, shift: int) -> None:
        self.trainer.train_dataset.seed += shift - self.seed_shift
        self.seed_shift = shift
