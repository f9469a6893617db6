# SPDX-License-Identifier: Apache-2.0
"""Optimizer and learning rate schedule of the paper."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from transformers import TrainingArguments

from ..modeling_svtrv2 import SVTRv2Downsample, SVTRv2Embeddings


POSITION = ("last_epoch", "_step_count")  # the attributes of a scheduler that change with the steps


def parameter_groups(model: torch.nn.Module) -> list[list[torch.nn.Parameter]]:
    """Return the trainable parameters with weight decay, and those without.

    Vectors and the convolutions of stem and downsampling have no weight decay, as in Topdu/OpenOCR at ae934e5,
    `openrec/optimizer` with `filter_bias_and_bn` and the encoder's `no_weight_decay`.
    """
    exempt = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (SVTRv2Embeddings, SVTRv2Downsample))
        for parameter in module.parameters()
    }
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            groups[parameter.ndim > 1 and id(parameter) not in exempt].append(parameter)
    return [groups[True], groups[False]]


def create_adamw(model: torch.nn.Module, args: TrainingArguments) -> torch.optim.AdamW:
    """Create AdamW with the weight decay of [`parameter_groups`]."""
    decayed, exempt = parameter_groups(model)
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": args.weight_decay}, {"params": exempt, "weight_decay": 0.0}],
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
    )


def create_one_cycle(optimizer: torch.optim.Optimizer, args: TrainingArguments, steps: int) -> OneCycleLR:
    """Create the one-cycle schedule (paper, section 4.1): up to the learning rate in `warmup_steps`, then down to 0.

    Raises:
        ValueError: the warmup is longer than the training.
    """
    warmup = args.get_warmup_steps(steps)
    if warmup > steps:
        raise ValueError(
            f"--warmup_steps {warmup} exceeds the {steps} steps of the training. A value below 1 is a share of all steps."
        )
    return OneCycleLR(
        optimizer,
        max_lr=args.learning_rate,
        total_steps=steps,
        pct_start=warmup / steps if warmup > 1 else 0.0,  # torch divides by zero if the warmup is a single step
        cycle_momentum=False,
    )


@contextmanager
def own_hyperparameters(optimizer: torch.optim.Optimizer, scheduler: LRScheduler) -> Iterator[None]:
    """Load a checkpoint into both without its hyperparameters and the length of its schedule.

    Only the position in the schedule changes, so that a run may be resumed with other settings or more steps.
    """
    shape = {}
    if isinstance(scheduler, OneCycleLR):
        shape = {name: value for name, value in vars(scheduler).items() if name not in POSITION}
    own = [{name: group[name] for name in group if name not in ("params", "lr")} for group in optimizer.param_groups]
    yield
    vars(scheduler).update(shape)
    for group, hyperparameters in zip(optimizer.param_groups, own, strict=True):
        group.update(hyperparameters)
    with warnings.catch_warnings(action="ignore"):  # torch warns about rates that are read between steps
        scheduler._last_lr = scheduler.get_lr()
    for group, rate in zip(optimizer.param_groups, scheduler._last_lr, strict=True):
        group["lr"] = rate
