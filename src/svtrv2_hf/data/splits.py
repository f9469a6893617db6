# SPDX-License-Identifier: Apache-2.0
"""Which files of a place belong to which split of a dataset, by the names of files and folders, as `datasets` names them."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


logger = logging.getLogger(__name__)

ALL = "all"  # asks for every file
_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}


def files_of_split(place: str, files: Sequence[str], split: str, asked: bool) -> list[str]:
    """The files of one split, so that a clone of a dataset does not mix its test set into training.

    Files in a folder named after a split (`test/0.tar`) belong to it, or else those with such a word in their name
    (`test-00000-of-00001.parquet`); all others are `train`. If there is a single split and none was asked for, it is read.

    Args:
        place: for messages.
        files: all of them.
        split: which to take; `all` takes every file.
        asked: whether the user named it. If not, and files are left out, a warning names their splits.

    Raises:
        ValueError: no file belongs to the split.
    """
    parent = os.path.commonpath([str(Path(file).parent) for file in files])
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in files:
        found[_split_of(os.path.relpath(file, parent))].append(file)
    if split == ALL or (not asked and len(found) == 1):
        return list(files)
    split = _SPLIT_OF.get(split.lower(), split)
    listed = ", ".join(f"{name} ({len(of_split):,})" for name, of_split in sorted(found.items()))
    if split not in found:
        raise ValueError(
            f"{place} has no file of the split {split!r}, but of {listed}: name one by ?split=NAME after the place, or "
            "?split=all for every file."
        )
    if not asked:
        logger.warning(
            "%s has files of several splits, %s: only %s is read. ?split=NAME after the place reads another, ?split=all every file.",
            place,
            listed,
            split,
        )
    return found[split]


def _split_of(file: str) -> str:
    *folders, name = Path(file).parts
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLIT_OF[word] for word in (*map(str.lower, folders), *words) if word in _SPLIT_OF), "train")
