# SPDX-License-Identifier: Apache-2.0
"""Decoding of labels and lists of labels, the same for every format."""

import codecs
from pathlib import Path


def decode(content: bytes, where: str) -> str:
    """Decode UTF-8 with or without a byte order mark.

    Args:
        content: a label or a complete list.
        where: file and position for messages.

    Raises:
        ValueError: `content` is not UTF-8. The message names the line, if there are several, and likely encodings.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{where} is UTF-16, not UTF-8. Convert it to UTF-8.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        place = f"{where}, line {line + 1}," if line or b"\n" in content[:-1] else where
        guess = f"it may be {'GBK, ' if _may_be_gbk(content) else ''}Latin-1 or another encoding"
        raise ValueError(f"{place} is not UTF-8 ({guess}): convert it to UTF-8.") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        ValueError: it is not UTF-8 or contains NUL characters.
    """
    text = decode(path.read_bytes(), str(path))
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line} contains a NUL byte: the file is damaged, or UTF-16 instead of UTF-8.")
    return text


def _may_be_gbk(content: bytes) -> bool:
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return False
    return all(c < "\x80" or "\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in text)


def clean_label(text: str, where: str) -> str:
    """Remove a byte order mark and trailing line ends, which tools add and no image shows.

    Args:
        text: stored label.
        where: file and position for messages.

    Raises:
        ValueError: `text` contains a lone surrogate, which cannot be encoded.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: the label {text!r} has a lone surrogate, which is not a character.") from error
    return text.removeprefix("\ufeff").rstrip("\r\n")
