# SPDX-License-Identifier: Apache-2.0
"""Parquet files with images."""

from collections.abc import Sequence

from ..data.sample import Source
from .format import COLUMNS, SAMPLES, SPLIT, Format, Place
from .metadata import is_metadata
from .spec import Spec
from .splits import ALL


def _match(place: Place) -> list[str]:
    return [] if is_metadata(place) else place.find(".parquet", remote=True)


def _open(spec: Spec, files: Sequence[str]) -> Source:
    from .parquet_shards import ParquetShards, check_split_column
    from .streamed_source import open_files

    source = open_files(ParquetShards, spec, files)
    if spec.split.name != ALL:
        check_split_column(files)
    return source


FORMAT = Format(
    name="parquet",
    help="a `.parquet` file, a pattern such as `data/*.parquet` or a folder of them; remote ones (`hf://`, `https://`) by address",
    options=(*COLUMNS, SAMPLES, SPLIT),
    match=_match,
    open=_open,
)
