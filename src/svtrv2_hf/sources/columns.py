# SPDX-License-Identifier: Apache-2.0
"""Columns of images, file names and labels."""

from collections.abc import Sequence
from typing import NamedTuple


class ColumnNames(NamedTuple):
    """Names of a column: common ones, and those that are accepted, like other casings, if none of these occurs."""

    common: tuple[str, ...]
    others: tuple[str, ...]


IMAGE = ColumnNames(("image", "img", "jpg", "jpeg", "png", "webp"), ("images", "image_bytes", "img_bytes", "picture"))
TEXT = ColumnNames(
    ("text", "label", "txt", "transcription", "transcript", "word"),
    ("words", "labels", "texts", "ground_truth", "groundtruth", "gt", "sentence", "caption", "identity"),
)
FILE = ColumnNames(
    ("file_name",),
    ("filename", "file", "filepath", "file_path", "path", "image", "image_path", "image_name", "img", "img_path"),
)


def pick_column(
    place: str, columns: Sequence[str], key: str, chosen: str | None, names: ColumnNames, option: str | None = None
) -> str:
    """Return the chosen column, or the only one with a usual name.

    Args:
        place: place for messages.
        columns: all columns.
        key: option that chooses the column, `image` or `text`.
        chosen: value of this option.
        names: usual names.
        option: how to choose the column, for messages; by default `?key=COLUMN`.

    Raises:
        ValueError: the column does not exist, or several columns have usual names.
    """
    candidates = [column for column in columns if column in ([chosen] if chosen else names.common)]
    if not candidates and not chosen:
        candidates = [column for column in columns if column.strip().lower() in (*names.common, *names.others)]
    if len(candidates) != 1:
        problem = (
            f"no column {chosen!r}"
            if chosen
            else f"several possible {key} columns"
            if candidates
            else f"no {key} column"
        )
        raise ValueError(
            f"{place}: {problem} among {', '.join(columns)}. Specify it with {option or f'?{key}=COLUMN'}."
        )
    return candidates[0]
