# SPDX-License-Identifier: Apache-2.0
"""Definition of a source format."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..data.sample import Source
from ..paths import user_path
from .spec import Spec


class Place:
    """A local file, folder or pattern, or a remote file or pattern.

    Attributes:
        text: the location.
        path: local path; `~` is expanded.
        is_remote: whether the location is an address such as `https://...`.
        is_folder: whether it is a local folder.
    """

    def __init__(self, text: str):
        self.text = text.removeprefix("file://")
        self.path = user_path(self.text)
        self.is_remote = "://" in self.text
        self.is_folder = not self.is_remote and self.path.is_dir()

    @cached_property
    def files(self) -> list[str]:
        """The files in the folder, except hidden ones, or those that match the pattern; otherwise the file, if it exists."""
        if self.is_folder:
            with os.scandir(self.path) as entries:  # once, since there may be 400,000 images
                return sorted(str(self.path / entry.name) for entry in entries if entry.name[0] != ".")
        if not self.is_remote:
            if self.path.is_file():
                return [str(self.path)]
            pattern = str(self.path.relative_to(self.path.anchor))
            return sorted(map(str, Path(self.path.anchor).glob(pattern)))
        if "*" not in self.text:
            return [self.text]
        import fsspec

        system, pattern = fsspec.core.url_to_fs(self.text)
        return [system.unstrip_protocol(file) for file in sorted(system.glob(pattern))]

    @cached_property
    def _names(self) -> list[str]:
        return [os.path.basename(file).lower() for file in self.files]  # noqa: PTH119

    def find(self, *extensions: str, names: tuple[str, ...] = (), remote: bool = False) -> list[str]:
        """Return the files with one of these extensions or, in a folder, with one of these names. Case is ignored.

        Args:
            extensions: lowercase extensions, including the dot.
            names: lowercase names. If given, files in a folder need one of them.
            remote: whether the format supports remote files.
        """
        if self.is_remote and not remote:
            return []
        files = zip(self.files, self._names, strict=True)
        if self.is_folder and names:
            return [file for file, name in files if name in names]
        return [file for file, name in files if name.endswith(extensions)]


class Option(NamedTuple):
    """A `key=value` setting of a source and its meaning."""

    key: str
    help: str


COMMON = (
    Option("weight", "share in a mixture of sources; without weights, an epoch contains every sample once"),
    Option("name", "name in logs and tables; by default that of the folder or file"),
)
SPLIT = Option("split", "split to read, or `all`; by default `train` for training and `test` for evaluation")
COLUMNS = (Option("image", "column of the images"), Option("text", "column of the labels"))
SAMPLES = Option("samples", "number of samples, if the data do not state it")


@dataclass(frozen=True)
class Format:
    """A format of labeled images.

    A format is selected by the prefix of a place or, without a prefix, by the files at the place. It must not import
    optional packages before `open` is called.

    Args:
        name: name in messages.
        help: description of the places that it reads, a noun phrase in Markdown for messages and the documentation.
        open: opens a source from a [`Spec`] and what `match` returned, or the rest of the place after the prefix.
        options: accepted settings in addition to those of all formats.
        prefix: prefix such as `hub:` that selects the format.
        match: returns the files of this format at a [`Place`], in order.
        search: like `match`, but called only if no format matches; for expensive or less specific searches.
        single_file: whether a source is a single file, so that a place with several is ambiguous.
        default_name: default name of sources.
    """

    name: str
    help: str
    open: Callable[[Spec, Sequence[str]], Source]
    options: tuple[Option, ...] = ()
    prefix: str | None = None
    match: Callable[[Place], list[str]] = lambda place: []  # noqa: ARG005
    search: Callable[[Place], list[str]] = lambda place: []  # noqa: ARG005
    single_file: bool = False
    default_name: str | None = None
