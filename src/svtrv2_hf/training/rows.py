# SPDX-License-Identifier: Apache-2.0
"""Datasets of rows with an image and a text, of `datasets` or torch, as batches of the trainer."""

import copy
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from zlib import crc32

from transformers import TrainingArguments

from ..data.batches import BucketBatches, EvaluationBatches, TrainingBatches
from ..data.collator import SVTRv2DataCollator
from ..data.sample import IndexedSource, Sample, Source
from ..image_loading_svtrv2 import UnreadableImageError, load_rgb
from ..sources.decoding import clean_label
from ..sources.hub import StreamedDataset
from ..sources.shards import Shards
from ..sources.spec import Spec
from ..sources.streamed_source import StreamedSource
from .model import share_widths


@dataclass(frozen=True)
class Columns:
    """Columns of image and text in the rows of a dataset, as of [`SVTRv2DataCollator`]; `name` of the dataset is for messages."""

    name: str
    image: str
    text: str

    def sample(self, row: Any, where: str) -> Sample:
        """Return a row as a sample; a missing image has no bytes, and a missing text is empty.

        Raises:
            ValueError: a column does not exist or contains values of another type.
        """
        if not isinstance(row, Mapping) or self.image not in row:
            found = f"its columns are {sorted(row)}" if isinstance(row, Mapping) else f"it is a {type(row).__name__}"
            raise ValueError(
                f"{where} has no column {self.image!r}: {found}. Name the columns with "
                "data_collator=SVTRv2DataCollator(processor, image_column=..., text_column=...)."
            )
        text = row.get(self.text)
        if not (text is None or isinstance(text, str)):
            raise ValueError(f"{where}: the column {self.text!r} contains a {type(text).__name__} instead of a text.")
        return Sample(_encode(row[self.image]), clean_label(text or "", where), where)

    def check(self, row: Any, labels_required: bool) -> bool:
        """Check the columns of the first row, and return whether it has a text."""
        self.sample(row, f"{self.name}, row 0,")
        has_text = self.text in row
        if labels_required and not has_text:
            raise ValueError(
                f"{self.name} has no column {self.text!r}: its columns are {sorted(row)}. Name the columns with "
                "data_collator=SVTRv2DataCollator(processor, image_column=..., text_column=...)."
            )
        return has_text


def _encode(image: Any) -> bytes:
    """Return the bytes of an image file; no bytes for a missing or unreadable image, which is counted later."""
    if isinstance(image, dict) and image.keys() & {"bytes", "path"}:
        image = image["bytes"] if image.get("bytes") is not None else image.get("path")
    if image is None or isinstance(image, bytes):
        return image or b""
    if isinstance(image, (str, Path)) and Path(image).is_file():
        return Path(image).read_bytes()
    buffer = io.BytesIO()
    try:
        load_rgb(image).save(buffer, "PNG", compress_level=1)
    except UnreadableImageError:
        return b""
    return buffer.getvalue()


class RowSource(IndexedSource):
    """Rows of a map-style dataset.

    Attributes:
        has_labels: whether the rows have a text.
    """

    weight = None

    def __init__(self, dataset: Any, columns: Columns, labels_required: bool):
        from datasets import Dataset

        self.name, self.columns, self.num_samples = columns.name, columns, len(dataset)
        if not self.num_samples:
            raise ValueError(f"{self.name} has no samples.")
        self.has_labels = columns.check(dataset[0], labels_required)
        self._texts: Any = None
        if isinstance(dataset, Dataset) and dataset.format["type"] is None:
            dataset = _undecoded(dataset)
            if self.has_labels:
                self._texts = dataset[columns.text]
                self.fingerprint = crc32("\n".join(map(str, self._texts)).encode(errors="surrogatepass"))
        self.dataset = dataset

    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        return [self.columns.sample(self.dataset[index], f"{self.name}, row {index},") for index in indices]

    def texts(self) -> Iterator[str]:
        if self._texts is not None:
            return (text or "" for text in self._texts)
        return (sample.text for sample in self.read())


@dataclass(frozen=True)
class _Rows(Shards):
    """Rows of an iterable dataset."""

    dataset: Iterable[Any]
    columns: Columns

    def shards(self) -> list[Any]:
        return list(range(getattr(self.dataset, "num_shards", 1)))

    def rows(self, shard: Any, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:  # noqa: ARG002
        rows = self.dataset
        if hasattr(
            self.dataset, "num_shards"
        ):  # of `datasets`, which must not distribute the rows among workers again
            rows = StreamedDataset(cast(Any, self.dataset)).rows(shard, None)
        for number, row in enumerate(rows):
            sample = self.columns.sample(row, f"{self.columns.name}, row {number},")
            yield {self.columns.image: sample.image, self.columns.text: sample.text}


def _stream(dataset: Any, columns: Columns, args: TrainingArguments, labels_required: bool) -> Source:
    if hasattr(dataset, "num_shards"):
        dataset = _undecoded(dataset)
    elif args.dataloader_num_workers:
        raise ValueError(
            f"{columns.name} is an iterable dataset, of which each worker would read all rows: set dataloader_num_workers=0, or "
            "pass a map-style dataset or an IterableDataset of the package datasets."
        )
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"{columns.name} has no samples.")
    has_labels = columns.check(first, labels_required)
    options = {"image": columns.image, "text": columns.text}
    source = StreamedSource(_Rows(dataset, columns), Spec(columns.name, columns.name, options))
    source.has_labels = has_labels  # type: ignore[attr-defined]
    return source


def _undecoded(dataset: Any) -> Any:
    """Return a dataset of `datasets` whose images are not decoded."""
    from datasets import Image

    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    return dataset


def _source(
    name: str, dataset: Any, collator: SVTRv2DataCollator, args: TrainingArguments, labels_required: bool
) -> Source:
    columns = Columns(name, collator.image_column, collator.text_column)
    if isinstance(dataset, Mapping):
        raise ValueError(f"{name} is a {type(dataset).__name__} of {', '.join(map(str, dataset))}: pass one of them.")
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return RowSource(dataset, columns, labels_required)
    if hasattr(dataset, "__iter__"):
        return _stream(dataset, columns, args, labels_required)
    raise ValueError(
        f"{name} is a {type(dataset).__name__}: pass a dataset of rows with an image and a text, or the batches of "
        "svtrv2_hf.data.batches."
    )


def training_batches_of(dataset: Any, collator: SVTRv2DataCollator, args: TrainingArguments) -> TrainingBatches:
    """Return training batches as they are, and other datasets as batches under the label rules of the collator."""
    if isinstance(dataset, TrainingBatches):
        return dataset
    processor = collator.processor
    source = _source("train_dataset", dataset, collator, args, True)
    share_widths(processor.image_processor)
    return BucketBatches(
        [source], collator.encoder, processor.image_processor, args.per_device_train_batch_size, args.seed
    )


def evaluation_batches_of(
    name: str, dataset: Any, collator: SVTRv2DataCollator, args: TrainingArguments, labels_required: bool = True
) -> EvaluationBatches:
    """Return evaluation batches as they are, and other datasets as batches."""
    if isinstance(dataset, EvaluationBatches):
        return dataset
    source = _source(name, dataset, collator, args, labels_required)
    return EvaluationBatches(source, collator.processor.image_processor, args.per_device_eval_batch_size)


def evaluation_sets_of(
    dataset: Any, collator: SVTRv2DataCollator, args: TrainingArguments
) -> dict[str, EvaluationBatches]:
    """Return evaluation datasets by name; a single one has an empty name."""
    sets = dataset if isinstance(dataset, Mapping) else {"": dataset}
    return {
        name: evaluation_batches_of(name or "eval_dataset", batches, collator, args) for name, batches in sets.items()
    }


def in_steps(args: TrainingArguments, batches: TrainingBatches) -> TrainingArguments:
    """Return arguments with `max_steps`, and with steps instead of the strategy "epoch".

    An epoch is the estimated number of steps in which each sample is used once.

    Raises:
        ValueError: the number of samples is unknown.
    """
    by_epoch = [name for name in ("eval", "save", "logging") if getattr(args, f"{name}_strategy") == "epoch"]
    if args.max_steps > 0 and not by_epoch:
        return args
    args = copy.copy(args)
    length = batches.batches_per_epoch() / (args.world_size * args.gradient_accumulation_steps)
    if by_epoch:
        length = max(1, round(length))
    for name in by_epoch:
        setattr(args, f"{name}_strategy", type(getattr(args, f"{name}_strategy"))("steps"))
        setattr(args, f"{name}_steps", length)
    if args.max_steps < 1:
        args.max_steps = math.ceil(args.num_train_epochs * length)
    return args
