# SPDX-License-Identifier: Apache-2.0
"""Tar archives in the layout of webdataset, read up to their end-of-archive marker.

tarfile alone mistakes many kinds of damage for the marker.
"""

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from ..data.sample import Source
from .columns import IMAGE, TEXT
from .decoding import decode
from .format import COLUMNS, SAMPLES, SPLIT, Format, Place
from .shards import INSTRUCTION, FileShards, is_local, name_file_in_errors
from .spec import Spec


EXTENSIONS = (".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz")
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as webdataset splits it: the key of the sample, and the field


class TarShards(FileShards):
    """Tar archives, compressed or not. A sample consists of consecutive members of the same name: an image and a text.

    The fields of a sample are the extensions of its members, in lower case.
    """

    @staticmethod
    def count(file: str) -> int | None:
        with name_file_in_errors(file), Path(file).open("rb") as stream:
            first = stream.read(tarfile.BLOCKSIZE)
            if not first:
                raise ValueError(f"{file} is empty.")
            if first[257:262] == b"ustar":  # not compressed
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(size - tarfile.BLOCKSIZE, 0))
                if any(stream.read()):
                    raise ValueError(f"{file} is truncated: the end-of-archive marker is missing. {INSTRUCTION}")
            return None if any(first) else 0

    def rows(self, shard: str, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        image, text = self.image or "image", self.text or "text"
        with_images = columns is None or image in columns
        images = [self.image.lower()] if self.image else IMAGE.common
        texts = [self.text.lower()] if self.text else TEXT.common
        for key, sample in read_samples(shard, lambda field: with_images or field not in images):
            image_field = _single(sample, images, f"{shard}: {key}", "image")
            text_field = _single(sample, texts, f"{shard}: {key}", "text")
            yield {
                image: {"bytes": sample[image_field], "path": f"{shard}, {key}.{image_field}"},
                text: decode(sample[text_field] or b"", f"{shard}: {key}.{text_field}"),
            }


def _single(sample: dict[str, bytes | None], fields: Sequence[str], where: str, kind: str) -> str:
    candidates = [field for field in sample if field in fields]
    if len(candidates) != 1:
        members = ", ".join(f".{field}" for field in sample)
        raise ValueError(
            f"{where} has {f'several possible {kind}s' if candidates else f'no {kind}'}; its members are {members}. A sample is an "
            f"image and a text of the same name that are consecutive in the archive. Choose the extension with "
            f"?{kind}=EXTENSION."
        )
    return candidates[0]


def read_samples(file: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """Yield key and fields of each sample of an archive; contents are read only of wanted fields."""
    from datasets.utils.file_utils import xopen

    key: str | None = None
    sample: dict[str, bytes | None] = {}
    # Connections are read sequentially; in local files, unwanted images are skipped.
    mode, options = ("r:*", {}) if is_local(file) else ("r|*", {"block_size": 0})
    with (
        name_file_in_errors(file),
        xopen(file, "rb", **options) as stream,
        tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as archive,  # type: ignore[call-overload]
    ):
        while (member := archive.next()) is not None:
            archive.members.clear()  # which would keep all headers
            name = member.name.encode("utf-8", "backslashreplace").decode()
            parts = _NAME.fullmatch(name)
            if member.isdir() or parts is None or Path(name).name.startswith((".", "__")):
                continue
            if not member.isreg():
                raise ValueError(
                    f"{file}: {name} is a link or a device. Write the archive with --hard-dereference -h."
                )
            field = parts[2].lower()
            if key is not None and parts[1] != key:
                yield key, sample
            if parts[1] != key:
                key, sample = parts[1], {}
            if field in sample:
                raise ValueError(f"{file}: the sample {key} has two members .{field}: rename one of the samples.")
            content = archive.extractfile(member).read() if wanted(field) else None
            if content is not None and len(content) != member.size:
                raise ValueError(f"{file} is truncated in {name}. {INSTRUCTION}")
            sample[field] = content
        while rest := archive.fileobj.read(1 << 20):
            if any(rest):
                raise ValueError(
                    f"{file} has data after its end-of-archive marker: it is damaged, or a concatenation of archives. Extract "
                    "all with `tar --ignore-zeros` and write it again."
                )
    if key is not None:
        yield key, sample


class _Member(tarfile.TarInfo):
    """A header. Damaged headers raise an error, also after the first, where tarfile mistakes them for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end-of-archive marker
            raise tarfile.ReadError("the end-of-archive marker is missing" if not buf else str(error)) from error


def _match(place: Place) -> list[str]:
    return place.find(*EXTENSIONS, remote=True)


def _open(spec: Spec, files: Sequence[str]) -> Source:
    from .streamed_source import open_files

    return open_files(TarShards, spec, files)


FORMAT = Format(
    name="webdataset",
    help="a `.tar` file (also `.tar.gz`, `.tar.bz2`, `.tar.xz`, `.tgz`), a pattern or a folder of them, with an image and a text "
    "file of the same name for each sample; `image` and `text` are extensions; remote ones by address",
    options=(*COLUMNS, SAMPLES, SPLIT),
    match=_match,
    open=_open,
)
