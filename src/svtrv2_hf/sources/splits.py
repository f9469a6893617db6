# SPDX-License-Identifier: Apache-2.0
"""Which files or rows belong to which split of a dataset, by the names of files and folders or a column."""

import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple


logger = logging.getLogger(__name__)

ALL = "all"  # asks for every file
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "testa", "testb"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_WORD = re.compile(rf"({'|'.join(_SPLIT_OF)})(?:sets?|splits?|data|lmdb|db|images?|imgs?|labels?|list)?")
_HELD_OUT = re.compile(r"(?<![a-z])(held|hold)[-_. ]?out(set)?(?![a-z])")


class SplitChoice(NamedTuple):
    """Which split to read."""

    name: str = "train"
    """`all` reads every file and row."""
    asked: bool = False
    """Whether the user named it. If not, and something is left out, a warning names the splits."""


TRAIN = SplitChoice()


def files_of_split(place: str, files: Sequence[str], choice: SplitChoice) -> list[str]:
    """The files of one split, so that a clone of a dataset does not mix its test set into training.

    Files in a folder named after a split (`test/0.tar`, `testset/data.mdb`) belong to it, or else those with such a word in the
    name of a folder or a file (`test-00000-of-00001.parquet`, `my_test_lmdb`); all others are `train`. If there is a single split
    and none was asked for, it is read.

    Args:
        place: for messages.
        files: all of them.
        choice: which split to take.

    Raises:
        ValueError: no file belongs to the split, or a name contains the words of several splits.
    """
    splits = splits_of_paths(files, by_name=True)
    chosen = choose_split(place, files, splits, choice, "file")
    return [file for file, split in zip(files, splits, strict=True) if chosen in (None, split)]


def splits_of_paths(paths: Sequence[str], by_name: bool) -> list[str]:
    """The split of each path, by the folders that are not common to all and, with `by_name`, the name of the file."""
    parents = [path.replace("\\", "/").rpartition("/")[0] for path in paths]
    folders = {parent: PurePosixPath(parent).parts for parent in set(parents)}
    common = len(os.path.commonprefix(list(folders.values())))  # noqa: RUF071 (of tuples, not of characters)
    if by_name:
        names = [path.replace("\\", "/").rpartition("/")[2] for path in paths]
        return [_split_of(folders[parent][common:], name) for parent, name in zip(parents, names, strict=True)]
    split_of = {parent: _split_of(parts[common:]) for parent, parts in folders.items()}
    return [split_of[parent] for parent in parents]


def splits_of_values(values: Sequence[Any]) -> list[str] | None:
    """The split of each value of a column `split`, `train` where it is empty; `None` if no value is the name of a split."""
    split_of = {value: _splits_in(str(value)) for value in set(map(str, filter(None, values)))}
    if not any(split_of.values()):
        return None
    return [" and ".join(sorted(split_of[str(value)])) or str(value) if value else "train" for value in values]


def choose_split(
    place: str, names: Sequence[str], splits: Sequence[str], choice: SplitChoice, noun: str
) -> str | None:
    """The split to read of files or rows, with a warning if others are left out; `None` to read all.

    Args:
        place: for messages.
        names: of the files or rows, for messages.
        splits: to which split each belongs.
        choice: which split to take.
        noun: `file` or `row`, for messages.

    Raises:
        ValueError: nothing belongs to the split, or something to several.
    """
    found = Counter(splits)
    if choice.name == ALL or (not choice.asked and len(found) == 1):
        return None
    listed = ", ".join(f"{name} ({number:,})" for name, number in sorted(found.items()))
    hint = f"name one by ?split=NAME after the place, or ?split=all for every {noun}."
    if not choice.asked and (unclear := [split for split in found if " and " in split]):
        example = names[splits.index(unclear[0])]
        raise ValueError(f"{place} has {noun}s of several splits, and {example} may be {unclear[0]}: {hint}")
    split = _SPLIT_OF.get(choice.name.lower(), choice.name)
    if split not in found:
        raise ValueError(f"{place} has no {noun} of the split {split!r}, but of {listed}: {hint}")
    if not choice.asked:
        logger.warning(
            "%s has %ss of several splits, %s: only %s is read. ?split=NAME after the place reads another, ?split=all every %s.",
            place,
            noun,
            listed,
            split,
            noun,
        )
    return split


def _split_of(folders: Sequence[str], name: str = "") -> str:
    """The split of a file; of several, the names with `and` between them."""
    for folder in folders:
        if match := _WORD.fullmatch(folder.lower()):
            return _SPLIT_OF[match[1]]
    return " and ".join(sorted(set().union(*map(_splits_in, (*folders, name))))) or "train"


def _splits_in(name: str) -> set[str]:
    """The splits that words of a name mean: parted by anything but letters, or by capitals (`testA`)."""
    words = re.findall("[a-z]+", name.lower()) + re.findall("[A-Z]?[a-z]+", name)
    found = {_SPLIT_OF[match[1]] for word in words if (match := _WORD.fullmatch(word.lower()))}
    if _HELD_OUT.search(name.lower()):
        found.add("test")
    return found or ({"test"} if "unseen" in words else set())
