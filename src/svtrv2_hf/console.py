# SPDX-License-Identifier: Apache-2.0
"""Text from anywhere on a terminal."""

import re


# Control characters, separators of lines and paragraphs, halves of surrogate pairs, and what turns the direction of writing: a file
# name or a label with them could erase lines, change their order, or send commands to the terminal. Joiners (U+200C, U+200D) are part of
# Persian and Indic words and of emoji; they, U+200B and U+FEFF move nothing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, keep: str = "") -> str:
    r"""Text with all characters escaped that a terminal would obey, as JSON escapes them (`\u001b`), except those of `keep`."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", str(text))
