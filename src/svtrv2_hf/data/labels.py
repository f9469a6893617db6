# SPDX-License-Identifier: Apache-2.0
"""Which labels a recogniser can be trained on, and why not the others."""

import html
import re
import unicodedata
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


class Remark(StrEnum):
    """What a label has that is often a mistake of whoever wrote it, though it can be trained on."""

    DECOMPOSED = "decomposed"
    """Not in Unicode's NFC: an accent is a character of its own where a single one has both."""
    COMPATIBLE = "compatible"
    """Variants of letters and digits, such as full-width ones and ligatures, which NFKC replaces."""
    CONTROL = "control"
    """Control characters, such as a carriage return or a tab."""
    INVISIBLE = "invisible"
    """Characters without width, such as a byte order mark, a zero-width space or a mark of direction."""
    PADDED = "padded"
    """White space at the beginning or the end, or nothing else."""
    SPACE = "space"
    """Spaces other than the usual one, such as a no-break space."""
    ESCAPE = "escape"
    """A backslash with a letter or a number, as programs write a line break or a character by its code point."""
    ENTITY = "entity"
    """An entity of HTML, such as &amp;."""


_ESCAPE = re.compile(r"\\(?:[nrt\\\"'/]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);")


def remarks_of(label: str) -> set[Remark]:
    """What is unusual about a label."""
    composed = unicodedata.normalize("NFC", label)
    categories = {unicodedata.category(character) for character in label if character != " "}
    found = {
        Remark.DECOMPOSED: composed != label,
        Remark.COMPATIBLE: any(unicodedata.normalize("NFKC", c) != c for c in composed if c.isalnum()),
        Remark.CONTROL: "Cc" in categories,
        Remark.INVISIBLE: "Cf" in categories,
        Remark.PADDED: label != label.strip(),
        Remark.SPACE: "Zs" in categories,
        Remark.ESCAPE: _ESCAPE.search(label) is not None,
        Remark.ENTITY: any(html.unescape(entity) != entity for entity in _ENTITY.findall(label)),
    }
    return {remark for remark, there in found.items() if there}


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
