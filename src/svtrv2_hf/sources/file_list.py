# SPDX-License-Identifier: Apache-2.0
"""Lists of files: one line with a file name, a tab and a label for each image."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .decoding import read_text
from .format import SPLIT, Format, Place
from .spec import Spec


if TYPE_CHECKING:
    from .file_source import FileSource, Row


def _match(place: Place) -> list[str]:
    return place.find(".tsv", ".txt", names=("labels.tsv",))


def _open(spec: Spec, files: Sequence[str]) -> "FileSource":
    from .file_source import FileSource

    listing = Path(files[0])
    # Of two files with the same name, `labels.tsv` means that in `images`, and other lists that in their own folder.
    folders = ["images", ""] if listing.name.lower() == "labels.tsv" else ["", "images"]
    if not (listing.parent / "images").is_dir():
        folders = [""]
    return FileSource(spec, listing, folders, _rows(listing))


def _rows(listing: Path) -> Iterator["Row"]:
    lines = read_text(listing).split("\n")
    _check_quotes(listing, lines)
    for number, line in enumerate(lines, start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        file, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{listing}, line {number}: no tab between file name and text in {line!r}.")
        if "\t" in text:
            raise ValueError(f"{listing}, line {number}: more than the two fields file name and text in {line!r}.")
        yield number, file, text, None


def _check_quotes(listing: Path, lines: Sequence[str]) -> None:
    """Reject lists of spreadsheets, in which all fields with quotes have the form of CSV, and one contains doubled quotes."""
    quoted = [
        (number, field)
        for number, line in enumerate(lines, 1)
        if '"' in line
        for field in line.rstrip("\r").split("\t")
        if '"' in field
    ]
    if any(not re.fullmatch(r'"([^"]|"")*"', field) for _, field in quoted):
        return
    if doubled := [number for number, field in quoted if '""' in field[1:-1]]:
        raise ValueError(
            f"{listing}, line {doubled[0]} is quoted as in CSV: write the list without quotes (in pandas: "
            "quoting=csv.QUOTE_NONE), or as a metadata.csv with the columns file_name,text."
        )


FORMAT = Format(
    name="list of files",
    help="a folder with a `labels.tsv`, UTF-8 with one line `file<TAB>text` per image, or another such list (`.tsv`, `.txt`); "
    "file names are relative to the folder of the list or to `images/` in it",
    options=(SPLIT,),
    match=_match,
    open=_open,
    single_file=True,
)
