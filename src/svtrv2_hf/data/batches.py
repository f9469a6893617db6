# SPDX-License-Identifier: Apache-2.0
"""Batches of one image size each (MSR buckets; paper, section 3.2), endless for training and once through to evaluate."""

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

from ..image_processing_svtrv2 import (
    SVTRv2ImageProcessor,
    UnreadableImageError,
    load_rgb,
    open_image,
    upright_size,
)
from ..processing_svtrv2 import pad_labels
from .augmentation import Augmentation
from .labels import LabelEncoder, RejectedSampleError, Rejection, frames_needed
from .mixing import mix
from .sample import IndexedSource, Sample, Source


Size = tuple[int, int]  # height and width in pixels
SIZE_SETTINGS = ("max_ratio", "bucket_sizes", "fixed_height", "min_width", "width_multiple")  # of the image processor


class Waiting(NamedTuple):
    """A sample whose bucket is not yet full.

    Attributes:
        number: of the sample in its part of the stream, from 0.
        item: what the batch is to be made of.
        ids: the label.
        size: of the bucket.
        source: its number.
    """

    number: int
    item: Any
    ids: list[int]
    size: Size
    source: int


class Opened(NamedTuple):
    """A labelled image, opened but not decoded."""

    sample: Sample
    image: Image.Image
    epoch: int


class Progress(NamedTuple):
    """How far one worker has come with its part of a stream.

    Attributes:
        formed: batches formed, including those that came to nothing because none of their images could be decoded.
        read: samples read.
        waiting: numbers, in the order of its stream, of the samples read whose buckets are not yet full.
    """

    formed: int = 0
    read: int = 0
    waiting: Sequence[int] = ()


class Position(NamedTuple):
    """How far a stream has been taken: enough to find the place again.

    Attributes:
        taken: batches taken, of all workers together; they come from the workers in turn.
        workers: the progress of each worker up to the last batch taken from it. A worker without `read` (in checkpoints of
            older versions) forms its batches again.
    """

    taken: int = 0
    workers: Sequence[Progress] = ()


def pixel_values_of(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 of shape `(n, height, width, 3)` to the model's float32 `(n, 3, height, width)` in -1..1, on its device.

    The same values as the image processor's `normalize`; batches travel as bytes and take this form where they are used.
    """
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class TrainingBatches(IterableDataset, ABC):
    """An endless stream of ready batches, the images of each of one size, that ranks and their workers share.

    What a worker yields follows from the arguments alone, so a stream is resumed by passing over the samples that went into
    the batches that were taken.

    Batches hold `pixels`, uint8 of shape `(n, height, width, 3)`; `labels` of shape `(n, longest)` padded with -100;
    `counts`, what this worker has read and rejected since its last batch, by source number and name; and `worker`, `formed`,
    `read` and `waiting`, for the [`Position`].

    Args:
        names: of the sources, for logs.
        encoder: the label rules.
        image_processor: decides sizes and resizes, as it does in reading.
        batch_size: images in a batch up to the processor's base size (32 x 128 pixels); wider ones make smaller batches of the
            same area.
        seed: of the order.

    Attributes:
        num_samples: samples in an epoch, where that is known.
        rank: of the process that takes the batches.
        world_size: how many such processes there are.
        start: where to begin.

    Raises:
        ValueError: while it is read, if none of the samples can be trained on.
        UnknownCharactersError: while it is read, if the encoder's policy is to stop.
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
        self.names = list(names)
        self.encoder = encoder
        self.image_processor = image_processor
        self.batch_size = batch_size
        self.seed = seed
        self.rank, self.world_size = 0, 1
        self.start = Position()

    def settings(self) -> dict[str, Any]:
        """What the stream follows from, beside the number of ranks and workers, in a form that JSON can hold."""
        return {
            "train_data": self.names,
            "per_device_train_batch_size": self.batch_size,
            "seed": self.seed,
            "charset": "".join(self.encoder.ids),
            "max_label_length": self.encoder.max_length,
            "unknown_characters": self.encoder.unknown_characters,
            **{name: getattr(self.image_processor, name) for name in SIZE_SETTINGS},
        }

    def batch_size_of(self, size: Size) -> int:
        """Images of `size` in a batch."""
        height, width = self.image_processor.base_size
        area = size[0] * size[1]
        if list(size) in self.image_processor.bucket_sizes or area <= height * width:
            return self.batch_size
        return max(1, self.batch_size * height * width // area)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, begun, part, parts = self._my_part()
        counts: Counter[tuple[int, str]] = Counter()
        waiting: dict[Size, list[Waiting]] = defaultdict(list)
        unused = undecodable = 0
        formed, skip = (begun.formed, 0) if begun.read else (0, begun.formed)
        for one in self._samples(part, parts, counts, begun):
            if one is not None and one.number < begun.read:
                waiting[one.size].append(one)
                counts.clear()  # it was counted when it was first read
                continue
            if one is None:
                unused += 1
                if unused > self._patience:
                    raise ValueError(f"None of the last {unused} samples can be trained on: {self._tell(counts)}.")
                continue
            unused = 0
            waiting[one.size].append(one)
            if len(waiting[one.size]) < self.batch_size_of(one.size):
                continue
            formed += 1
            full = waiting.pop(one.size)
            if formed <= skip:
                counts.clear()
            elif batch := self._batch(full, counts):
                undecodable = 0
                left = sorted(other.number for bucket in waiting.values() for other in bucket)
                yield {
                    **batch,
                    "counts": dict(counts),
                    "worker": worker,
                    "formed": formed,
                    "read": one.number + 1,
                    "waiting": torch.tensor(left, dtype=torch.long),
                }
                counts.clear()
            else:  # their headers were sound
                undecodable += len(full)
                if undecodable > self._patience:
                    raise ValueError(f"None of the last {undecodable} images can be decoded: {self._tell(counts)}.")

    def batches_per_epoch(self, probe: int = 10_000) -> float:
        """Batches that an epoch makes on average, estimated from `probe` samples drawn at random.

        Raises:
            ValueError: the number of samples is unknown, or none of those drawn can be trained on.
        """
        if self.num_samples is None:
            raise ValueError(
                f"Nobody knows how many samples there are in {', '.join(self.names)}, so an epoch has no length: give "
                "--max_steps, or the number in the source (?samples=NUMBER)."
            )
        drawn = min(probe, self.num_samples)
        counts: Counter[tuple[int, str]] = Counter()
        usable = [one for one in islice(self._samples(0, 1, counts, Progress()), drawn) if one is not None]
        if not usable:
            raise ValueError(f"None of {drawn} samples can be trained on: {self._tell(counts)}.")
        return sum(1 / self.batch_size_of(one.size) for one in usable) / drawn * self.num_samples

    @abstractmethod
    def _samples(
        self, part: int, parts: int, counts: Counter[tuple[int, str]], begun: Progress
    ) -> Iterator[Waiting | None]:
        """The endless samples of a part, as of `_accept`; of those read before, only the ones that are waiting."""

    @abstractmethod
    def _batch(self, waiting: Sequence[Waiting], counts: Counter[tuple[int, str]]) -> dict[str, torch.Tensor] | None:
        """`pixels` and `labels` of samples of one size, or `None` if it comes to nothing."""

    def _accept(
        self,
        number: int,
        text: str,
        look: Callable[[], tuple[Any, Size]],
        source: int,
        counts: Counter[tuple[int, str]],
    ) -> Waiting | None:
        """A sample with its label, or `None` if it is left out; counted either way.

        Args:
            number: of the sample in this part of the stream.
            text: what it says.
            look: tells its item and its size; is asked if the label is good.
            source: the number of its source.
            counts: what is counted.
        """
        counts[source, "samples"] += 1
        try:
            ids = self.encoder.encode(text)
            item, size = look()
            if frames_needed(ids) > size[1] // self.image_processor.pixels_per_frame:
                raise RejectedSampleError(Rejection.UNALIGNABLE, f"{text!r} in {size[0]} x {size[1]} pixels")
        except RejectedSampleError as rejected:
            counts[source, str(rejected.reason)] += 1
            return None
        except UnreadableImageError:
            counts[source, str(Rejection.UNREADABLE)] += 1
            return None
        if dropped := len(text) - len(ids):
            counts[source, "dropped_characters"] += dropped
        return Waiting(number, item, ids, size, source)

    def _my_part(self) -> tuple[int, Progress, int, int]:
        """In a worker: which one it is, its progress so far, its part of the samples, and how many parts there are."""
        info = get_worker_info()
        workers = info.num_workers if info else 1
        # A stream that goes on from the middle must begin with the worker whose turn it is.
        worker = ((info.id if info else 0) + self.start.taken) % workers
        begun = self.start.workers[worker] if self.start.workers else Progress()
        return worker, begun, self.rank * workers + worker, self.world_size * workers

    @property
    def _patience(self) -> int:
        """Samples without use after which there is no hope: every sample of the sources, if there are not very many."""
        return min(self.num_samples or 1_000_000, 1_000_000)

    def _tell(self, counts: Counter[tuple[int, str]]) -> dict[str, int]:
        return {f"{self.names[number]}: {name}": count for (number, name), count in counts.items()}


class _Passing:
    """A source whose samples can be passed over without being read.

    Attributes:
        source: the same, but that it yields functions that fetch the samples.
        over: from now on it yields the samples.
    """

    def __init__(self, source: IndexedSource):
        self.over = False
        self.source = copy.copy(source)
        self.source.fetch = self._fetch  # type: ignore[method-assign]
        self._read = source.fetch

    def _fetch(self, indices: Sequence[int]) -> list[Any]:
        return self._read(indices) if self.over else [partial(self._read, [index]) for index in indices]


class BucketBatches(TrainingBatches):
    """Batches of labelled images.

    Every sample goes to the bucket of its size, which its aspect ratio decides before it is decoded, and waits there as
    bytes. A full bucket is a batch. Buckets carry over from epoch to epoch, so that every sample is seen once in each.

    Args:
        sources: mixed as `mix` does.
        encoder, image_processor, batch_size, seed: as of [`TrainingBatches`].
        augmentation: what is done to images before they are resized.
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
        lengths = [source.num_samples for source in self.sources]
        if None not in lengths:
            self.num_samples = sum(length for length in lengths if length is not None)

    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "train_data": [[source.name, source.num_samples, source.weight] for source in self.sources],
            "augmentation": None if self.augmentation is None else vars(self.augmentation),
            "fingerprints": [source.fingerprint for source in self.sources],
        }

    def _samples(
        self, part: int, parts: int, counts: Counter[tuple[int, str]], begun: Progress
    ) -> Iterator[Waiting | None]:
        sources = [_Passing(source) if isinstance(source, IndexedSource) else None for source in self.sources]
        read = [passing.source if passing else source for passing, source in zip(sources, self.sources, strict=True)]
        stream = enumerate(mix(read, part, parts, self.seed))
        waiting = set(begun.waiting)
        # As many bars as processes x workers would be shown; the parts are equal.
        with tqdm(
            desc="Resuming",
            total=begun.read * parts,
            unit=" samples",
            unit_scale=True,
            delay=5,
            mininterval=5,
            disable=part > 0,
        ) as bar:
            for number, (source, epoch, sample) in islice(stream, begun.read):
                if number in waiting:
                    sample = sample()[0] if callable(sample) else sample
                    yield self._accept(number, sample.text, partial(self._look, sample, epoch), source, counts)
                if not number % 1000:
                    bar.update(1000 * parts)
        for passing in filter(None, sources):
            passing.over = True
        for number, (source, epoch, sample) in stream:
            sample = sample()[0] if callable(sample) else sample
            yield self._accept(number, sample.text, partial(self._look, sample, epoch), source, counts)

    def _look(self, sample: Sample, epoch: int) -> tuple[Opened, Size]:
        image = open_image(sample.image, sample.name)
        return Opened(sample, image, epoch), self.image_processor.target_size(*upright_size(image, sample.name))

    def _batch(self, waiting: Sequence[Waiting], counts: Counter[tuple[int, str]]) -> dict[str, torch.Tensor] | None:
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
    """All images of a source once, in batches of one size each, with their texts as they are.

    Batches hold `pixels`, uint8 of shape `(n, height, width, 3)`; the `samples` they are of; `sizes`, `(width, height)` in
    pixels of the images before they were resized; and `unreadable`, the samples since the last batch whose images could
    not be read, each with the error. The last batch of a worker may hold no image.

    Args:
        source: what is read.
        image_processor: decides sizes and resizes.
        batch_size: images in a batch, at most.
    """

    device = torch.device("cpu")  # of the batches

    def __init__(self, source: Source, image_processor: SVTRv2ImageProcessor, batch_size: int):
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
        for rest in waiting.values():
            yield self._batch(rest, unreadable)
            unreadable = []
        if unreadable:
            yield self._batch([], unreadable)

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
