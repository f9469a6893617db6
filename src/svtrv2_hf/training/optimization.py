# SPDX-License-Identifier: Apache-2.0
"""Weight decay and learning rate schedule of the paper, and states of optimizers and schedules."""

import warnings
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from transformers import TrainingArguments

from ..modeling_svtrv2 import SVTRv2Downsample, SVTRv2Embeddings
from .checkpoint_files import reading


POSITION = ("last_epoch", "_step_count")  # the attributes of a scheduler that change with the steps


def decayed_parameters(model: torch.nn.Module) -> list[str]:
    """Return the names of the parameters with weight decay.

    Vectors and the convolutions of stem and downsampling have no weight decay, as in Topdu/OpenOCR at ae934e5,
    `openrec/optimizer` with `filter_bias_and_bn` and the encoder's `no_weight_decay`.
    """
    exempt = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (SVTRv2Embeddings, SVTRv2Downsample))
        for parameter in module.parameters()
    }
    return [name for name, value in model.named_parameters() if value.ndim > 1 and id(value) not in exempt]


def check_schedule(args: TrainingArguments, steps: int) -> None:
    """Check that warmup and decay are within the training.

    Raises:
        ValueError: they are longer than the training.
    """
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        raise ValueError(
            f"--warmup_steps {warmup} exceeds the {steps} steps of the training. A value below 1 is a share of all steps."
        )
    decay = (args.lr_scheduler_kwargs or {}).get("num_decay_steps", 0)
    if warmup + decay > steps:
        raise ValueError(f"{warmup} steps of warmup and {decay} of decay exceed the {steps} steps of the training.")


def create_one_cycle(optimizer: torch.optim.Optimizer, args: TrainingArguments, steps: int) -> OneCycleLR:
    """Create the one-cycle schedule (paper, section 4.1): up to the learning rate in `warmup_steps`, then down to 0."""
    warmup = args.get_warmup_steps(steps)
    return OneCycleLR(
        optimizer,
        max_lr=[group.get("max_lr", group["lr"]) for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=warmup / steps if warmup > 1 else 0.0,  # torch divides by zero if the warmup is a single step
        cycle_momentum=False,
        **(args.lr_scheduler_kwargs or {}),
    )


def load_states(checkpoint: Path, optimizer: torch.optim.Optimizer, scheduler: LRScheduler, exact: bool) -> None:
    """Load the states of a checkpoint.

    Args:
        checkpoint: folder of the checkpoint.
        optimizer, scheduler: objects to load into.
        exact: whether the settings are those of the checkpoint. Otherwise, hyperparameters remain, and only the position in the
            schedule changes, so that a run may be resumed with other settings, another schedule or more steps.

    Raises:
        ValueError: a file is missing or damaged.
    """
    own = [{name: group[name] for name in group if name not in ("params", "lr")} for group in optimizer.param_groups]
    with reading(checkpoint / "optimizer.pt"):
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
    with reading(checkpoint / "scheduler.pt"):
        state = torch.load(checkpoint / "scheduler.pt", map_location="cpu", weights_only=True)
        if exact or not isinstance(scheduler, (LambdaLR, OneCycleLR)):
            scheduler.load_state_dict(state)
            return
        vars(scheduler).update({name: state[name] for name in POSITION})
    for group, hyperparameters in zip(optimizer.param_groups, own, strict=True):
        group.update(hyperparameters)
    with warnings.catch_warnings(action="ignore"):  # torch warns about rates that are read between steps
        scheduler._last_lr = scheduler.get_lr()
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
