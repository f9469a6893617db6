# SPDX-License-Identifier: Apache-2.0
"""Datasets of the Hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.sample import Source
from .format import COLUMNS, SAMPLES, SPLIT, Format, Option
from .shards import OPEN_SHARDS, FileShards, Shards, check_numbers, name_file_in_errors
from .spec import Spec


if TYPE_CHECKING:
    from datasets import IterableDataset


@dataclass(frozen=True)
class StreamedDataset(Shards):
    """A dataset that `datasets` streams, with encoded images."""

    dataset: "IterableDataset"

    def shards(self) -> list[int]:
        return list(range(self.dataset.num_shards))

    def rows(self, shard: int, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        dataset = self.dataset.shard(self.dataset.num_shards, shard)
        # Not `iter(dataset)`, which would distribute the samples among the workers again.
        for batch in (dataset.select_columns(list(columns)) if columns else dataset).iter(batch_size=64):
            for values in zip(*batch.values(), strict=True):
                yield dict(zip(batch, values, strict=True))


def _open(spec: Spec, files: Sequence[str]) -> Source:
    [path] = files
    if not path.strip("/ "):
        raise ValueError(f"{spec.place!r} does not name a dataset: write hub:OWNER/NAME or hub:FOLDER.")

    from datasets import Image, load_dataset_builder

    from .parquet_shards import ParquetShards
    from .streamed_source import StreamedSource, open_shards
    from .webdataset import TarShards

    split = spec.split.name
    with name_file_in_errors(path):
        builder = load_dataset_builder(path, spec.options.get("config"))
        available = [str(name) for name in builder.config.data_files or builder.as_streaming_dataset()]
    if split not in available:
        raise ValueError(
            f"{path} has no split {split!r} (found: {', '.join(available)}). Select one with ?split=NAME."
        )
    info = (builder.info.splits or {}).get(split)
    num_samples = info.num_examples or None if info else None
    # `datasets` silently drops the rest of truncated files.
    kinds: dict[str, type[FileShards]] = {"parquet": ParquetShards, "webdataset": TarShards}
    if kind := kinds.get(builder.name):
        check_numbers(builder.config.data_files[split])
        return open_shards(kind, spec, builder.config.data_files[split], num_samples)
    with name_file_in_errors(path):
        dataset = builder.as_streaming_dataset(split=split)
    if dataset.num_shards < OPEN_SHARDS and hasattr(dataset, "reshard"):  # older versions cannot split files
        dataset = dataset.reshard()
    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(name, Image(decode=False))
    return StreamedSource(StreamedDataset(dataset), spec, num_samples)


FORMAT = Format(
    name="Hub dataset",
    help="`hub:OWNER/NAME`, a dataset on the Hub that `datasets.load_dataset` can stream, or `hub:FOLDER`, a clone of one",
    options=(*COLUMNS, SAMPLES, SPLIT, Option("config", "configuration of the dataset")),
    prefix="hub:",
    open=_open,
)
