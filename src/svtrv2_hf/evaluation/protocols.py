# SPDX-License-Identifier: Apache-2.0
"""Evaluation protocols: which characters of a prediction are compared with the label.

This module imports only the standard library, so that the command line can show the protocols without loading torch.
"""

import string
import unicodedata
from typing import Literal, get_args


EvaluationProtocol = Literal["exact", "case_insensitive", "alphanumeric", "no_spaces"]
PROTOCOLS: dict[EvaluationProtocol, str] = {
    "exact": "all characters including spaces and case",
    "case_insensitive": "all characters including spaces, case ignored",
    "alphanumeric": "ASCII letters and digits, case ignored",
    "no_spaces": "all characters except spaces, case ignored",
}
# For help texts.
SUMMARY = "; ".join(f"{protocol}: {compared}" for protocol, compared in PROTOCOLS.items())

_LETTERS_AND_DIGITS = frozenset(string.ascii_letters + string.digits)


def check_protocol(name: str) -> None:
    """Raise ValueError if a protocol does not exist."""
    if name not in get_args(EvaluationProtocol):
        *others, last = PROTOCOLS
        raise ValueError(f"Unknown protocol {name!r}: choose {', '.join(others)} or {last}.")


def normalize_text(text: str, protocol: EvaluationProtocol, keep_case: bool = False) -> str:
    """Return the part of a text that a protocol compares.

    Code points are compared: a precomposed letter differs from the same letter with a combining mark. "alphanumeric" and
    "no_spaces" are as in Topdu/OpenOCR at ae934e5, `openrec/metrics/rec_metric.py`, with and without `is_filter`.

    Args:
        text: label or prediction.
        protocol: one of `PROTOCOLS`.
        keep_case: do not convert to lower case.

    >>> [normalize_text("No. 4711-B", protocol) for protocol in PROTOCOLS]
    ['No. 4711-B', 'no. 4711-b', 'no4711b', 'no.4711-b']

    Raises:
        ValueError: the protocol is unknown.
    """
    check_protocol(protocol)
    if protocol == "alphanumeric":
        text = "".join(character for character in text if character in _LETTERS_AND_DIGITS)
    elif protocol == "no_spaces":
        text = text.replace(" ", "")
    return text if keep_case or protocol == "exact" else text.lower()


def length_as_published(label: str, protocol: EvaluationProtocol) -> int:
    """Return the length of a label as the authors of SVTRv2 count it to exclude long and empty labels.

    Spaces do not count, nor, under "alphanumeric", characters without an ASCII form: `é` counts as `e`, Chinese characters do not
    count. As in Topdu/OpenOCR at ae934e5, `tools/data/ratio_dataset_tvresize_test.py`; for the Chinese benchmarks,
    `openrec/preprocess/ctc_label_encode.py`, which does not count characters outside the charset either.

    >>> length_as_published("Caf\u00e9 12!", "alphanumeric"), length_as_published("\u4e2d\u6587 A", "alphanumeric")
    (7, 1)
    """
    text = "".join(label.split())
    if protocol == "alphanumeric":
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return len(text)
