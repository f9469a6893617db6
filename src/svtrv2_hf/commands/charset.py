# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 charset`."""

import io
import sys
import unicodedata
from typing import Annotated

import typer

from ..console import note, printable
from .options import Normalization, extra, option


SOURCES = "Sources as in --train_data of svtrv2 train."
NORMALIZE = "Unicode normalization form of the labels. Use the same form for training."
RAREST = 10  # characters to list


def charset(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help=SOURCES)],
    normalize: Annotated[Normalization, option(None, NORMALIZE)] = "none",
) -> int:
    """Print the characters of labels: svtrv2 charset SOURCE > charset.txt.

    Prints each character on a separate line, in the order of Unicode, as --charset of svtrv2 train reads it. The number of
    labels and the rarest characters are reported on stderr: they may be mistakes, and the model cannot learn a
    character from a few samples.
    """
    with extra("eval", "Reading labels"):
        from ..charsets import code_point, fits_charset_file, format_charset
        from ..data.audit import count_characters
        from ..reporting import markdown_table, plural
        from ..sources import open_source
    counts, labels, empty, decomposed = count_characters([open_source(source) for source in sources], normalize)
    written = sorted(filter(fits_charset_file, counts))
    if not written:
        raise ValueError(f"The {plural(labels, 'label')} of {', '.join(sources)} have no characters.")
    content = format_charset(written)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a charset file is UTF-8, also if the terminal is not
        sys.stdout.reconfigure(encoding="utf-8")
    print(printable(content, keep="\n") if sys.stdout.isatty() else content, end="")
    note(f"{plural(len(written), 'character')} in {plural(labels, 'label')}, {empty:,} of them empty. The rarest:")
    rows = [
        (character, code_point(character), unicodedata.name(character, ""), f"{counts[character]:,}")
        for character in sorted(written, key=lambda character: (counts[character], character))[:RAREST]
    ]
    note(markdown_table(["character", "code point", "name", "count"], rows, align="lllr"), keep="\n")
    if excluded := sorted(counts.keys() - set(written)):
        listed = ", ".join(f"{code_point(character)} ({counts[character]:,})" for character in excluded)
        note(f"Not written, because a charset file cannot contain them: {listed}. Remove them from the labels.")
    if decomposed:
        note(
            f"{plural(decomposed, 'label')} not in Unicode's NFC: accents are separate characters. --normalize nfc composes "
            "them, here and in training."
        )
    return 0
