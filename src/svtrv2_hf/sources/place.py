# SPDX-License-Identifier: Apache-2.0
"""Files at a location."""

import os
from functools import cached_property

from ..paths import user_path


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
        """The files in the folder or those that match the pattern, sorted; otherwise the file itself, if it exists."""
        if self.is_folder:
            with os.scandir(self.path) as entries:  # once, since there may be 400,000 images
                return sorted(str(self.path / entry.name) for entry in entries)
        if not self.is_remote:
            if self.path.is_file():
                return [str(self.path)]
            pattern = self.path.relative_to(self.path.anchor)
            return sorted(str(file) for file in type(self.path)(self.path.anchor).glob(str(pattern)))
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
        if self.is_folder and names:
            return [file for file, name in zip(self.files, self._names, strict=True) if name in names]
        return [
            file
            for file, name in zip(self.files, self._names, strict=True)
            if name.endswith(extensions) and not (self.is_folder and name.startswith("."))
        ]
