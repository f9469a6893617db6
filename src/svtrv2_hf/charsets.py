# SPDX-License-Identifier: Apache-2.0
"""Charsets: the ordered characters that a recogniser knows, and the tokenizer that holds them."""

import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


# The printable ASCII characters but the space, in the order of the published English models.
ENGLISH_94 = string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation

Normalization = Literal["none", "nfc", "nfkc"]
"""A Unicode normalization form, of charset, labels and scoring alike."""

BLANK, UNKNOWN = "<blank>", "<unk>"


def build_tokenizer(charset: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of single characters: id 0 is CTC's blank (and the pad), ids from 1 the charset, the last is unknown.

    The model's head scores all but the last, so its `vocab_size` is `len(charset) + 1`. Decoding joins characters and
    merges nothing, since labels may repeat them; frames of logits are for `SVTRv2Processor`.

    Args:
        charset (`str` or `list[str]`): the characters, in the order of the head.

    Raises:
        ValueError: it is empty, or an entry is repeated or is not a single character.
    """
    check_charset(charset)
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


def check_charset(charset: Sequence[str]) -> None:
    """Raises ValueError if the charset is empty, or an entry is repeated or is not a single character."""
    if not len(charset):
        raise ValueError("The charset is empty.")
    seen: dict[str, int] = {}
    for number, entry in enumerate(charset):
        if len(entry) != 1:
            raise ValueError(f"Entry {number} of the charset, {entry!r}, is not a single character: {_told(entry)}")
        if entry in seen:
            raise ValueError(
                f"The charset holds {entry!r} (U+{ord(entry):04X}) twice: entries {seen[entry]} and {number}."
            )
        seen[entry] = number


def _told(entry: str) -> str:
    """What an entry is that is no single character, since a letter with a separate accent looks like one."""
    if not entry:
        return "it is empty."
    points = " ".join(f"U+{ord(character):04X}" for character in entry[:8])
    if len(entry) > 8:
        return f"it is {points} ... ({len(entry)} characters)."
    composed = unicodedata.normalize("NFC", entry)
    if len(composed) > 1:
        return f"it is {points}."
    return f"it is {points}. Write it as the one character U+{ord(composed):04X} (Unicode's NFC), in the labels, too."


def normalize_unicode(text: str, form: Normalization) -> str:
    """The text in a Unicode normalization form; as it is for `none`.

    >>> normalize_unicode("e\u0301", "nfc") == "\u00e9", normalize_unicode("\uff21", "nfkc")
    (True, 'A')
    """
    match form:
        case "none":
            return text
        case "nfc":
            return unicodedata.normalize("NFC", text)
        case "nfkc":
            return unicodedata.normalize("NFKC", text)
    raise ValueError(f"normalize={form!r} must be one of {', '.join(get_args(Normalization))}.")


def read_charset(path: str | Path, normalize: Normalization = "none") -> list[str]:
    """Reads a charset file: UTF-8, one character a line.

    A line of one space is the space. As in the dictionaries of PaddleOCR and OpenOCR, tabs and spaces behind a character, a
    byte order mark, and empty lines are ignored.

    Args:
        path: the file.
        normalize: Unicode normalization form of the entries.

    Raises:
        ValueError: the file is not UTF-8, or empty, or a line is repeated or not a single character; the message names file and line.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"The charset file {path} is not UTF-8: {error}.") from error
    lines = [line if len(line) == 1 else line.rstrip("\r").rstrip(" \t") or line[:1] for line in text.split("\n")]
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if line in ("", "\r"):
            continue
        entry = normalize_unicode(line, normalize)
        place = f"Charset file {path}, line {number}"
        if len(entry) != 1:
            form = f" normalized by {normalize}" if entry != line else ""
            raise ValueError(f"{place}: {line!r}{form} is not a single character: {_told(entry)}")
        if entry in seen:
            raise ValueError(f"{place}: {line!r} repeats {entry!r} (U+{ord(entry):04X}) of line {seen[entry]}.")
        seen[entry] = number
    if not seen:
        raise ValueError(f"The charset file {path} is empty.")
    return list(seen)


def charset_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The characters of a tokenizer made by `build_tokenizer`, in their order.

    Raises:
        ValueError: two characters have one id, or an id has no character.
    """
    characters = list(tokenizer.convert_ids_to_tokens(list(range(1, tokenizer.unk_token_id))))
    if None in characters:
        raise ValueError(
            f"tokenizer.json has no character with the id {characters.index(None) + 1}: each from 1 to {len(characters)} needs one."
        )
    return characters
