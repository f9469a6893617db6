# SPDX-License-Identifier: Apache-2.0
"""Safe output of untrusted text on a terminal."""

import re
import sys

from .redaction import redact


# Control characters, line and paragraph separators, unpaired surrogates, and marks of the writing direction: in a file name or a label, they
# could erase or reorder lines, or send commands to the terminal. U+200B to U+200D and U+FEFF are safe, and are part of Persian and Indic
# words and of emoji.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object, keep: str = "") -> str:
    r"""Escape all characters that control a terminal as in JSON (`\u001b`), except those in `keep`."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] in keep else f"\\u{ord(match[0]):04x}", str(text))


def note(message: str, keep: str = "") -> None:
    """Print a message to stderr, without secrets and below unfinished progress bars; `keep` is that of [`printable`]."""
    from tqdm import tqdm  # here, because help texts do not need it

    tqdm.write(printable(redact(message), keep), file=sys.stderr)


def warn(message: str, keep: str = "") -> None:
    """Print a warning or an error of the program to stderr, as [`note`] does."""
    note(f"svtrv2: {message}", keep)
