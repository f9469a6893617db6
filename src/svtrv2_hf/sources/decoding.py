# SPDX-License-Identifier: Apache-2.0
"""How labels and lists become text: the same rules for every format."""

import codecs


def decode(content: bytes, where: str) -> str:
    """Decodes UTF-8, with or without a byte order mark.

    Args:
        content: a label, or a whole list.
        where: file and place, for the message.

    Raises:
        ValueError: `content` is not UTF-8; the message names the line, if there are several, and likely encodings.
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


def _may_be_gbk(content: bytes) -> bool:
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return False
    return all(
        character < "\x80" or "\u3000" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"
        for character in text
    )


def label_of(text: str, where: str) -> str:
    """A label without a byte order mark and without line ends after it, which tools leave and nobody writes on an image.

    Args:
        text: as it is stored.
        where: file and place, for the message.

    Raises:
        ValueError: `text` has half of a surrogate pair, which no encoding holds.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where}: the label {text!r} has a lone surrogate, which is not a character.") from error
    return text.removeprefix("\ufeff").rstrip("\r\n")
