# SPDX-License-Identifier: Apache-2.0
"""Datasets of the Hub."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..data.sample import Source
from .format import COLUMNS, SAMPLES, SPLIT, Format, Option
from .spec import Spec


if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset


def _open(spec: Spec, files: Sequence[str]) -> Source:
    [path] = files
    if not path.strip("/ "):
        raise ValueError(f"{spec.place!r} does not name a dataset: write hub:OWNER/NAME or hub:FOLDER.")

    from datasets import load_dataset_builder

    from .parquet_shards import ParquetShards
    from .shards import check_numbers, name_file_in_errors
    from .streamed_source import StreamedSource, open_shards
    from .tar_shards import TarShards

    with name_file_in_errors(path):
        builder = load_dataset_builder(path, spec.get("config"))
        available = [str(name) for name in builder.config.data_files or builder.as_streaming_dataset()]
    split = spec.split.name
    if split not in available:
        raise ValueError(
            f"{path} has no split {split!r} (found: {', '.join(available)}). Select one with ?split=NAME."
        )
    # `datasets` silently drops the rest of truncated files.
    if shards := {"parquet": ParquetShards, "webdataset": TarShards}.get(builder.name):
        paths = builder.config.data_files[split]
        check_numbers(paths)
        return open_shards(shards, spec, paths, _num_samples(builder, split))
    with name_file_in_errors(path):
        dataset = builder.as_streaming_dataset(split=split)
    return StreamedSource(partial(_select, dataset), spec, _num_samples(builder, split))


def _num_samples(builder: "DatasetBuilder", split: str) -> int | None:
    splits: dict[str, Any] = builder.info.splits or {}
    return (splits[split].num_examples or None) if split in splits else None


def _select(dataset: "IterableDataset", columns: list[str] | None) -> "IterableDataset":
    return dataset.select_columns(columns) if columns else dataset


FORMAT = Format(
    name="Hub dataset",
    help="`hub:OWNER/NAME`, a dataset on the Hub that `datasets.load_dataset` can stream, or `hub:FOLDER`, a clone of one",
    options=(*COLUMNS, SAMPLES, SPLIT, Option("config", "configuration of the dataset")),
    prefix="hub:",
    open=_open,
)
