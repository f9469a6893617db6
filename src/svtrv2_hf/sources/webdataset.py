# SPDX-License-Identifier: Apache-2.0
"""Tar archives in the layout of webdataset."""

from collections.abc import Sequence

from ..data.sample import Source
from .format import COLUMNS, SAMPLES, SPLIT, Format
from .place import Place
from .spec import Spec


EXTENSIONS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz")


def _match(place: Place) -> list[str]:
    return place.find(*EXTENSIONS, remote=True)


def _open(spec: Spec, files: Sequence[str]) -> Source:
    from .streamed_source import open_files
    from .tar_shards import TarShards

    return open_files(TarShards, spec, files)


FORMAT = Format(
    name="webdataset",
    help="a `.tar` file (also `.tar.gz`, `.tar.bz2`, `.tar.xz`, `.tgz`), a pattern or a folder of them, with an image and a text "
    "file of the same name for each sample; `image` and `text` are extensions; remote ones by address",
    options=(*COLUMNS, SAMPLES, SPLIT),
    match=_match,
    open=_open,
)
