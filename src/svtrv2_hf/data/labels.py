# SPDX-License-Identifier: Apache-2.0
"""Which labels a recogniser can be trained on, and why not the others."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise


class Rejection(StrEnum):
    """Why a sample is left out of training."""

    EMPTY = "empty label"
    UNKNOWN_CHARACTERS = "characters outside the charset"
    TOO_LONG = "label longer than the limit"
    UNALIGNABLE = "more characters than its size has frames for"
    UNREADABLE = "unreadable image"


class RejectedSampleError(ValueError):
    """A sample that is left out; `reason` is the [`Rejection`]."""

    def __init__(self, reason: Rejection, message: str):
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class LabelEncoder:
    """Turns texts into character ids, by rules that reject and never repair in silence.

    Args:
        charset: the characters, in the order of the head.
        max_length (`int`, *optional*, defaults to 25): most characters in a label; the paper's training uses 25.
        drop_unknown (`bool`, *optional*, defaults to `False`): leave characters outside the charset out of the label
            instead of rejecting the sample. (Upstream does so, spaces included.)
    """

    def __init__(self, charset: Sequence[str], max_length: int = 25, drop_unknown: bool = False):
        self.ids = {character: number for number, character in enumerate(charset, start=1)}
        self.max_length = max_length
        self.drop_unknown = drop_unknown

    def unknown(self, text: str) -> set[str]:
        """The characters of `text` that are not in the charset."""
        return set(text) - self.ids.keys()

    def encode(self, text: str) -> list[int]:
        """The ids of a label.

        Raises:
            RejectedSampleError: the label cannot be trained on.
        """
        if not self.drop_unknown and (unknown := self.unknown(text)):
            raise RejectedSampleError(Rejection.UNKNOWN_CHARACTERS, f"{''.join(sorted(unknown))!r} in {text!r}")
        ids = [self.ids[character] for character in text if character in self.ids]
        if not ids:
            raise RejectedSampleError(Rejection.EMPTY, repr(text))
        if len(ids) > self.max_length:
            raise RejectedSampleError(Rejection.TOO_LONG, f"{len(ids)} > {self.max_length} characters in {text!r}")
        return ids


def frames_needed(ids: Sequence[int]) -> int:
    """Frames that CTC needs for a label: one a character, and a blank between equal neighbours."""
    return len(ids) + sum(first == second for first, second in pairwise(ids))
