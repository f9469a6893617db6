# SPDX-License-Identifier: Apache-2.0
"""Batches of one image size each (MSR buckets; paper, section 3.2), endless for training and a single pass for evaluation."""

import copy
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import torch
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb, open_image, upright_size
from ..processing_svtrv2 import pad_labels
from .augmentation import Augmentation
from .labels import LabelEncoder, RejectedSampleError, Rejection, frames_needed
from .mixing import mix
from .sample import IndexedSource, Sample, Source


Size = tuple[int, int]  # height and width in pixels
Counts = Counter[tuple[int, str]]  # by number of the source and name


class Waiting(NamedTuple):
    """A sample whose bucket is not full yet."""

    number: int  # in its part of the stream
    item: Any  # input of `make_batch`
    ids: list[int]
    size: Size
    source: int


class OpenedImage(NamedTuple):
    """A sample whose image is opened but not decoded, and the epoch of its source."""

    sample: Sample
    image: Image.Image
    epoch: int


class Progress(NamedTuple):
    """Progress of one worker with its part of a stream."""

    formed: int = 0  # batches, including those without any decodable image
    read: int = 0  # samples
    waiting: Sequence[int] = ()  # indices of the samples read whose buckets are not full yet, ascending


class Position(NamedTuple):
    """Position in a stream, from which it can be resumed.

    `taken` is the number of batches taken from all workers, which alternate; `workers` the progress of each worker up to the last
    batch taken from it.
    """

    taken: int = 0
    workers: Sequence[Progress] = ()


def pixel_values_of(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 `(n, height, width, 3)` to the model's input, float32 `(n, 3, height, width)` in -1..1, on its device.

    The values are those of an image processor with default settings. Batches contain bytes until they are used.
    """
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _check_pixels(image_processor: SVTRv2ImageProcessor) -> None:
    if not image_processor.has_default_pixels:
        raise ValueError(
            "Batches are normalized to -1..1, but the image processor has other values of do_rescale, rescale_factor, do_normalize, "
            "image_mean or image_std: reset them, or train with transformers' Trainer and SVTRv2DataCollator."
        )


class TrainingBatches(IterableDataset, ABC):
    """An endless stream of batches with images of one size each, shared by ranks and their workers.

    The batches of a worker depend only on the arguments, so a stream is resumed by skipping the samples of previous batches.

    Batches contain `pixels`, uint8 of shape `(n, height, width, 3)`; `labels` of shape `(n, longest)` padded with -100; `counts`
    of samples read and rejected by this worker since its last batch, by source number and name; and `worker`, `formed`, `read`
    and `waiting` for the [`Position`].

    Args:
        names: names of the sources for logs.
        encoder: label rules.
        image_processor: computes sizes and resizes, as for inference.
        batch_size: number of images up to the processor's base size (32 x 128 pixels); batches of wider images are smaller, with
            the same area.
        seed: random seed of the order.

    Attributes:
        num_samples: number of samples in an epoch, if known.
        rank: index of the process that takes the batches.
        world_size: number of such processes.
        start: position to start from.

    Raises:
        ValueError: during iteration, if no sample can be trained on.
        UnknownCharactersError: during iteration, if the encoder raises it.
    """

    num_samples: int | None = None
    device = torch.device("cpu")  # of the batches

    def __init__(
        self,
        names: Sequence[str],
        encoder: LabelEncoder,
        image_processor: SVTRv2ImageProcessor,
        batch_size: int,
        seed: int = 0,
    ):
        _check_pixels(image_processor)
        self.names = list(names)
        self.encoder = encoder
        self.image_processor = image_processor
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = 0, 1
        self.start = Position()

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the stream, except the number of ranks and workers, JSON-compatible."""
        return {
            "train_data": self.names,
            "per_device_train_batch_size": self.batch_size,
            "seed": self.seed,
            "charset": "".join(self.encoder.ids),
            "max_label_length": self.encoder.max_length,
            "unknown_characters": self.encoder.unknown_characters,
            **{name: getattr(self.image_processor, name) for name in self.image_processor.size_attributes},
        }

    def batch_size_of(self, size: Size) -> int:
        """Return the number of images of this size in a batch."""
        height, width = self.image_processor.base_size
        area = size[0] * size[1]
        if list(size) in self.image_processor.bucket_sizes or area <= height * width:
            return self.batch_size
        return max(1, self.batch_size * height * width // area)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        workers = info.num_workers if info else 1
        # A resumed stream starts with the worker whose turn it is.
        worker = ((info.id if info else 0) + self.start.taken) % workers
        done = self.start.workers[worker] if self.start.workers else Progress()
        counts: Counts = Counter()
        buckets: dict[Size, list[Waiting]] = defaultdict(list)
        formed = done.formed
        unused = undecodable = 0
        for sample in self.samples(self.rank * workers + worker, self.world_size * workers, counts, done):
            if sample is None:
                unused += 1
                if unused > self._patience:
                    raise ValueError(f"None of the last {unused} samples can be trained on: {self._describe(counts)}.")
                continue
            bucket = buckets[sample.size]
            bucket.append(sample)
            if sample.number < done.read:
                counts.clear()  # it was counted before
                continue
            unused = 0
            if len(bucket) < self.batch_size_of(sample.size):
                continue
            formed += 1
            del buckets[sample.size]
            if batch := self.make_batch(bucket, counts):
                undecodable = 0
                rest = sorted(other.number for waiting in buckets.values() for other in waiting)
                yield {
                    **batch,
                    "counts": dict(counts),
                    "worker": worker,
                    "formed": formed,
                    "read": sample.number + 1,
                    "waiting": torch.tensor(rest, dtype=torch.long),
                }
                counts.clear()
            else:
                undecodable += len(bucket)
                if undecodable > self._patience:
                    raise ValueError(
                        f"None of the last {undecodable} images can be decoded: {self._describe(counts)}."
                    )

    def batches_per_epoch(self, probe: int = 10_000) -> float:
        """Return the mean number of batches in an epoch, estimated from `probe` random samples.

        Raises:
            ValueError: the number of samples is unknown, or none of the random samples can be trained on.
        """
        if self.num_samples is None:
            raise ValueError(
                f"The number of samples in {', '.join(self.names)} is unknown, and so is the length of an epoch: set "
                "--max_steps, or the number in the source (?samples=NUMBER)."
            )
        number = min(probe, self.num_samples)
        counts: Counts = Counter()
        usable = [sample for sample in islice(self.samples(0, 1, counts, Progress()), number) if sample is not None]
        if not usable:
            raise ValueError(f"None of {number} samples can be trained on: {self._describe(counts)}.")
        return sum(1 / self.batch_size_of(sample.size) for sample in usable) / number * self.num_samples

    @abstractmethod
    def samples(self, part: int, parts: int, counts: Counts, done: Progress) -> Iterator[Waiting | None]:
        """Yield the results of `accept` for the endless samples of a part; of those read before, only the waiting ones."""

    @abstractmethod
    def make_batch(self, waiting: Sequence[Waiting], counts: Counts) -> dict[str, torch.Tensor] | None:
        """Return `pixels` and `labels` of samples of one size, or `None` if no image can be decoded."""

    def accept(
        self, number: int, text: str, prepare: Callable[[], tuple[Any, Size]], source: int, counts: Counts
    ) -> Waiting | None:
        """Apply the label rules to a sample and update `counts`; return the sample, or `None` if it is rejected.

        `prepare` returns item and size, and is called only if the label is valid.
        """
        counts[source, "samples"] += 1
        try:
            ids = self.encoder.encode(text)
            item, size = prepare()
            if frames_needed(ids) > size[1] // self.image_processor.pixels_per_frame:
                raise RejectedSampleError(Rejection.UNALIGNABLE, f"{text!r} in {size[0]} x {size[1]} pixels")
        except (RejectedSampleError, UnreadableImageError) as error:
            counts[source, str(getattr(error, "reason", Rejection.UNREADABLE))] += 1
            return None
        if dropped := len(text) - len(ids):
            counts[source, "dropped_characters"] += dropped
        return Waiting(number, item, ids, size, source)

    @property
    def _patience(self) -> int:
        """Number of unusable samples before an error: all samples of the sources, if there are not more than a million."""
        return min(self.num_samples or 1_000_000, 1_000_000)

    def _describe(self, counts: Counts) -> dict[str, int]:
        return {f"{self.names[number]}: {name}": count for (number, name), count in counts.items()}


class _Skippable:
    """A copy of a source that yields functions, which return lists of one sample; samples if `skipping` is false."""

    def __init__(self, source: IndexedSource):
        self.skipping = True
        self.source = copy.copy(source)
        self.source.fetch = self._fetch  # type: ignore[method-assign]
        self._read = source.fetch

    def _fetch(self, indices: Sequence[int]) -> list[Any]:
        return [partial(self._read, [index]) for index in indices] if self.skipping else self._read(indices)


class BucketBatches(TrainingBatches):
    """Batches of labeled images.

    The aspect ratio of a sample, known before it is decoded, determines the size and thereby the bucket, where the sample waits
    as bytes. A full bucket becomes a batch. Buckets persist over epochs, so that every sample is used once in each.

    Args:
        sources: sources, mixed by [`mix`].
        encoder, image_processor, batch_size, seed: see [`TrainingBatches`].
        augmentation: augmentation of images before they are resized.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        encoder: LabelEncoder,
        image_processor: SVTRv2ImageProcessor,
        batch_size: int,
        seed: int = 0,
        augmentation: Augmentation | None = None,
    ):
        super().__init__([source.name for source in sources], encoder, image_processor, batch_size, seed)
        self.sources = list(sources)
        self.augmentation = augmentation
        lengths = [source.num_samples for source in sources if source.num_samples is not None]
        self.num_samples = sum(lengths) if len(lengths) == len(sources) else None

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "train_data": [[source.name, source.num_samples, source.weight] for source in self.sources],
            "augmentation": None if self.augmentation is None else vars(self.augmentation),
            "fingerprints": [source.fingerprint for source in self.sources],
        }

    def samples(self, part: int, parts: int, counts: Counts, done: Progress) -> Iterator[Waiting | None]:
        skippable = [_Skippable(source) for source in self.sources if isinstance(source, IndexedSource)]
        copies = iter(skippable)
        sources = [next(copies).source if isinstance(source, IndexedSource) else source for source in self.sources]
        stream = enumerate(mix(sources, part, parts, self.seed))
        waiting = set(done.waiting)
        # The parts are equal, so one bar represents all processes x workers.
        with tqdm(
            None, "Resuming", done.read * parts, unit=" samples", delay=5, mininterval=5, disable=part > 0
        ) as bar:
            for number, (source, epoch, sample) in islice(stream, done.read):
                if number in waiting:
                    yield self._accept_image(number, source, epoch, sample, counts)
                if not number % 1000:
                    bar.update(1000 * parts)
        for copied in skippable:
            copied.skipping = False
        for number, (source, epoch, sample) in stream:
            yield self._accept_image(number, source, epoch, sample, counts)

    def _accept_image(self, number: int, source: int, epoch: int, sample: Any, counts: Counts) -> Waiting | None:
        sample = sample()[0] if callable(sample) else sample
        return self.accept(number, sample.text, partial(self._open, sample, epoch), source, counts)

    def _open(self, sample: Sample, epoch: int) -> tuple[OpenedImage, Size]:
        image = open_image(sample.image, sample.name)
        return OpenedImage(sample, image, epoch), self.image_processor.target_size(*upright_size(image, sample.name))

    def make_batch(self, waiting: Sequence[Waiting], counts: Counts) -> dict[str, torch.Tensor] | None:
        images, labels = [], []
        for _, (sample, opened, epoch), ids, size, source in waiting:
            try:
                image = load_rgb(opened, name=sample.name)
            except UnreadableImageError:
                counts[source, str(Rejection.UNREADABLE)] += 1
                continue
            if self.augmentation is not None:
                image = self.augmentation(image, size, epoch, crc32(sample.image))
            images.append(self.image_processor.resize(image, size))
            labels.append(ids)
        if not images:
            return None
        return {"pixels": torch.from_numpy(np.stack(images)), "labels": torch.from_numpy(pad_labels(labels))}


class EvaluationBatches(IterableDataset):
    """All images of a source once, in batches of one size each.

    Batches contain `pixels`, uint8 of shape `(n, height, width, 3)`; the `samples`; `sizes`, the original `(width, height)` of
    the images in pixels; and `unreadable`, pairs of the unreadable samples since the last batch and their errors. The last
    batch of a worker may have no images.

    Args:
        source: source of the samples.
        image_processor: computes sizes and resizes.
        batch_size: maximum number of images in a batch.
    """

    device = torch.device("cpu")  # of the batches

    def __init__(self, source: Source, image_processor: SVTRv2ImageProcessor, batch_size: int):
        _check_pixels(image_processor)
        self.source = source
        self.image_processor = image_processor
        self.batch_size = batch_size
        self.rank, self.world_size = 0, 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        waiting: dict[Size, list[tuple[np.ndarray, Sample, tuple[int, int]]]] = defaultdict(list)
        unreadable: list[tuple[Sample, str]] = []
        for sample in self.source.read(self.rank * workers + worker, self.world_size * workers):
            try:
                image = load_rgb(sample.image, name=sample.name)
            except UnreadableImageError as error:
                unreadable.append((sample, str(error)))
                continue
            size = self.image_processor.target_size(*image.size)
            waiting[size].append((self.image_processor.resize(image, size), sample, image.size))
            if len(waiting[size]) == self.batch_size:
                yield self._batch(waiting.pop(size), unreadable)
                unreadable = []
        for rest in [*waiting.values(), []]:
            if rest or unreadable:
                yield self._batch(rest, unreadable)
                unreadable = []

    @staticmethod
    def _batch(
        images: Sequence[tuple[np.ndarray, Sample, tuple[int, int]]], unreadable: list[tuple[Sample, str]]
    ) -> dict[str, Any]:
        pixels = np.stack([image for image, _, _ in images]) if images else np.zeros((0, 4, 4, 3), np.uint8)
        return {
            "pixels": torch.from_numpy(pixels),
            "samples": [sample for _, sample, _ in images],
            "sizes": [size for _, _, size in images],
            "unreadable": unreadable,
        }
