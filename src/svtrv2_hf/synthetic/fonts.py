# SPDX-License-Identifier: Apache-2.0
"""Fonts for rendering: at most one regular, one bold and one italic face per family, with known licenses.

Fonts come from folders, from installed `fontpkg-*` packages (families of Google Fonts, one per package), from the system's
font folders, and from matplotlib, whose DejaVu fonts are always available. Only families in the curated list
`data/font_licenses.tsv` are used, unless fonts with an unknown license are explicitly allowed.
"""

import csv
import logging
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from string import ascii_letters, digits
from typing import NamedTuple

from fontTools.ttLib import TTCollection, TTFont, TTLibError


# fontTools warns about harmless dates and table lengths in old fonts.
logging.getLogger("fontTools").setLevel(logging.ERROR)

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
SYSTEM_FOLDERS = {
    "darwin": ("~/Library/Fonts", "/Library/Fonts", "/System/Library/Fonts"),
    "win32": ("~/AppData/Local/Microsoft/Windows/Fonts", "C:/Windows/Fonts"),
    "other": ("~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts"),
}
NOT_TEXT = re.compile(
    r"symbol|dingbat|ornament|emoji|icon|barcode|braille|math|music|glyph|awesome|last ?resort|tofu|sizefour|nonuni",
    re.I,
)
UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True)
class FontFace:
    """One face of a font file.

    Attributes:
        path: font file.
        family: family name from the font's name table.
        style: "Regular", "Bold" or "Italic".
        license: license from the curated list, or "unknown".
        number: index of the face in a font collection.
        axes: coordinates of a variable font's instance, in the order of its axes; empty for other fonts.
    """

    path: Path
    family: str
    style: str
    license: str
    number: int = 0
    axes: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"


class KnownFont(NamedTuple):
    """License of a font family, and the package that distributes it."""

    license: str
    package: str


class FoundFonts(NamedTuple):
    """Fonts to render with, and the number of skipped faces per reason."""

    fonts: list[FontFace]
    skipped: dict[str, int]


class _Candidate(NamedTuple):
    face: FontFace
    weight: int
    width_distance: int  # steps from the normal width


@cache
def known_fonts() -> dict[str, KnownFont]:
    """Return the curated list of families with permissive licenses, keyed by case-folded family name."""
    with (Path(__file__).parent / "data" / "font_licenses.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["family"].casefold(): KnownFont(row["license"], row["package"]) for row in rows}


def find_fonts(
    folders: Sequence[str | Path] = (),
    packages: bool = True,
    system: bool = True,
    allow_unknown_license: bool = False,
) -> FoundFonts:
    """Find the fonts to render text with, sorted by family and style.

    A family found in several places is taken from the first of: `folders`, packages, the system's folders, matplotlib.

    Args:
        folders: folders to search recursively.
        packages: include installed `fontpkg-*` packages.
        system: include the fonts installed on this machine. Set it to `False` if other machines must find the same fonts.
        allow_unknown_license: include families that are not in the curated list. Check yourself that their licenses
            permit it and that their letters are legible.

    Raises:
        FileNotFoundError: a folder does not exist.
    """
    skipped: Counter[str] = Counter()
    families: dict[str, list[_Candidate]] = {}
    for files in _files_by_place(folders, packages, system):
        in_place: dict[str, list[_Candidate]] = defaultdict(list)
        for path in files:
            for candidate in _read(path, skipped):
                if candidate.face.license == UNKNOWN_LICENSE and not allow_unknown_license:
                    skipped["license unknown"] += 1
                else:
                    in_place[candidate.face.family.casefold()].append(candidate)
        for family, candidates in in_place.items():
            if family in families:
                skipped["family already found"] += len(candidates)
            else:
                families[family] = candidates
    fonts = []
    for _, candidates in sorted(families.items()):
        chosen = _choose(candidates)
        skipped["another face of the style chosen"] += len(candidates) - len(chosen)
        fonts.extend(chosen)
    return FoundFonts(fonts, {reason: count for reason, count in sorted(skipped.items()) if count})


def _files_by_place(folders: Sequence[str | Path], packages: bool, system: bool) -> Iterator[list[Path]]:
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"Font folder {folder} not found.")
        yield _files_in(Path(folder))
    if packages:
        modules = sorted(entry.module for entry in entry_points(group="fontpkg.family"))
        yield [path for module in modules for path in _files_in(_folder_of(module))]
    if system:
        folders = SYSTEM_FOLDERS.get(sys.platform, SYSTEM_FOLDERS["other"])
        yield [path for folder in folders for path in _files_in(Path(folder).expanduser())]
    yield [path for path in _files_in(_folder_of("matplotlib")) if path.name.startswith("DejaVu")]


def _files_in(folder: Path | None) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder else []


def _folder_of(module: str) -> Path | None:
    """Return the folder of an installed package without importing it."""
    spec = find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def _read(path: Path, skipped: Counter[str]) -> Iterator[_Candidate]:
    """Yield the faces of a file that have Latin text; for a variable font, its instances."""
    try:
        collection = path.suffix.lower() in (".ttc", ".otc")
        faces = TTCollection(path, lazy=True).fonts if collection else [TTFont(path, lazy=True)]
        for number, font in enumerate(faces):
            yield from _candidates(path, font, number, skipped)
    except (TTLibError, OSError, KeyError, AssertionError, AttributeError, UnicodeError):  # raised on damaged fonts
        skipped["unreadable"] += 1


def _candidates(path: Path, font: TTFont, number: int, skipped: Counter[str]) -> Iterator[_Candidate]:
    names = font["name"]
    family = (names.getBestFamilyName() or path.stem).strip()
    subfamily = names.getBestSubFamilyName() or ""
    characters = font.getBestCmap() or {}
    if NOT_TEXT.search(family):
        skipped["symbol font by its name"] += 1
        return
    if any(ord(character) not in characters for character in ascii_letters + digits):
        skipped["lacks Latin letters or digits"] += 1
        return
    known = known_fonts().get(family.casefold())
    license = known.license if known else UNKNOWN_LICENSE
    table = font.get("OS/2")
    italic = bool(font["head"].macStyle & 2) or re.search(r"italic|oblique", subfamily, re.I) is not None
    weight = table.usWeightClass if table else 700 if font["head"].macStyle & 1 else 400
    width_distance = abs(table.usWidthClass - 5) if table else 0
    if "fvar" not in font:
        style = "Italic" if italic else "Bold" if weight >= 600 else "Regular"
        yield _Candidate(FontFace(path, family, style, license, number), weight, width_distance)
        return
    axes = font["fvar"].axes
    for style, target in (("Italic", 400),) if italic else (("Regular", 400), ("Bold", 700)):
        targets = {"wght": target, "wdth": 100}
        coordinates = tuple(
            float(min(max(targets.get(axis.axisTag, axis.defaultValue), axis.minValue), axis.maxValue))
            for axis in axes
        )
        weights = [value for axis, value in zip(axes, coordinates, strict=True) if axis.axisTag == "wght"]
        instance_weight = int(weights[0]) if weights else weight
        if (instance_weight >= 600) == (style == "Bold") or style == "Italic":
            face = FontFace(path, family, style, license, number, coordinates)
            yield _Candidate(face, instance_weight, width_distance)


def _choose(candidates: Sequence[_Candidate]) -> list[FontFace]:
    """Choose the face of each style closest to the nominal weight and width; the first file on ties."""
    chosen = []
    for style, weight in (("Regular", 400), ("Bold", 700), ("Italic", 400)):
        of_style = [candidate for candidate in candidates if candidate.face.style == style]
        if of_style:
            chosen.append(min(of_style, key=lambda each: (each.width_distance, abs(each.weight - weight))).face)
    return chosen
