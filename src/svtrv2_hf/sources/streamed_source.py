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
from PIL import Image as PillowImage

from ..data.sample import Sample, Source
from ..paths import user_path
from ..redaction import redact
from .columns import IMAGE, TEXT, pick_column
from .decoding import clean_label
from .shards import FileShards, Shards, check_numbers, is_local, name_file_in_errors
from .spec import Spec
from .splits import files_of_split


logger = logging.getLogger(__name__)

T = TypeVar("T")

BUFFER = 10_000  # maximum number of samples in the shuffle buffer
BUFFER_BYTES = 64 << 20  # maximum size of their encoded images

if hasattr(os, "register_at_fork"):
    # As in the workers of `datasets`: a lock that is held during the fork would never be released.
    os.register_at_fork(after_in_child=fsspec.asyn.reset_lock)


class StreamedSource(Source):
    """Samples of shards that can only be read from beginning to end.

    A shuffled pass visits the shards in random order, interleaves several of them, and samples from a buffer of up to
    [`BUFFER`] samples or [`BUFFER_BYTES`] of encoded images.

    Images may be bytes, dictionaries with `bytes` or `path`, or Pillow images. A missing image has no bytes and a missing label
    is empty, so that the label rules count them.

    Args:
        shards: the shards.
        spec: place, name, weight, columns and number of samples.
        num_samples: number of samples according to the data.

    Raises:
        ValueError: the columns are ambiguous or do not contain images and texts, or the numbers of samples differ.
    """

    def __init__(self, shards: Shards, spec: Spec, num_samples: int | None = None):
        if spec.num_samples is not None and num_samples not in (None, spec.num_samples):
            raise ValueError(
                f"{spec}: samples={spec.num_samples} contradicts the data, which have {num_samples:,} samples."
            )
        self.place = str(spec)
        self.name = spec.name
        self.weight = spec.weight
        self.num_samples = spec.num_samples or num_samples
        self.open_shards = shards.max_open_shards()
        self._read_shard = shards.rows
        self._shards = shards.shards()
        first = next(self._rows(self._shards, None), None)
        if first is None:
            raise ValueError(f"No samples in {self.place}.")
        self.image = pick_column(self.place, list(first), "image", spec.options.get("image"), IMAGE)
        self.text = pick_column(self.place, list(first), "text", spec.options.get("text"), TEXT)
        shards.check([self.image, self.text])
        self._sample(first)

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """Yield the samples of a part: whole shards, if their number is a multiple of `parts`, or every nth sample."""
        whole = len(self._shards) % parts == 0
        shards = self._shards[part::parts] if whole else self._shards
        columns = [self.image, self.text]
        if seed is None:
            rows = self._rows(shards, columns)
        else:  # parts that share all shards must visit them in the same order
            rng = np.random.default_rng([seed, epoch, part if whole else 0, 3])
            openings = (partial(self._rows, [shards[n]], columns) for n in rng.permutation(len(shards)).tolist())
            rows = _interleave(openings, rng, self.open_shards)
        samples = map(self._sample, rows if whole else islice(rows, part, None, parts))
        return samples if seed is None else _buffered(samples, np.random.default_rng([seed, epoch, part, 4]))

    def _rows(self, shards: Sequence[Any], columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        with name_file_in_errors(self.place):
            for shard in shards:
                yield from self._read_shard(shard, columns)

    def _sample(self, row: dict[str, Any]) -> Sample:
        image, text = row[self.image], self._clean(row[self.text])
        path = image.get("path") if isinstance(image, dict) else None
        if path and "://" in path:
            path = redact(path)
        return Sample(self._encode(image), text, path or f"{self.place}, {text!r}")

    def texts(self) -> Iterator[str]:
        """Yield the labels, without reading the images if the format allows it.

        Raises:
            ValueError: their number differs from `num_samples`.
        """
        number = 0
        for row in self._rows(self._shards, [self.text]):
            number += 1
            yield self._clean(row[self.text])
        if self.num_samples not in (None, number):
            raise ValueError(
                f"{self.place} has {number:,} samples, not {self.num_samples:,}: correct ?samples=NUMBER."
            )

    def _clean(self, text: Any) -> str:
        if text is not None and not isinstance(text, str):
            raise self._wrong_type("text", self.text, repr(text))
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
            raise self._wrong_type("image", self.image, f"a {type(image).__name__}")
        return image

    def _wrong_type(self, key: str, column: str, found: str) -> ValueError:
        return ValueError(
            f"{self.place}: the {key} column {column} contains {found}. Specify another with ?{key}=COLUMN."
        )


def open_files(kind: type[FileShards], spec: Spec, files: Sequence[str]) -> StreamedSource:
    """Open the files of a split; see [`open_shards`]."""
    files = files_of_split(str(spec), files, spec.split)
    check_numbers(files, "*" if user_path(spec.place.removeprefix("file://")).is_dir() else Path(spec.place).name)
    source = open_shards(kind, spec, files)
    source.local = all(map(is_local, files))
    return source


def open_shards(
    kind: type[FileShards], spec: Spec, files: Sequence[str], num_samples: int | None = None
) -> StreamedSource:
    """Open files except those without samples, and count the samples if this is cheap.

    Raises:
        ValueError: a file is truncated or damaged, or all are empty.
    """
    # Remote files are not counted, since each would cost a request.
    counts = {file: kind.count(file) if is_local(file) else None for file in files}
    if empty := [file for file, number in counts.items() if number == 0]:
        if len(empty) == len(counts):
            raise ValueError(f"No samples in {', '.join(files)}.")
        logger.warning("Skipping files without samples: %s.", ", ".join(empty))
    known = [number for number in counts.values() if number is not None]
    used = [file for file in counts if file not in empty]
    shards = kind(used, spec.options.get("image"), spec.options.get("text"))
    return StreamedSource(shards, spec, sum(known) if len(known) == len(counts) else num_samples)


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
