# SPDX-License-Identifier: Apache-2.0
"""Webdataset tars, read to the marker of their end: tarfile itself takes many kinds of damage for it."""

import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from datasets.utils.file_utils import xopen

from .columns import IMAGE_COLUMNS, TEXT_COLUMNS
from .decoding import decode
from .shards import Shards, is_local, naming


_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as webdataset splits it: the key of the sample, and the field


class TarShards(Shards):
    """Webdataset tars, compressed or not: a sample is an image and a text, members of one name that follow each other.

    The fields of a sample are the suffixes of its members, in lower case.
    """

    @classmethod
    def count(cls, file: str) -> int | None:
        with naming(file), Path(file).open("rb") as stream:
            first = stream.read(tarfile.BLOCKSIZE)
            if not first:
                raise ValueError(f"{file} is empty.")
            if first[257:262] == b"ustar":  # not compressed
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(size - tarfile.BLOCKSIZE, 0))
                if any(stream.read()):
                    raise ValueError(
                        f"{file} is cut off: the end-of-archive marker is missing. Get or write it again."
                    )
            return None if any(first) else 0

    def rows(self, shard: str, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        image, text = self.image or "image", self.text or "text"
        with_images = columns is None or image in columns
        images = [self.image.lower()] if self.image else IMAGE_COLUMNS
        texts = [self.text.lower()] if self.text else TEXT_COLUMNS
        for key, sample in _samples(shard, lambda field: with_images or field not in images):
            found_image = _only(sample, images, f"{shard}: {key}", "image")
            found_text = _only(sample, texts, f"{shard}: {key}", "text")
            yield {
                image: {"bytes": sample[found_image], "path": f"{shard}, {key}.{found_image}"},
                text: decode(sample[found_text] or b"", f"{shard}: {key}.{found_text}"),
            }


def _only(sample: dict[str, bytes | None], fields: Sequence[str], where: str, kind: str) -> str:
    found = [field for field in sample if field in fields]
    if len(found) != 1:
        members = ", ".join(f".{field}" for field in sample)
        raise ValueError(
            f"{where} has {'several members that may be its' if found else 'no'} {kind}; its members are {members}. A sample "
            f"is an image and a text of one name that follow each other in the archive. Choose the suffix by ?{kind}=SUFFIX."
        )
    return found[0]


def _samples(file: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, bytes | None]]]:
    """The samples of a tar by field: the contents of the wanted fields, and `None` for the others."""
    key: str | None = None
    sample: dict[str, bytes | None] = {}
    # from a connection forwards alone; local images that are not wanted are passed over
    mode, options = ("r:*", {}) if is_local(file) else ("r|*", {"block_size": 0})
    with (
        naming(file),
        xopen(file, "rb", **options) as stream,
        tarfile.open(fileobj=stream, mode=mode, tarinfo=_Member) as archive,  # type: ignore[call-overload]
    ):
        while (member := archive.next()) is not None:
            archive.members.clear()  # which would hold the headers of all
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
                raise ValueError(f"{file} is cut off in {name}. Get or write it again.")
            sample[field] = content
        _check_end(file, archive)
    if key is not None:
        yield key, sample


class _Member(tarfile.TarInfo):
    """A header; a damaged one is an error also after the first, where tarfile takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the marker of the end
            raise tarfile.ReadError("the end-of-archive marker is missing" if not buf else str(error)) from error


def _check_end(file: str, archive: tarfile.TarFile) -> None:
    while rest := archive.fileobj.read(1 << 20):
        if any(rest):
            raise ValueError(
                f"{file} holds more after its end-of-archive marker: it is damaged, or made of several archives. Extract "
                "all with `tar --ignore-zeros` and write it again."
            )
