# SPDX-License-Identifier: Apache-2.0
"""Rules for labels: which can be trained on, and which are unusual."""

import html
import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Literal, get_args

from ..charsets import code_point


UnknownCharacters = Literal["error", "drop_sample", "drop_character"]
"""Treatment of labels with characters outside the charset."""


class Rejection(StrEnum):
    """Reason for skipping a sample. The values are keys in logs; `UNALIGNABLE` means more characters than frames."""

    EMPTY = "empty"
    UNKNOWN_CHARACTERS = "unknown_characters"
    TOO_LONG = "too_long"
    UNALIGNABLE = "unalignable"
    UNREADABLE = "unreadable"


class Remark(StrEnum):
    """Property of a label that is often a mistake, though the label can be trained on."""

    DECOMPOSED = "decomposed"  # not in NFC: letters and accents that a single character could represent
    COMPATIBLE = (
        "compatible"  # variants of letters and digits that NFKC replaces, such as full-width ones and ligatures
    )
    CONTROL = "control"  # control characters, such as a carriage return or a tab
    INVISIBLE = "invisible"  # without width, such as a byte order mark, a zero-width space or a direction mark
    PADDED = "padded"  # white space at the beginning or the end
    SPACE = "space"  # other spaces, such as a no-break space
    ESCAPE = "escape"  # backslash escapes of line breaks, quotes or code points
    ENTITY = "entity"  # HTML entities, such as &amp;


_ESCAPE = re.compile(r"\\(?:[nrt\\\"'/]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})")
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z]\w*);")


def remarks_of(label: str) -> set[Remark]:
    """Return the unusual properties of a label."""
    composed = unicodedata.normalize("NFC", label)
    categories = {unicodedata.category(character) for character in label if character != " "}
    properties = {
        Remark.DECOMPOSED: composed != label,
        Remark.COMPATIBLE: any(unicodedata.normalize("NFKC", c) != c for c in composed if c.isalnum()),
        Remark.CONTROL: "Cc" in categories,
        Remark.INVISIBLE: "Cf" in categories,
        Remark.PADDED: label != label.strip(),
        Remark.SPACE: "Zs" in categories,
        Remark.ESCAPE: _ESCAPE.search(label) is not None,
        Remark.ENTITY: any(html.unescape(entity) != entity for entity in _ENTITY.findall(label)),
    }
    return {remark for remark, applies in properties.items() if applies}


class RejectedSampleError(ValueError):
    """A sample that is skipped, with the `reason`."""

    def __init__(self, reason: Rejection, message: str):
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class UnknownCharactersError(ValueError):
    """A label with characters outside the charset, if this is an error."""


class LabelEncoder:
    """Encoder of texts as character ids; labels are rejected by rules, and never changed without a request.

    Args:
        charset: characters, in the order of the head.
        max_length (`int`, *optional*): maximum number of characters in a label; by default, only the number of frames of the
            image limits it. 25 in the paper.
        unknown_characters (`str`, *optional*, defaults to `"error"`): treatment of labels with characters outside the charset:
            an error (`"error"`), rejection (`"drop_sample"`), or removal of the characters (`"drop_character"`, as upstream,
            which also removes spaces).

    Raises:
        ValueError: `unknown_characters` has another value, or `max_length` is below 1.
    """

    def __init__(
        self,
        charset: Sequence[str],
        max_length: int | None = None,
        unknown_characters: UnknownCharacters = "error",
    ):
        if unknown_characters not in get_args(UnknownCharacters):
            raise ValueError(
                f"unknown_characters={unknown_characters!r} must be one of {', '.join(get_args(UnknownCharacters))}."
            )
        if max_length is not None and max_length < 1:
            raise ValueError(f"The maximum length of labels, {max_length}, must be 1 or more.")
        self.ids = {character: number for number, character in enumerate(charset, start=1)}
        self.max_length = max_length
        self.unknown_characters = unknown_characters

    def unknown(self, text: str) -> set[str]:
        """Return the characters of `text` outside the charset."""
        return set(text) - self.ids.keys()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a label.

        Raises:
            RejectedSampleError: the label cannot be trained on.
            UnknownCharactersError: it has characters outside the charset, and `unknown_characters` is `"error"`.
        """
        if self.unknown_characters != "drop_character" and (unknown := sorted(self.unknown(text))):
            if self.unknown_characters == "drop_sample":
                raise RejectedSampleError(Rejection.UNKNOWN_CHARACTERS, f"{''.join(unknown)!r} in {text!r}")
            characters = ", ".join(f"{character!r} ({code_point(character)})" for character in unknown)
            raise UnknownCharactersError(
                f"The label {text!r} has characters outside the charset: {characters}. Add them to the charset (`svtrv2 charset` "
                "writes one from labels), skip such "
                "samples with --unknown_characters drop_sample, or remove the characters from the labels with "
                "--unknown_characters drop_character."
            )
        ids = [self.ids[character] for character in text if character in self.ids]
        if not ids:
            raise RejectedSampleError(Rejection.EMPTY, repr(text))
        if self.max_length is not None and len(ids) > self.max_length:
            raise RejectedSampleError(Rejection.TOO_LONG, f"{len(ids)} > {self.max_length} characters in {text!r}")
        return ids


def frames_needed(ids: Sequence[int]) -> int:
    """Return the number of frames that CTC needs: one per character, and a blank between equal adjacent characters."""
    return len(ids) + sum(first == second for first, second in pairwise(ids))
