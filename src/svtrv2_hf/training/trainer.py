# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer, taught SVTRv2's batches, loss and schedule."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerState
from transformers.trainer_utils import get_last_checkpoint

from ..modeling_svtrv2 import SVTRv2Downsample, SVTRv2Embeddings


class SVTRv2Trainer(Trainer):
    """Trains [`SVTRv2ForCTC`] on [`BucketBatches`].

    What differs from its parent: batches come ready made and of several sizes, so the loader takes them as they are; the
    loss is a mean over samples, also over accumulated batches; weight decay and schedule are the paper's; and the samples
    read and rejected so far are logged as `data/...`.

    Raises:
        ValueError: there are several processes or devices.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: LRScheduler | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise ValueError(
                f"Training runs in one process on one device so far, not on {self.args.world_size} x {self.args.n_gpu}: "
                "choose one device with CUDA_VISIBLE_DEVICES and start one process."
            )
        self.counts: Counter[str] = Counter()
        self.batches_done = 0
        # The loss divides by the number of samples that `_get_num_items_in_batch` gives.
        self.model_accepts_loss_kwargs = True

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Trains, from `resume_from_checkpoint` on exactly as if there had been no break.

        The order of the data follows from its seed, so the batches of the steps already done are read again and passed over;
        the number of loader workers must be the same as it was.
        """
        self.batches_done = 0
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no checkpoint in {self.args.output_dir} to resume from.")
        if resume_from_checkpoint:
            state = TrainerState.load_from_json(f"{resume_from_checkpoint}/trainer_state.json")
            self.batches_done = state.global_step * self.args.gradient_accumulation_steps
        return super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)

    def get_train_dataloader(self) -> Any:
        return _CountingLoader(
            DataLoader(
                self.train_dataset,
                batch_size=None,
                num_workers=self.args.dataloader_num_workers,
                prefetch_factor=self.args.dataloader_prefetch_factor,
                # of its own, or starting to read would advance the random numbers that a checkpoint restored
                generator=torch.Generator(),
                pin_memory=self.args.dataloader_pin_memory and self.args.device.type == "cuda",
            ),
            self.counts,
            self.batches_done,
        )

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        return torch.tensor(sum(len(batch["labels"]) for batch in batch_samples), device=device)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW without weight decay on vectors, and on the convolutions of stem and downsampling.

        As upstream's `openrec/optimizer` with `filter_bias_and_bn` and the encoder's `no_weight_decay`.
        """
        if self.optimizer is None:
            model = self.model if model is None else model
            spared = {
                id(parameter)
                for module in model.modules()
                if isinstance(module, (SVTRv2Embeddings, SVTRv2Downsample))
                for parameter in module.parameters()
            }
            groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
            for parameter in model.parameters():
                if parameter.requires_grad:
                    groups[parameter.ndim > 1 and id(parameter) not in spared].append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": groups[True], "weight_decay": self.args.weight_decay},
                    {"params": groups[False], "weight_decay": 0.0},
                ],
                lr=self.args.learning_rate,
                betas=(self.args.adam_beta1, self.args.adam_beta2),
                eps=self.args.adam_epsilon,
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """One cycle (paper, section 4.1): up to the learning rate over `warmup_steps` of the steps, then down to 0."""
        if self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = OneCycleLR(
                optimizer or self.create_optimizer(),
                max_lr=self.args.learning_rate,
                total_steps=num_training_steps,
                # torch divides by zero where the way up is a single step
                pct_start=warmup / num_training_steps if warmup > 1 else 0.0,
                cycle_momentum=False,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **{f"data/{name}": count for name, count in self.counts.items()}}
        super().log(logs, *args, **kwargs)


class _CountingLoader:
    """Takes the counts out of the batches on their way to the model, and passes over the first `skip` batches."""

    def __init__(self, loader: DataLoader, counts: Counter[str], skip: int):
        self.loader = loader
        self.skip = skip
        self.dataset = loader.dataset
        self.counts = counts

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for number, batch in enumerate(self.loader):
            self.counts.update(batch.pop("counts"))
            if number >= self.skip:
                yield batch
