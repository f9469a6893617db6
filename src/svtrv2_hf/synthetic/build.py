# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 atlas`: build a reproducible atlas and a list of its fonts."""

import csv
import hashlib
from collections.abc import Sequence
from pathlib import Path

from .atlas import Atlas, build_atlas
from .fonts import FontFace, FoundFonts, find_fonts, known_fonts


def build(
    output: str | Path,
    charset: str,
    folders: Sequence[str | Path] = (),
    exclude: Sequence[str] = (),
    allow_unknown_license: bool = False,
) -> tuple[Atlas, FoundFonts]:
    """Build an atlas and save it with a `.tsv` that lists its fonts: name, license, package, file name, and SHA-256.

    The same font files, charset, and versions of this package, Pillow and FreeType produce an atlas with the same digest.

    Args:
        output: `.safetensors` file to write. It must not exist.
        charset: characters to render.
        folders: folders whose fonts to use together with matplotlib's DejaVu, instead of the fonts of this machine.
        exclude: fonts or families to exclude, by name.
        allow_unknown_license: include fonts that are not in the curated list of licenses.

    Returns:
        The atlas, whose `skipped` lists the fonts that were found but not included, and the fonts found.

    Raises:
        FileExistsError: an output file exists.
        FileNotFoundError: a folder does not exist.
        ValueError: the output does not end in `.safetensors`, or a name in `exclude` matches no font.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"{output}: the file name of an atlas must end in .safetensors.")
    listing = output.with_suffix(".tsv")
    for path in (output, listing):
        if path.exists():
            raise FileExistsError(f"{path} already exists: choose another name, or remove it.")
    selection = find_fonts(
        folders, packages=not folders, system=not folders, allow_unknown_license=allow_unknown_license
    )
    excluded = _select(selection.fonts, exclude)
    fonts = [font for font in selection.fonts if font not in excluded]
    atlas = build_atlas(fonts, charset)
    atlas.skipped.update((font.name, "excluded") for font in excluded)
    atlas.save(output)
    _write_listing(listing, atlas, fonts)
    return atlas, selection


def _select(fonts: Sequence[FontFace], names: Sequence[str]) -> list[FontFace]:
    selected = []
    for name in names:
        matches = [font for font in fonts if name.casefold() in (font.name.casefold(), font.family.casefold())]
        if not matches:
            raise ValueError(f"Cannot exclude {name!r}: not among the {len(fonts)} fonts found.")
        selected += matches
    return selected


def _write_listing(path: Path, atlas: Atlas, fonts: Sequence[FontFace]) -> None:
    by_name = {font.name: font for font in fonts}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("font", "license", "package", "file", "sha256"))
        for font in map(by_name.__getitem__, atlas.fonts):
            digest = hashlib.sha256(font.path.read_bytes()).hexdigest()
            known = known_fonts().get(font.family.casefold())
            writer.writerow((font.name, font.license, known.package if known else "", font.path.name, digest))
