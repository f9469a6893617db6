# SPDX-License-Identifier: Apache-2.0
"""Columns of images and labels."""

from collections.abc import Sequence


IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
TEXT_COLUMNS = ("text", "label", "txt", "transcription", "transcript", "word")
# Names that are looked for, in any case, where there is none of those.
OTHER_IMAGE_COLUMNS = ("images", "image_bytes", "img_bytes", "picture")
OTHER_TEXT_COLUMNS = (
    "words",
    "labels",
    "texts",
    "ground_truth",
    "groundtruth",
    "gt",
    "sentence",
    "caption",
    "identity",
)


def pick_column(
    place: str, columns: Sequence[str], key: str, chosen: str | None, usual: Sequence[str], others: Sequence[str] = ()
) -> str:
    """The column that was chosen, or the only one with a usual name.

    Args:
        place: for the message.
        columns: all of them.
        key: what the column holds, and how to choose it in a spec: `image` or `text`.
        chosen: the name that was given, if any.
        usual: names to look for otherwise.
        others: names to look for where there is none of these; of all of them, upper and lower case are the same then.

    Raises:
        ValueError: there is no such column, or several could be meant.
    """
    found = [column for column in columns if column in ([chosen] if chosen else usual)]
    if not found and not chosen:
        found = [column for column in columns if column.strip().lower() in (*usual, *others)]
    if len(found) != 1:
        which = f"is not {chosen!r}" if chosen else "may be any of several" if found else "has none of the usual names"
        raise ValueError(
            f"{place}: the column of the {key} {which}. The columns are {', '.join(columns)}; "
            f"name one by ?{key}=COLUMN after the place."
        )
    return found[0]
