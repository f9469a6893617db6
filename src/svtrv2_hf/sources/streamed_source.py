# SPDX-License-Identifier: Apache-2.0
"""Sources that can only be read sequentially: parquet, webdataset, and other datasets that `datasets` streams."""

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import fsspec.asyn
import numpy as np
from datasets import Image, IterableDataset
from PIL import Image as PillowImage

from ..data.sample import Sample, Source
from ..paths import user_path
from ..redaction import redact
from .columns import IMAGE, TEXT, pick_column
from .decoding import clean_label
from .shards import OPEN_SHARDS, Shards, check_numbers, is_local, name_file_in_errors
from .spec import Spec
from .splits import files_of_split


logger = logging.getLogger(__name__)

T = TypeVar("T")
Stream = Callable[[list[str] | None], IterableDataset]  # opens a stream of these columns, or of all

BATCH = 64  # samples that are read together
BUFFER = 10_000  # maximum number of samples in the shuffle buffer
BUFFER_BYTES = 64 << 20  # maximum size of their encoded images

if hasattr(os, "register_at_fork"):
    # As in the workers of `datasets`: a lock that is held during the fork would never be released.
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)


class StreamedSource(Source):
    """Samples of shards that can only be read from beginning to end.

    A shuffled pass visits the shards in random order, interleaves several of them, and samples from a buffer of up to
    [`BUFFER`] samples or [`BUFFER_BYTES`] of encoded images. `datasets` can interleave since version 5, but in threads that
    cost more than half of the speed.

    Images may be bytes, dictionaries with `bytes` or `path`, or Pillow images. A missing image has no bytes and a missing label
    is empty, so that the label rules count them.

    Args:
        stream: opens the stream.
        spec: place, name, weight, columns and number of samples.
        num_samples: number of samples according to the data.
        open_shards: number of shards that a shuffled pass interleaves.

    Raises:
        ValueError: the columns are ambiguous or do not contain images and texts, or the numbers of samples differ.
    """

    def __init__(self, stream: Stream, spec: Spec, num_samples: int | None = None, open_shards: int = OPEN_SHARDS):
        if spec.num_samples is not None and num_samples not in (None, spec.num_samples):
            raise ValueError(
                f"{spec}: samples={spec.num_samples} contradicts the data, which have {num_samples:,} samples."
            )
        dataset = stream(None)
        self.place = str(spec)
        first = None if dataset.column_names else self._first_row(dataset)
        columns = list(first or dataset.column_names)
        self.name = spec.name
        self.weight = spec.weight
        self.num_samples = spec.num_samples or num_samples
        self.image = pick_column(self.place, columns, "image", spec.get("image"), IMAGE)
        self.text = pick_column(self.place, columns, "text", spec.get("text"), TEXT)
        self.open_shards = open_shards
        self._stream = stream
        self._dataset = stream([self.image, self.text])
        if dataset.features:
            self._check_types(dataset.features[self.image], dataset.features[self.text])
            if isinstance(dataset.features[self.image], Image):
                self._dataset = self._dataset.cast_column(self.image, Image(decode=False))
        if first is not None:
            self._encode(first[self.image])
            self._clean(first[self.text])

    def _check_types(self, image: Any, text: Any) -> None:
        encoded = getattr(image, "dtype", None) in ("binary", "large_binary")
        if not (encoded or isinstance(image, Image) or (isinstance(image, dict) and image.keys() & {"bytes", "path"})):
            raise self._wrong_type("image", image)
        if getattr(text, "dtype", None) not in ("string", "large_string"):
            raise self._wrong_type("text", text)

    def _wrong_type(self, key: str, found: Any) -> ValueError:
        column = self.image if key == "image" else self.text
        return ValueError(
            f"{self.place}: the {key} column {column} contains {found}. Specify another with ?{key}=COLUMN."
        )

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """Yield the samples of a part: whole shards, if their number is a multiple of `parts`, or every nth sample."""
        whole = self._dataset.num_shards % parts == 0
        dataset = self._dataset.shard(parts, part, contiguous=False) if whole and parts > 1 else self._dataset
        if seed is None:
            rows = self._rows(dataset)
        else:  # parts that share all shards must visit them in the same order
            rng = np.random.default_rng([seed, epoch, part if whole else 0, 3])
            openings = (partial(self._rows, shard) for shard in self._shuffled_shards(dataset, rng))
            rows = _interleave(openings, rng, self.open_shards)
        samples = (self._sample(image, text) for image, text in (rows if whole else islice(rows, part, None, parts)))
        return samples if seed is None else _buffered(samples, np.random.default_rng([seed, epoch, part, 4]))

    def _shuffled_shards(self, dataset: IterableDataset, rng: np.random.Generator) -> Iterator[IterableDataset]:
        # Older versions of `datasets` cannot split files.
        if dataset.num_shards < self.open_shards and hasattr(dataset, "reshard"):
            dataset = dataset.reshard()
        for number in rng.permutation(dataset.num_shards).tolist():
            yield dataset.shard(dataset.num_shards, number)

    def _batches(self, dataset: IterableDataset, batch_size: int) -> Iterator[dict[str, Any]]:
        # Not `iter(dataset)`, which would distribute a worker's part among the workers again.
        with name_file_in_errors(self.place):
            yield from dataset.iter(batch_size=batch_size)

    def _first_row(self, dataset: IterableDataset) -> dict[str, Any]:
        for batch in self._batches(dataset, 1):
            return {name: values[0] for name, values in batch.items()}
        raise ValueError(f"No samples in {self.place}.")

    def _rows(self, dataset: IterableDataset) -> Iterator[tuple[Any, Any]]:
        for batch in self._batches(dataset, BATCH):
            yield from zip(batch[self.image], batch[self.text], strict=True)

    def _sample(self, image: Any, text: Any) -> Sample:
        text = self._clean(text)
        path = image.get("path") if isinstance(image, dict) else None
        if path and "://" in path:
            path = redact(path)
        return Sample(self._encode(image), text, path or f"{self.place}, {text!r}")

    def texts(self) -> Iterator[str]:
        """Yield the labels, without reading the images if the format allows it.

        Raises:
            ValueError: their number differs from `num_samples`.
        """
        read = 0
        for batch in self._batches(self._stream([self.text]), 1024):
            read += len(batch[self.text])
            yield from map(self._clean, batch[self.text])
        if self.num_samples not in (None, read):
            raise ValueError(f"{self.place} has {read:,} samples, not {self.num_samples:,}: correct ?samples=NUMBER.")

    def _clean(self, text: Any) -> str:
        if text is not None and not isinstance(text, str):
            raise self._wrong_type("text", repr(text))
        return clean_label(text or "", self.place)

    def _encode(self, image: Any) -> bytes:
        if isinstance(image, dict) and image.keys() & {"bytes", "path"}:
            image = image["bytes"] if image.get("bytes") is not None else _read(image.get("path"))
        if image is None:
            return b""
        if isinstance(image, PillowImage.Image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return buffer.getvalue()
        if not isinstance(image, bytes):
            raise self._wrong_type("image", f"a {type(image).__name__}")
        return image


def open_files(kind: type[Shards], spec: Spec, files: Sequence[str]) -> StreamedSource:
    """Open the files of a split.

    Raises:
        ValueError: shards are missing, a file is truncated or damaged, or all are empty.
    """
    files = files_of_split(str(spec), files, spec.split)
    check_numbers(files, "*" if user_path(spec.place.removeprefix("file://")).is_dir() else Path(spec.place).name)
    source = open_shards(kind, spec, files)
    source.local = all(map(is_local, files))
    return source


def open_shards(
    kind: type[Shards], spec: Spec, files: Sequence[str], num_samples: int | None = None
) -> StreamedSource:
    """Open shards, except those without samples, and count the samples if this is cheap.

    Args:
        kind: format of the shards.
        spec: place, name, weight, columns and number of samples.
        files: paths or addresses.
        num_samples: number of samples, if it cannot be counted.

    Raises:
        ValueError: a file is truncated or damaged, or all are empty.
    """
    # Remote files are not counted, since each would cost a request.
    counts = {file: kind.count(file) if is_local(file) else None for file in files}
    if not any(number != 0 for number in counts.values()):
        raise ValueError(f"No samples in {', '.join(files)}.")
    if empty := [file for file, number in counts.items() if number == 0]:
        logger.warning("Skipping files without samples: %s.", ", ".join(empty))
    known = [number for number in counts.values() if number is not None]
    if len(known) == len(counts):
        num_samples = sum(known)
    shards = kind([file for file, number in counts.items() if number != 0], spec.get("image"), spec.get("text"))
    return StreamedSource(shards, spec, num_samples, shards.max_open_shards())


def _interleave(openings: Iterable[Callable[[], Iterator[T]]], rng: np.random.Generator, count: int) -> Iterator[T]:
    """Yield items of several streams, each from a random one of `count` open streams; the next one replaces one that ends."""
    waiting = iter(openings)
    streams = [opening() for opening in islice(waiting, count)]
    while streams:
        for position in rng.random(1024).tolist():
            number = int(position * len(streams))
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
    """Yield random samples of a buffer that is kept full."""
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
