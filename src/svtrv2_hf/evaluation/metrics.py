# SPDX-License-Identifier: Apache-2.0
"""Word accuracy under the field's protocols."""

import string
from collections.abc import Iterable
from typing import Literal


Protocol = Literal["english", "chinese"]

_LETTERS_AND_DIGITS = frozenset(string.ascii_letters + string.digits)


def normalize_text(text: str, protocol: Protocol) -> str:
    """What two texts must agree in.

    "english": ASCII letters and digits, case ignored. "chinese": everything but spaces, case ignored.
    As in Topdu/OpenOCR at ae934e5, `openrec/metrics/rec_metric.py`, with and without `is_filter`.
    """
    if protocol == "english":
        text = "".join(character for character in text if character in _LETTERS_AND_DIGITS)
    elif protocol != "chinese":
        raise ValueError(f'There is no protocol {protocol!r}; there are "english" and "chinese".')
    return text.replace(" ", "").lower()


def word_accuracy(readings: Iterable[str], labels: Iterable[str], protocol: Protocol = "english") -> float:
    """Share of texts read without error, 0 to 1.

    >>> word_accuracy(["Hello!", "wor1d"], ["hello", "world"])
    0.5

    Raises:
        ValueError: there is no text, or the numbers of readings and labels differ.
    """
    right = [
        normalize_text(reading, protocol) == normalize_text(label, protocol)
        for reading, label in zip(readings, labels, strict=True)
    ]
    if not right:
        raise ValueError("There is no text to score.")
    return sum(right) / len(right)
