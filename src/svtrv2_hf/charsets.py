# SPDX-License-Identifier: Apache-2.0
"""Charsets: the ordered characters that a recogniser knows, and the tokenizer that holds them."""

import string
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast


# The printable ASCII characters but the space, in the order of the published English models.
ENGLISH_94 = string.digits + string.ascii_lowercase + string.ascii_uppercase + string.punctuation

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


def read_charset(path: str | Path) -> list[str]:
    """Reads a charset file: UTF-8, one character a line, a space being a line like any other.

    Raises:
        ValueError: the file is not UTF-8, or its lines are no charset; the message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"The charset file {path} is not UTF-8: {error}.") from error
    characters = [line.removesuffix("\r") for line in lines]
    if characters[-1] == "":
        characters.pop()
    try:
        check_charset(characters)
    except ValueError as error:
        raise ValueError(f"Charset file {path}, one character a line, entries counted from 0: {error}") from error
    return characters


def charset_of(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The characters of a tokenizer made by `build_tokenizer`, in their order."""
    return list(tokenizer.convert_ids_to_tokens(list(range(1, tokenizer.unk_token_id))))
