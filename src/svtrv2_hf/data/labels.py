# SPDX-License-Identifier: Apache-2.0
"""Which labels a recogniser can be trained on, and why not the others."""

from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Literal, get_args


UnknownCharacters = Literal["error", "drop_sample", "drop_character"]
"""What becomes of a label with characters outside the charset."""


class Rejection(StrEnum):
    """Why a sample is left out of training; the values are keys of logs."""

    EMPTY = "empty"
    UNKNOWN_CHARACTERS = "unknown_characters"
    TOO_LONG = "too_long"
    UNALIGNABLE = "unalignable"
    """More characters than its size has frames for."""
    UNREADABLE = "unreadable"


class RejectedSampleError(ValueError):
    """A sample that is left out; `reason` is the [`Rejection`]."""

    def __init__(self, reason: Rejection, message: str):
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class UnknownCharactersError(ValueError):
    """A label with characters outside the charset, where nobody said what to do with such labels."""


class LabelEncoder:
    """Turns texts into character ids, by rules that reject and never repair in silence.

    Args:
        charset: the characters, in the order of the head.
        max_length (`int`, *optional*, defaults to 25): most characters in a label; the paper's training uses 25.
        unknown_characters (`str`, *optional*, defaults to `"error"`): what to do with a label that has characters outside
            the charset: `"error"`, reject the sample (`"drop_sample"`), or leave the characters out of the label
            (`"drop_character"`; upstream does so, spaces included).

    Raises:
        ValueError: `unknown_characters` is none of these.
    """

    def __init__(self, charset: Sequence[str], max_length: int = 25, unknown_characters: UnknownCharacters = "error"):
        if unknown_characters not in get_args(UnknownCharacters):
            raise ValueError(
                f"unknown_characters={unknown_characters!r} must be one of {', '.join(get_args(UnknownCharacters))}."
            )
        self.ids = {character: number for number, character in enumerate(charset, start=1)}
        self.max_length = max_length
        self.unknown_characters = unknown_characters

    def unknown(self, text: str) -> set[str]:
        """The characters of `text` that are not in the charset."""
        return set(text) - self.ids.keys()

    def encode(self, text: str) -> list[int]:
        """The ids of a label.

        Raises:
            RejectedSampleError: the label cannot be trained on.
            UnknownCharactersError: it has characters outside the charset, and that is to be an error.
        """
        if self.unknown_characters != "drop_character" and (unknown := sorted(self.unknown(text))):
            if self.unknown_characters == "drop_sample":
                raise RejectedSampleError(Rejection.UNKNOWN_CHARACTERS, f"{''.join(unknown)!r} in {text!r}")
            characters = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in unknown)
            raise UnknownCharactersError(
                f"The label {text!r} has characters outside the charset: {characters}. Add them to the charset, or choose "
                "--unknown_characters drop_sample, to leave such samples out, or --unknown_characters drop_character, to "
                "leave the characters out of the labels."
            )
        ids = [self.ids[character] for character in text if character in self.ids]
        if not ids:
            raise RejectedSampleError(Rejection.EMPTY, repr(text))
        if len(ids) > self.max_length:
            raise RejectedSampleError(Rejection.TOO_LONG, f"{len(ids)} > {self.max_length} characters in {text!r}")
        return ids


def frames_needed(ids: Sequence[int]) -> int:
    """Frames that CTC needs for a label: one a character, and a blank between equal neighbours."""
    return len(ids) + sum(first == second for first, second in pairwise(ids))
