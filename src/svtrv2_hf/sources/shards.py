# SPDX-License-Identifier: Apache-2.0
"""Shards, the files of a streamed source, read so that truncated or inconsistent data are errors and never less data."""

import os
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ..redaction import redact
from ..reporting import first


OPEN_SHARDS = 16  # maximum number of shards that are interleaved
INSTRUCTION = "Get or write it again."


class Shards(ABC):
    """Data in several shards, each of which is read from beginning to end."""

    @abstractmethod
    def shards(self) -> list[Any]:
        """Return the shards, arguments of [`rows`]."""

    @abstractmethod
    def rows(self, shard: Any, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """Yield the values of these columns, or of all, for each sample of a shard.

        Raises:
            ValueError: the shard is truncated, damaged or inconsistent.
        """

    def check(self, columns: Sequence[str]) -> None:  # noqa: B027
        """Raise ValueError if shards differ in these columns."""

    def max_open_shards(self) -> int:
        """Return the number of shards that a shuffled pass may interleave."""
        return OPEN_SHARDS


@dataclass(frozen=True)
class FileShards(Shards):
    """Files of one format.

    Args:
        files: paths or addresses.
        image, text: chosen columns; by default those with usual names.
    """

    files: Sequence[str]
    image: str | None = None
    text: str | None = None

    def shards(self) -> list[Any]:
        return list(self.files)

    @staticmethod
    @abstractmethod
    def count(file: str) -> int | None:
        """Check a local file, as far as this is cheap, and return its number of samples, if known, or `None`.

        Raises:
            ValueError: the file is truncated or damaged.
        """


def check_numbers(files: Sequence[str], pattern: str = "*") -> None:
    """Check that all shards exist whose number the names state (`train-00000-of-00003.parquet`).

    Args:
        files: shards that were found.
        pattern: pattern of the requested names; only shards that match it must exist.

    Raises:
        ValueError: shards are missing. The message names the first three.
    """
    numbers: defaultdict[tuple[str, str, str, str], set[int]] = defaultdict(set)
    for file in files:
        folder, _, name = file.replace(os.sep, "/").rpartition("/")
        if parts := re.fullmatch(r"(.*?)(\d{3,})-of-(\d{3,})(?:-[0-9a-f]+)?(\.[^/]*)", name):
            numbers[folder, parts[1], parts[3], parts[4]].add(int(parts[2]))
    for (folder, start, total, suffix), present in numbers.items():
        start_at = 1 if int(total) in present and 0 not in present else 0
        absent = (number for number in range(start_at, start_at + int(total)) if number not in present)
        names = (f"{start}{number:0{len(total)}}-of-{total}{suffix}" for number in absent)
        if missing := [name for name in names if fnmatchcase(name, pattern)]:
            raise ValueError(
                f"{redact(folder) or '.'}: {len(missing):,} of {int(total):,} shards are missing: {first(missing)}. Get them, or use a "
                "pattern that does not match them."
            )


def is_local(file: str) -> bool:
    """Return whether a file is on this machine."""
    return "://" not in file


@contextmanager
def name_file_in_errors(file: str) -> Iterator[None]:
    """Convert errors of libraries within the block to a `ValueError` that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        if isinstance(error, (ValueError, OSError)) and str(file) in str(error):
            raise
        reason = next(iter(str(error).splitlines()), "").rstrip(".") or type(error).__name__
        hint = f" It may be truncated or damaged. {INSTRUCTION}" if is_local(file) else ""
        raise ValueError(f"{file} cannot be read: {reason}.{hint}") from error
