# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 atlas`: an atlas that others can build again, and the list of its fonts."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from .atlas import Atlas, build_atlas
from .fonts import FontFace, FoundFonts, find_fonts, package_of


def build(
    output: str | Path, charset: str, folders: Sequence[str | Path] = (), leave_out: Sequence[str] = ()
) -> tuple[Atlas, FoundFonts]:
    """Builds an atlas and writes it, and beside it a `.tsv` of its fonts: name, licence, package and version, file, and the
    file's SHA-256.

    The same files, charset, and versions of this package, Pillow and FreeType give an atlas of the same digest.

    Args:
        output: the file to write, a `.safetensors`. It must not exist yet.
        charset: the characters to draw.
        folders: whose fonts to take, beside the DejaVu of matplotlib, in place of those of this machine.
        leave_out: fonts not to take, by their names or by those of their families.

    Returns:
        the atlas, whose `left_out` names the fonts that were found but not taken, and what was found.

    Raises:
        FileExistsError: an output is there already.
        FileNotFoundError: a folder is not there.
        ValueError: the output has another ending, or no font found has a name in `leave_out`.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"{output} must end in .safetensors, as an atlas does.")
    listing = output.with_suffix(".tsv")
    for path in (output, listing):
        if path.exists():
            raise FileExistsError(f"{path} is there already: name another, or remove it.")
    found = find_fonts(folders, packages=not folders, system=not folders)
    unwanted = _named(found.fonts, leave_out)
    fonts = [font for font in found.fonts if font not in unwanted]
    atlas = build_atlas(fonts, charset)
    atlas.left_out.update((font.name, "not wanted") for font in unwanted)
    atlas.save(output)
    _write_listing(listing, atlas, fonts)
    return atlas, found


def _named(fonts: Sequence[FontFace], names: Sequence[str]) -> list[FontFace]:
    chosen = []
    for name in names:
        of_name = [font for font in fonts if name.casefold() in (font.name.casefold(), font.family.casefold())]
        if not of_name:
            raise ValueError(f"There is no font {name!r} to leave out among the {len(fonts)} that were found.")
        chosen += of_name
    return chosen


def _write_listing(path: Path, atlas: Atlas, fonts: Sequence[FontFace]) -> None:
    by_name = {font.name: font for font in fonts}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("font", "licence", "package", "file", "sha256"))
        for font in map(by_name.__getitem__, atlas.fonts):
            digest = hashlib.sha256(font.path.read_bytes()).hexdigest()
            writer.writerow((font.name, font.licence, package_of(font.path), font.path.name, digest))
