# SPDX-License-Identifier: Apache-2.0
"""Labelled images from whatever the library `datasets` can stream: parquet, webdataset, and datasets of the Hub."""

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import fsspec.asyn
import numpy as np
from datasets import DatasetBuilder, Image, IterableDataset, load_dataset_builder
from PIL import Image as PillowImage

from ..data.sample import Sample, Source
from ..redaction import redact
from .columns import IMAGE_COLUMNS, OTHER_IMAGE_COLUMNS, OTHER_TEXT_COLUMNS, TEXT_COLUMNS, pick_column
from .decoding import label_of
from .shards import OPEN_SHARDS, ParquetShards, Shards, check_numbers, naming, open_shards
from .tar_shards import TarShards


T = TypeVar("T")

BATCH = 64  # samples that are read together
BUFFER = 10_000  # samples in the shuffle buffer, at most
BUFFER_BYTES = 64 << 20  # of their encoded images, at most

if hasattr(os, "register_at_fork"):
    # The workers of `datasets` itself do this: a lock that was held during the fork would be held for ever.
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)


class Stream(Protocol):
    """Opens a stream of these columns, or of all."""

    def __call__(self, columns: list[str] | None = None) -> IterableDataset: ...


class StreamedSource(Source):
    """Samples of shards that can only be read from their beginning to their end.

    A shuffled pass visits the shards in random order and interleaves several of them, and draws from a buffer of up to
    [`BUFFER`] samples or [`BUFFER_BYTES`] of encoded images. If there are fewer files than open shards, the row groups of parquet
    files are the shards. `datasets` interleaves from version 5 on, but in threads that cost more than half of the speed.

    Args:
        stream: opens the stream.
        place: where it comes from, for messages.
        name: for logs.
        weight: in a mixture.
        num_samples: how many there are, if known.
        image: the column of the images: bytes, a dictionary with `bytes` or `path`, or images of Pillow. If not given,
            the one that has a usual name. An image that is missing has no bytes, so that the label rules count it.
        text: the column of the texts, likewise. A text that is missing is empty.
        open_shards: how many shards a shuffled pass interleaves.

    Raises:
        ValueError: the columns cannot be told, or do not hold images and texts.
    """

    def __init__(
        self,
        stream: Stream,
        place: str,
        name: str,
        weight: float | None = None,
        num_samples: int | None = None,
        image: str | None = None,
        text: str | None = None,
        open_shards: int = OPEN_SHARDS,
    ):
        dataset = stream()
        first = None if dataset.column_names else _first_row(dataset, place)
        columns = list(first or dataset.column_names)
        self.place = place
        self.name = name
        self.weight = weight
        self.num_samples = num_samples
        self.image = pick_column(place, columns, "image", image, IMAGE_COLUMNS, OTHER_IMAGE_COLUMNS)
        self.text = pick_column(place, columns, "text", text, TEXT_COLUMNS, OTHER_TEXT_COLUMNS)
        self.open_shards = open_shards
        self._stream = stream
        self._dataset = stream([self.image, self.text])
        if dataset.features:
            self._check(dataset.features[self.image], dataset.features[self.text])
            if isinstance(dataset.features[self.image], Image):
                self._dataset = self._dataset.cast_column(self.image, Image(decode=False))
        if first is not None:
            self._encoded(first[self.image])
            self._checked(first[self.text])

    def _check(self, image: Any, text: Any) -> None:
        """Refuses columns whose type says that they hold something else."""
        encoded = getattr(image, "dtype", None) in ("binary", "large_binary")
        if not (encoded or isinstance(image, Image) or (isinstance(image, dict) and image.keys() & {"bytes", "path"})):
            raise self._wrong("image", image)
        if getattr(text, "dtype", None) not in ("string", "large_string"):
            raise self._wrong("text", text)

    def _wrong(self, key: str, found: Any) -> ValueError:
        column = self.image if key == "image" else self.text
        return ValueError(
            f"{self.place}: the column {column} should hold the {key} and holds {found}. "
            f"Name another by ?{key}=COLUMN after the place."
        )

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """One pass over a part.

        Parts are made of whole shards if these can be dealt out evenly; if not, each part reads all and keeps its share.
        """
        whole = self._dataset.num_shards % parts == 0
        dataset = self._dataset.shard(parts, part, contiguous=False) if whole and parts > 1 else self._dataset
        if seed is None:
            rows = self._rows(dataset)
        else:  # parts that share all shards must visit them in the same order
            rng = np.random.default_rng([seed, epoch, part if whole else 0, 3])
            rows = _interleave(
                (partial(self._rows, shard) for shard in self._shards(dataset, rng)), rng, self.open_shards
            )
        samples = (self._sample(image, text) for image, text in (rows if whole else islice(rows, part, None, parts)))
        return samples if seed is None else _buffered(samples, np.random.default_rng([seed, epoch, part, 4]))

    def _shards(self, dataset: IterableDataset, rng: np.random.Generator) -> Iterator[IterableDataset]:
        """The shards of a dataset, each as one of its own, in random order."""
        if dataset.num_shards < self.open_shards and hasattr(
            dataset, "reshard"
        ):  # which older versions of `datasets` lack
            dataset = dataset.reshard()
        for number in rng.permutation(dataset.num_shards).tolist():
            yield dataset.shard(dataset.num_shards, number)

    def _rows(self, dataset: IterableDataset) -> Iterator[tuple[Any, Any]]:
        # Not by `iter(dataset)`, which would divide a worker's part among the workers once more.
        for batch in _named(dataset.iter(batch_size=BATCH), self.place):
            yield from zip(batch[self.image], batch[self.text], strict=True)

    def _sample(self, image: Any, text: Any) -> Sample:
        text = self._checked(text)
        path = image.get("path") if isinstance(image, dict) else None
        if path and "://" in path:
            path = redact(path)
        return Sample(self._encoded(image), text, path or f"{self.place}, {text!r}")

    def texts(self) -> Iterator[str]:
        """The texts, without the other columns where the format allows.

        Raises:
            ValueError: there are more or fewer of them than `num_samples`.
        """
        read = 0
        for batch in _named(self._stream([self.text]).iter(batch_size=1024), self.place):
            read += len(batch[self.text])
            yield from map(self._checked, batch[self.text])
        if self.num_samples not in (None, read):
            raise ValueError(f"{self.place} has {read:,} samples, not {self.num_samples:,}: correct ?samples=NUMBER.")

    def _checked(self, text: Any) -> str:
        if text is not None and not isinstance(text, str):
            raise self._wrong("text", repr(text))
        return label_of(text or "", self.place)

    def _encoded(self, image: Any) -> bytes:
        if isinstance(image, dict) and image.keys() & {"bytes", "path"}:
            image = image["bytes"] if image.get("bytes") is not None else _read(image.get("path"))
        if image is None:
            return b""
        if isinstance(image, PillowImage.Image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return buffer.getvalue()
        if not isinstance(image, bytes):
            raise self._wrong("image", f"a {type(image).__name__}")
        return image


def _interleave(openings: Iterable[Callable[[], Iterator[T]]], rng: np.random.Generator, count: int) -> Iterator[T]:
    """Items of several streams, each from one of `count` open ones at random; where one ends, the next is opened."""
    waiting = iter(openings)
    streams = [opening() for opening in islice(waiting, count)]
    while streams:
        for draw in rng.random(1024).tolist():
            number = int(draw * len(streams))
            try:
                yield next(streams[number])
            except StopIteration:
                if (opening := next(waiting, None)) is not None:
                    streams[number] = opening()
                else:
                    del streams[number]
                    if not streams:
                        break


def _buffered(samples: Iterator[Sample], rng: np.random.Generator) -> Iterator[Sample]:
    """Draws from a buffer that is kept full."""
    buffer: list[Sample] = []
    size = 0
    for sample in samples:
        buffer.append(sample)
        size += len(sample.image)
        while len(buffer) > BUFFER or size > BUFFER_BYTES:
            number = int(rng.random() * len(buffer))
            buffer[number], buffer[-1] = buffer[-1], buffer[number]
            size -= len(buffer[-1].image)
            yield buffer.pop()
    for number in rng.permutation(len(buffer)).tolist():
        yield buffer[number]


def _read(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        with fsspec.open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _first_row(dataset: IterableDataset, place: str) -> dict[str, Any]:
    for batch in _named(dataset.iter(batch_size=1), place):
        return {name: values[0] for name, values in batch.items()}
    raise ValueError(f"There is no sample in {place}.")


def _named(batches: Iterator[dict[str, Any]], place: str) -> Iterator[dict[str, Any]]:
    """The same batches; an error of a library names the place."""
    with naming(place):
        yield from batches


# Read by this package, since `datasets` loses what is cut off, and does not name the file.
_SHARDS: dict[str, type[Shards]] = {"parquet": ParquetShards, "webdataset": TarShards}


def open_stream(
    path: str,
    data_files: Sequence[str] | None = None,
    config: str | None = None,
    splits: Sequence[str] = ("train",),
    image: str | None = None,
    text: str | None = None,
) -> tuple[Stream, int | None, int]:
    """A stream of files, or of a data set, its number of samples where that is known or cheap to find, and the shards to interleave.

    Args:
        path: a dataset of the Hub, or a folder; or a format, `parquet` or `webdataset`, with `data_files`.
        data_files: the shards.
        config: of a dataset, if it has several.
        splits: which to read: the first of these that there is.
        image, text: the columns, if they are chosen.

    Raises:
        ValueError: there is no such split or configuration; or a file is cut off or damaged, or none has a sample.
    """
    if data_files is not None:
        shards, known = open_shards(_SHARDS[path], data_files, image, text)
        return shards, known, shards.at_once()
    with naming(path):
        builder = load_dataset_builder(path, config)
        available = [str(name) for name in builder.config.data_files or builder.as_streaming_dataset()]
    split = next((name for name in splits if name in available), None)
    if split is None:
        raise ValueError(
            f"{path} has no split {splits[0]!r}; it has {', '.join(available)}. Name one after the place: ?split=NAME."
        )
    if builder.name in _SHARDS:
        check_numbers(builder.config.data_files[split])
        shards, known = open_shards(_SHARDS[builder.name], builder.config.data_files[split], image, text)
        return shards, _num_samples(builder, split) if known is None else known, shards.at_once()
    with naming(path):
        dataset = builder.as_streaming_dataset(split=split)
    return partial(_select, dataset), _num_samples(builder, split), OPEN_SHARDS


def _num_samples(builder: DatasetBuilder, split: str) -> int | None:
    splits = builder.info.splits or {}
    return (splits[split].num_examples or None) if split in splits else None


def _select(dataset: IterableDataset, columns: list[str] | None = None) -> IterableDataset:
    return dataset.select_columns(columns) if columns else dataset
