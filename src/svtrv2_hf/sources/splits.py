# SPDX-License-Identifier: Apache-2.0
"""Assignment of files and rows to splits of a dataset, by names of files and folders or by a column."""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple


logger = logging.getLogger(__name__)

ALL = "all"  # selects every file or row
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "testa", "testb"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_WORD = re.compile(rf"({'|'.join(_SPLIT_OF)})(?:sets?|splits?|data|lmdb|db|images?|imgs?|labels?|list)?")
_HELD_OUT = re.compile(r"(?<![a-z])(held|hold)[-_. ]?out(set)?(?![a-z])")


class SplitChoice(NamedTuple):
    """The split to read: a name, or `all`. If it is not `explicit`, a warning reports other splits."""

    name: str = "train"
    explicit: bool = False


def files_of_split(place: str, files: Sequence[str], choice: SplitChoice) -> list[str]:
    """Select the files of a split, so that training on a clone of a dataset does not include its test set.

    Files in a folder named after a split (`test/0.tar`, `testset/data.mdb`) belong to it; otherwise those with such a word in
    the name of a folder or file (`test-00000-of-00001.parquet`, `my_test_lmdb`); all others are `train`. A single split is
    read under any name, unless another is chosen explicitly.

    Raises:
        ValueError: no file belongs to the split, or a name contains the words of several splits.
    """
    splits = splits_of_paths(files, by_name=True)
    chosen = choose_split(place, files, splits, choice, "file")
    return [file for file, split in zip(files, splits, strict=True) if chosen in (None, split)]


def splits_of_paths(paths: Sequence[str], by_name: bool) -> list[str]:
    """Return the split of each path, by the folders that differ between paths and, if `by_name`, by the file name."""
    parts = [path.replace("\\", "/").rpartition("/") for path in paths]
    folders = {parent: PurePosixPath(parent).parts for parent in {parent for parent, _, _ in parts}}
    common = len(os.path.commonprefix(list(folders.values())))  # noqa: RUF071 (of tuples, not of characters)
    split_of = {
        key: _split_of(folders[key[0]][common:], key[1])
        for key in {(parent, name if by_name else "") for parent, _, name in parts}
    }
    return [split_of[parent, name if by_name else ""] for parent, _, name in parts]


def splits_of_values(values: Sequence[Any]) -> list[str] | None:
    """Return the split of each value of a column `split` (`train` if empty), or `None` if no value names a split."""
    split_of = {value: _splits_in(value) for value in set(map(str, filter(None, values)))}
    if not any(split_of.values()):
        return None
    return [" and ".join(sorted(split_of[str(value)])) or str(value) if value else "train" for value in values]


def choose_split(
    place: str, names: Sequence[str], splits: Sequence[str], choice: SplitChoice, noun: str
) -> str | None:
    """Return the split to read, with a warning if others are skipped, or `None` to read everything.

    Args:
        place: place for messages.
        names: names of the files or rows for messages.
        splits: split of each file or row.
        choice: split to choose.
        noun: `file` or `row`, for messages.

    Raises:
        ValueError: the split is empty, or a name may belong to several splits.
    """
    counts = Counter(splits)
    if choice.name == ALL or (not choice.explicit and len(counts) == 1):
        return None
    listed = ", ".join(f"{name} ({number:,})" for name, number in sorted(counts.items()))
    hint = f"select one with ?split=NAME, or every {noun} with ?split=all."
    if not choice.explicit and (unclear := [split for split in counts if " and " in split]):
        example = names[splits.index(unclear[0])]
        raise ValueError(f"{place} has {noun}s of several splits, and {example} may be {unclear[0]}: {hint}")
    split = _SPLIT_OF.get(choice.name.lower(), choice.name)
    if split not in counts:
        raise ValueError(f"{place} has no {noun} of the split {split!r} (found: {listed}): {hint}")
    if not choice.explicit:
        logger.warning("%s has %ss of several splits, %s: reading only %s; %s", place, noun, listed, split, hint)
    return split


def _split_of(folders: Sequence[str], name: str) -> str:
    """Return the split of a file; if there are several, their names joined by `and`."""
    for folder in folders:
        if match := _WORD.fullmatch(folder.lower()):
            return _SPLIT_OF[match[1]]
    return " and ".join(sorted(set().union(*map(_splits_in, (*folders, name))))) or "train"


def _splits_in(name: str) -> set[str]:
    """Return the splits named by words, which are separated by other characters than letters or by case (`testA`)."""
    words = re.findall("[a-z]+", name.lower()) + re.findall("[A-Z]?[a-z]+", name)
    named = {_SPLIT_OF[match[1]] for word in words if (match := _WORD.fullmatch(word.lower()))}
    if _HELD_OUT.search(name.lower()):
        named.add("test")
    return named or ({"test"} if "unseen" in words else set())
