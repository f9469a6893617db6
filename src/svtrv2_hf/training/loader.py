# SPDX-License-Identifier: Apache-2.0
"""The stream of training batches: its loader, its position, and the counts of its samples."""

import signal
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..charsets import charset_of
from ..data.augmentation import Augmentation
from ..data.batches import BucketBatches, EvaluationBatches, Position, Progress, TrainingBatches, pixel_values_of
from ..data.collator import check_processor
from ..data.labels import LabelEncoder, UnknownCharacters
from ..data.loader import Loader
from ..processing_svtrv2 import SVTRv2Processor
from ..sources import open_source


Counts = Counter[tuple[int, str]]  # of samples, by the number of their source and an outcome


def make_loader(batches: TrainingBatches | EvaluationBatches, args: Any) -> Loader:
    """Return a loader of complete batches; `args` are the TrainingArguments.

    Processes and workers read separate shards, so neither accelerate nor torch may split or gather batches.
    """
    batches.rank, batches.world_size = args.process_index, args.world_size
    return Loader(
        batches,
        num_workers=args.dataloader_num_workers,
        prefetch_factor=args.dataloader_prefetch_factor if args.dataloader_num_workers else None,
        multiprocessing_context=args.dataloader_multiprocessing_context if args.dataloader_num_workers else None,
        # the default generator would advance the random state that was restored from a checkpoint
        generator=torch.Generator(),
        pin_memory=args.dataloader_pin_memory and args.device.type == "cuda" and batches.device.type == "cpu",
        worker_init_fn=_init_worker,
    )


def _init_worker(_worker: int) -> None:
    """Use one thread, and ignore signals to the process group: the trainer saves a checkpoint before it stops its workers."""
    torch.set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class TrainingStream:
    """The training loader with its position.

    Attributes:
        counts: samples of the batches taken.
        position: position after the last batch taken.
        waited: seconds spent waiting for data since the last reset to 0.
    """

    def __init__(self, loader: Loader, counts: Counts, position: Position):
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
            batch = next(self._batches)  # endless, so that no process can reach the end before the others
            self.waited += time.perf_counter() - start
            self.counts.update(batch["counts"])
            workers = list(self.position.workers)
            workers[batch["worker"]] = Progress(batch["formed"], batch["read"], batch["waiting"].tolist())
            self.position = Position(self.position.taken + 1, workers)
            yield {name: batch[name] for name in ("pixels", "labels", "frame_labels") if name in batch}

    def close(self) -> None:
        """Stop the workers."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def to_model_inputs(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move a batch to the device as bytes and convert it to pixel values there."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return {"pixel_values": pixel_values_of(moved.pop("pixels")), **moved}


def training_batches(
    train_data: str | Path | Sequence[str | Path],
    processor: SVTRv2Processor,
    batch_size: int = 32,
    max_label_length: int | None = None,
    unknown_characters: UnknownCharacters = "error",
    augment_operations: int = 3,
    seed: int = 0,
) -> Iterator[dict[str, torch.Tensor]]:
    """Return an endless iterator over batches for a training loop of your own: `model(**batch)` computes the loss.

    The images of a batch have one size. Samples that cannot be trained on are skipped.

    Args:
        train_data: sources, see [`open_source`].
        processor: processor of the model.
        batch_size: number of images up to 32 x 128 pixels; batches of wider images are smaller.
        max_label_length: skip samples with longer labels.
        unknown_characters: handling of labels with characters outside the charset; see [`LabelEncoder`].
        augment_operations: number of random operations per image; 0 turns augmentation off.
        seed: random seed of order and augmentation.

    Returns:
        Batches of `pixel_values`, float32 of shape `(n, 3, height, width)`, and `labels` of shape `(n, longest)`, padded with -100.

    Raises:
        ValueError: an argument is not valid, a source cannot be read, a label has characters outside the charset, or no sample
            can be trained on.
    """
    check_processor(processor)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be 1 or more.")
    sources = [open_source(spec) for spec in ([train_data] if isinstance(train_data, (str, Path)) else train_data)]
    encoder = LabelEncoder(charset_of(processor.tokenizer), max_label_length, unknown_characters)
    augmentation = Augmentation(augment_operations, seed=seed) if augment_operations else None
    batches = BucketBatches(sources, encoder, processor.image_processor, batch_size, seed, augmentation)
    cpu = torch.device("cpu")
    return (to_model_inputs({name: batch[name] for name in ("pixels", "labels")}, cpu) for batch in batches)


def count_metrics(counts: Counts, names: Sequence[str]) -> dict[str, float]:
    """Return the counts as log entries: totals, and the counts of each source if there are several."""
    metrics: Counter[str] = Counter()
    for (number, name), count in sorted(counts.items()):
        metrics[f"data/{name}"] += count
        if len(names) > 1:
            metrics[f"data/{names[number]}/{name}"] += count
    return dict(metrics)


def summarize_counts(counts: Counts) -> str:
    """Return a sentence about the share of skipped samples and the reasons."""
    total: Counter[str] = Counter()
    for (_, name), count in counts.items():
        total[name] += count
    read, removed = total.pop("samples", 0), total.pop("dropped_characters", 0)
    skipped = total.total()
    sentence = f"Of {read:,} samples read, {skipped:,} {'was' if skipped == 1 else 'were'} skipped"
    if skipped:
        reasons = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in total.most_common())
        sentence += f" ({100 * skipped / read:.2g} %: {reasons})"
    return sentence + (f"; {removed:,} characters were removed from labels." if removed else ".")
