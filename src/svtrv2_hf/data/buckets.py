# SPDX-License-Identifier: Apache-2.0
"""Training batches of one image size each (MSR buckets; paper, section 3.2)."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb, upright_size
from ..processing_svtrv2 import pad_labels
from .folder import Sample
from .labels import LabelEncoder, RejectedSampleError, Rejection, frames_needed


PIXELS_PER_FRAME = 4  # of an image's width


class BucketBatches(IterableDataset):
    """An endless stream of ready batches, the images of each of one size.

    Every sample goes to the bucket of its size, which its aspect ratio decides before it is decoded, and waits there as
    bytes. A full bucket is a batch. Buckets carry over from epoch to epoch, so that every sample is seen once in each.

    Batches hold `pixel_values` of shape `(n, 3, height, width)`, `labels` of shape `(n, longest)` padded with -100, and
    `counts`, what this worker has read and rejected since its last batch, for the trainer to add up.

    Args:
        samples: all images and texts.
        encoder: the label rules.
        image_processor: decides sizes and resizes, as it does in reading.
        batch_size: images in a batch of 32 x 128 pixels or as many; larger images make smaller batches.
        seed: of the order.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        encoder: LabelEncoder,
        image_processor: SVTRv2ImageProcessor,
        batch_size: int,
        seed: int = 0,
    ):
        self.samples = samples
        self.encoder = encoder
        self.image_processor = image_processor
        self.batch_size = batch_size
        self.seed = seed

    def batch_size_of(self, size: tuple[int, int]) -> int:
        """Images of `size`, `(height, width)` in pixels, in a batch."""
        return max(1, min(self.batch_size, self.batch_size * 32 * 128 // (size[0] * size[1])))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        waiting: dict[tuple[int, int], list[tuple[Sample, bytes, list[int]]]] = defaultdict(list)
        counts: Counter[str] = Counter()
        epoch = 0
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.samples))[first::step]
            usable = 0
            for index in order:
                counts["samples"] += 1
                try:
                    sample, data, ids, size = self._open(self.samples[index])
                except RejectedSampleError as rejected:
                    counts[str(rejected.reason)] += 1
                    continue
                usable += 1
                waiting[size].append((sample, data, ids))
                if len(waiting[size]) < self.batch_size_of(size):
                    continue
                if batch := self._batch(waiting.pop(size), counts):
                    yield {**batch, "counts": dict(counts)}
                    counts.clear()
            if not usable:
                raise ValueError(f"None of the {len(order)} samples can be trained on: {dict(counts)}.")
            epoch += 1

    def _open(self, sample: Sample) -> tuple[Sample, bytes, list[int], tuple[int, int]]:
        ids = self.encoder.encode(sample.text)
        data = sample.path.read_bytes()
        try:
            size = self.image_processor.target_size(*upright_size(data, str(sample.path)))
        except UnreadableImageError as error:
            raise RejectedSampleError(Rejection.UNREADABLE, str(error)) from error
        if frames_needed(ids) > size[1] // PIXELS_PER_FRAME:
            raise RejectedSampleError(Rejection.UNALIGNABLE, f"{sample.text!r} in {size[0]} x {size[1]} pixels")
        return sample, data, ids, size

    def _batch(
        self, waiting: Sequence[tuple[Sample, bytes, list[int]]], counts: Counter[str]
    ) -> dict[str, torch.Tensor] | None:
        images, labels = [], []
        for sample, data, ids in waiting:
            try:
                image = load_rgb(data, name=str(sample.path))
            except UnreadableImageError:
                counts[str(Rejection.UNREADABLE)] += 1
                continue
            images.append(self.image_processor.prepare(image))
            labels.append(ids)
        if not images:
            return None
        return {"pixel_values": torch.from_numpy(np.stack(images)), "labels": torch.from_numpy(pad_labels(labels))}
