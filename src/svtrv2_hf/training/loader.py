# SPDX-License-Identifier: Apache-2.0
"""Ready-made batches on their way to the model."""

import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import torch

from ..data.batches import EvaluationBatches, Position, Progress, TrainingBatches, pixel_values_of
from ..data.loader import Loader


def make_loader(batches: TrainingBatches | EvaluationBatches, args: Any) -> Loader:
    """A loader that takes batches as they are; `args` are the TrainingArguments.

    Neither accelerate nor the loader may cut or gather them: ranks and workers share the samples among themselves.
    """
    batches.rank, batches.world_size = args.process_index, args.world_size
    return Loader(
        batches,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor if args.dataloader_num_workers else None,
        # of its own, or starting to read would advance the random numbers that a checkpoint restored
        generator=torch.Generator(),
        pin_memory=args.dataloader_pin_memory and args.device.type == "cuda" and batches.device.type == "cpu",
        worker_init_fn=_let_the_parent_decide,
    )


def _let_the_parent_decide(_worker: int) -> None:
    """Workers do one thing at a time, and a signal to the whole group stops the trainer, which saves first, not them."""
    torch.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class TrainingStream:
    """The training loader, and where it stands.

    Attributes:
        counts: samples read and rejected, by source number and name, of the batches taken.
        position: how far the stream has been taken.
        waited: seconds spent on waiting for data since somebody set it to 0.
    """

    def __init__(self, loader: Loader, counts: Counter[tuple[int, str]], position: Position):
        self.loader = loader
        self.dataset = loader.dataset
        self.counts = counts
        self.position = Position(position.taken, position.workers or [Progress()] * max(1, loader.num_workers))
        self.waited = 0.0
        self._batches: Generator[dict[str, Any], None, None] | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._batches = iter(self.loader)
        while self._batches is not None:
            start = time.perf_counter()
            batch = next(self._batches)  # endless, so that no rank can run out before the others
            self.waited += time.perf_counter() - start
            self.counts.update(batch["counts"])
            workers = list(self.position.workers)
            workers[batch["worker"]] = Progress(batch["formed"], batch["read"], batch["waiting"].tolist())
            self.position = Position(self.position.taken + 1, workers)
            yield {name: batch[name] for name in ("pixels", "labels", "frame_labels") if name in batch}

    def close(self) -> None:
        """Ends the workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def to_model_inputs(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Moves a batch to the device as bytes, and makes pixel values of them there."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return {"pixel_values": pixel_values_of(moved.pop("pixels")), **moved}
