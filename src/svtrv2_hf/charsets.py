# SPDX-License-Identifier: Apache-2.0
"""Charsets: the characters that a model predicts, in the order of its head, and their tokenizer."""

import string
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .processing_svtrv2 import check_tokenizer


# The printable ASCII characters without the space, in the order of the published English models.
ENGLISH_94 = string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation
PRINTABLE_ASCII = ENGLISH_94 + " "

Normalization = Literal["none", "nfc", "nfkc"]
"""A Unicode normalization form, applied to charset, labels and predictions alike."""

BLANK, UNKNOWN = "<blank>", "<unk>"


def build_tokenizer(charset: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters.

    Id 0 is the blank of CTC, which is also the padding token; ids from 1 are the charset; the last id is the unknown
    token. The head of the model scores all ids except the last, so its `vocab_size` is `len(charset) + 1`. Decoding joins
    characters and does not merge repeated ones; `SVTRv2Processor` decodes logits.

    Args:
        charset (`str` or `list[str]`): characters in the order of the head.

    Raises:
        ValueError: the charset is empty, or an entry is repeated or not a single character.
    """
    if not _unique((f"entry {number} of the charset", entry) for number, entry in enumerate(charset)):
        raise ValueError("The charset is empty.")
    vocabulary = {BLANK: 0, **{character: number for number, character in enumerate(charset, start=1)}}
    vocabulary[UNKNOWN] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=BLANK,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # the label "<unk>" is five characters
    )


def _unique(entries: Iterable[tuple[str, str]]) -> list[str]:
    """Return the second items, checked; the first items name them in messages."""
    places: dict[str, str] = {}
    for place, entry in entries:
        if len(entry) != 1:
            raise ValueError(f"{entry!r} ({place}) is not a single character{_code_points(entry)}.")
        if entry in places:
            raise ValueError(f"{entry!r} ({code_point(entry)}) is repeated: {places[entry]} and {place}.")
        places[entry] = place
    return list(places)


def _code_points(entry: str) -> str:
    """Describe an entry of several characters, since a letter with a separate accent looks like one character."""
    if not entry:
        return ""
    points = f": {' '.join(map(code_point, entry[:8]))}"
    if len(entry) > 8:
        return f"{points} ... ({len(entry)} characters)"
    composed = unicodedata.normalize("NFC", entry)
    if len(composed) > 1:
        return points
    return f"{points}. Use the single character {code_point(composed)} (Unicode NFC) here and in the labels"


def code_point(character: str) -> str:
    """Return the code point of a character in the notation of Unicode, such as U+0041."""
    return f"U+{ord(character):04X}"


def normalize_unicode(text: str, form: Normalization) -> str:
    """Return the text in a Unicode normalization form; `none` returns it unchanged.

    >>> normalize_unicode("e\u0301", "nfc") == "\u00e9", normalize_unicode("\uff21", "nfkc")
    (True, 'A')

    Raises:
        ValueError: the form is unknown.
    """
    if form == "none":
        return text
    if form not in ("nfc", "nfkc"):
        raise ValueError(f"normalize={form!r} must be one of {', '.join(get_args(Normalization))}.")
    return unicodedata.normalize("NFC" if form == "nfc" else "NFKC", text)


def read_charset(path: str | Path, normalize: Normalization = "none") -> list[str]:
    """Read a charset file: UTF-8, one character per line.

    A line with a single space is the space. As in the dictionaries of PaddleOCR and OpenOCR, tabs and spaces after a
    character, a byte order mark, and empty lines are ignored.

    Args:
        path: the file.
        normalize: Unicode normalization form of the entries.

    Raises:
        ValueError: the file is not UTF-8 or is empty, or a line is repeated or not a single character.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The charset file {path} is not UTF-8: {error}.") from error
    entries = []
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) != 1:
            line = line.rstrip("\r").rstrip(" \t") or line[:1]
        if line not in ("", "\r"):
            entry = normalize_unicode(line, normalize)
            entries.append((f"line {number} of {path}{f' in {normalize}' if entry != line else ''}", entry))
    if not entries:
        raise ValueError(f"The charset file {path} is empty.")
    return _unique(entries)


def format_charset(characters: Iterable[str]) -> str:
    """Return the content of a charset file, which [`read_charset`] reads.

    Raises:
        ValueError: a line of a file cannot contain a character.
    """
    characters = list(characters)
    if excluded := [character for character in characters if not fits_charset_file(character)]:
        raise ValueError(
            f"A charset file cannot contain {', '.join(map(code_point, excluded))}: remove these characters."
        )
    return "".join(f"{character}\n" for character in characters)


def fits_charset_file(character: str) -> bool:
    """Return whether a charset file can contain a character: all except line ends, byte order marks and unpaired surrogates."""
    return character not in "\r\n\ufeff" and unicodedata.category(character) != "Cs"


def synthetic_charset(path: str | Path | None) -> str:
    """Return the characters of synthetic text: those of a file, or by default the printable ASCII characters."""
    return PRINTABLE_ASCII if path is None else "".join(read_charset(path))


def charset_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the characters of a tokenizer of [`build_tokenizer`] in their order.

    Raises:
        ValueError: two characters have the same id, an id has no character, or tokens follow the unknown token.
    """
    check_tokenizer(tokenizer)
    characters = list(tokenizer.convert_ids_to_tokens(list(range(1, tokenizer.unk_token_id))))
    if None in characters:
        raise ValueError(
            f"tokenizer.json has no character with the id {characters.index(None) + 1}: each id from 1 to {len(characters)} needs one."
        )
    return characters
