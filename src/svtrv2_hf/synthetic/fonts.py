# SPDX-License-Identifier: Apache-2.0
"""The fonts of this machine, with their licences: one regular, one bold and one italic a family.

Fonts come from folders that the user names, from installed `fontpkg-*` packages (families of Google Fonts, one a package),
from the system's folders, and from matplotlib, whose DejaVu fonts are the floor that is always there. What counts as
licence is what the font, its package or its distribution says; see [`licence_of`].
"""

import glob
import json
import logging
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTCollection, TTFont, TTLibError


# Odd dates and lengths in old fonts change nothing here.
logging.getLogger("fontTools").setLevel(logging.ERROR)

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
LETTERS_AND_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NOT_TEXT = re.compile(
    r"symbol|dingbat|ornament|emoji|icon|barcode|braille|math|music|glyph|awesome|last ?resort|tofu|sizefour|nonuni",
    re.I,
)

RESTRICTED = "restricted"
COPYLEFT = "GPL"
ATTRIBUTION = "CC-BY"
UNKNOWN = "unknown"
FREE_LICENCES = ("OFL-1.1", "Bitstream-Vera", "Apache-2.0", "BSD", "MIT", "public-domain")

# The strictest first. Phrases are a licence's own: a company's name or the word "Apache" alone says nothing of a licence.
LICENCE_PATTERNS = (
    (
        RESTRICTED,
        r"non-?\s?commercial|no-?\s?deriv|personal use|\bby-n[cd]|shareware|\beula\b|"
        r"\bno\s+(re)?distribution|not\s+be\s+(sold|copied|(re)?distributed(?!\s+(under\s+)?any\s+other\s+licen[sc]e))",
    ),
    (COPYLEFT, r"general public|\ba?l?gpl|creativecommons\.org/licenses/by-sa|share-?\s?alike|\bcc-by-sa"),
    (ATTRIBUTION, r"creative commons attribution|creativecommons\.org/licenses/by/|\bcc[- ]by\b"),
    ("OFL-1.1", r"open[ _]font[ _]licen[sc]e|sil\.org/ofl|openfontlicense\.org|\bofl\b|^sil-1"),
    ("Bitstream-Vera", r"bitstream[ -]vera"),
    ("Apache-2.0", r"apache[ -](software[ -])?licen[sc]e|apache\.org/licenses|\bapache-?2"),
    ("BSD", r"\bbsd[ -](style|licen[sc]e|\d)|^bsd$|redistribution and use in source and binary forms"),
    (
        "MIT",
        r"\b(mit|expat|x11)\b.{0,10}licen[sc]e|^(mit|expat|x11)$|permission is hereby granted, free of charge, to any",
    ),
    (
        "public-domain",
        r"(?<!not in the )(?<!changes are in )public domain|public-domain|publicdomain|\bcc0\b|\bunlicense\b",
    ),
)


@dataclass(frozen=True)
class FontFace:
    """One face of a font file.

    Attributes:
        path: the file.
        family: as the font calls it.
        style: "Regular", "Bold" or "Italic".
        licence: one of `FREE_LICENCES`, or "CC-BY", "GPL", "restricted", "unknown".
        number: of the face in a collection.
        axes: the coordinates of a variable font's instance, in the order of its axes; empty for others.
    """

    path: Path
    family: str
    style: str
    licence: str
    number: int = 0
    axes: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"


class FoundFonts(NamedTuple):
    """Fonts to draw with, and how many faces were left out for which reason."""

    fonts: list[FontFace]
    left_out: dict[str, int]


class _Candidate(NamedTuple):
    face: FontFace
    weight: int
    narrowness: int  # steps from the normal width


def find_fonts(
    folders: Sequence[str | Path] = (), packages: bool = True, system: bool = True, free_only: bool = True
) -> FoundFonts:
    """The fonts to draw text with, sorted by family and style.

    A family that several places have is taken from the first of: `folders`, packages, the system's folders, matplotlib.

    Args:
        folders: searched with all that is in them.
        packages: take the installed `fontpkg-*` packages.
        system: take the fonts installed on this machine. Leave them out where the same fonts are to be found elsewhere.
        free_only: take only fonts whose licence is one of `FREE_LICENCES`.

    Raises:
        FileNotFoundError: a folder is not there.
    """
    left_out: Counter[str] = Counter()
    families: dict[str, list[_Candidate]] = {}
    for place in _places(folders, packages, system):
        of_place: dict[str, list[_Candidate]] = defaultdict(list)
        for path in place:
            for candidate in _read(path, left_out):
                if free_only and candidate.face.licence not in FREE_LICENCES:
                    left_out[f"licence: {candidate.face.licence}"] += 1
                else:
                    of_place[candidate.face.family.casefold()].append(candidate)
        for family, candidates in of_place.items():
            if family in families:
                left_out["family found before"] += len(candidates)
            else:
                families[family] = candidates
    fonts = []
    for _, candidates in sorted(families.items()):
        chosen = _choose(candidates)
        left_out["another of its style in the family"] += len(candidates) - len(chosen)
        fonts.extend(chosen)
    return FoundFonts(fonts, {reason: count for reason, count in sorted(left_out.items()) if count})


def _places(folders: Sequence[str | Path], packages: bool, system: bool) -> Iterator[list[Path]]:
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is no folder with fonts.")
        yield _files_in(Path(folder))
    if packages:
        modules = sorted(entry.module for entry in entry_points(group="fontpkg.family"))
        yield [path for module in modules for path in _files_in(_folder_of(module))]
    if system:
        yield [path for folder in _system_folders() for path in _files_in(folder)]
    yield [path for path in _files_in(_folder_of("matplotlib")) if path.name.startswith("DejaVu")]


def _files_in(folder: Path | None) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES) if folder else []


def _folder_of(module: str) -> Path | None:
    """Where a package is installed; it is not imported."""
    spec = find_spec(module)
    return Path(spec.origin).parent if spec and spec.origin else None


def _system_folders() -> list[Path]:
    home = Path.home()
    if sys.platform == "darwin":
        folders = [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    elif sys.platform == "win32":
        folders = [
            Path(os.environ.get("LOCALAPPDATA", home)) / "Microsoft/Windows/Fonts",
            Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
        ]
    else:
        folders = [
            home / ".local/share/fonts",
            home / ".fonts",
            Path("/usr/local/share/fonts"),
            Path("/usr/share/fonts"),
        ]
    return [folder for folder in folders if folder.is_dir()]


def _read(path: Path, left_out: Counter[str]) -> Iterator[_Candidate]:
    """The faces of a file that can draw Latin text; a variable font gives its instances."""
    try:
        collection = path.suffix.lower() in (".ttc", ".otc")
        faces = TTCollection(path, lazy=True).fonts if collection else [TTFont(path, lazy=True)]
        for number, font in enumerate(faces):
            yield from _candidates(path, font, number, left_out)
    except (TTLibError, OSError, KeyError, AssertionError, AttributeError, UnicodeError):  # what damaged fonts raise
        left_out["unreadable"] += 1


def _candidates(path: Path, font: TTFont, number: int, left_out: Counter[str]) -> Iterator[_Candidate]:
    names = font["name"]
    family = (names.getBestFamilyName() or path.stem).strip()
    subfamily = names.getBestSubFamilyName() or ""
    characters = font.getBestCmap() or {}
    if NOT_TEXT.search(family):
        left_out["no text font by its name"] += 1
        return
    if any(ord(character) not in characters for character in LETTERS_AND_DIGITS):
        left_out["lacks Latin letters or digits"] += 1
        return
    licence = licence_of(path, "\n".join(filter(None, (names.getDebugName(13), names.getDebugName(14)))))
    table = font.get("OS/2")
    italic = bool(font["head"].macStyle & 2) or re.search(r"italic|oblique", subfamily, re.I) is not None
    weight = table.usWeightClass if table else 700 if font["head"].macStyle & 1 else 400
    narrowness = abs(table.usWidthClass - 5) if table else 0
    if "fvar" not in font:
        style = "Italic" if italic else "Bold" if weight >= 600 else "Regular"
        yield _Candidate(FontFace(path, family, style, licence, number), weight, narrowness)
        return
    axes = font["fvar"].axes
    for style, wanted in (("Italic", 400),) if italic else (("Regular", 400), ("Bold", 700)):
        wished = {"wght": wanted, "wdth": 100}
        place = tuple(
            float(min(max(wished.get(axis.axisTag, axis.defaultValue), axis.minValue), axis.maxValue)) for axis in axes
        )
        weights = [value for axis, value in zip(axes, place, strict=True) if axis.axisTag == "wght"]
        reached = int(weights[0]) if weights else weight
        if (reached >= 600) == (style == "Bold") or style == "Italic":
            yield _Candidate(FontFace(path, family, style, licence, number, place), reached, narrowness)


def _choose(candidates: Sequence[_Candidate]) -> list[FontFace]:
    """The face of each style that is nearest to what the style's name says; on equal terms the first file."""
    chosen = []
    for style, weight in (("Regular", 400), ("Bold", 700), ("Italic", 400)):
        of_style = [candidate for candidate in candidates if candidate.face.style == style]
        if of_style:
            chosen.append(min(of_style, key=lambda one: (one.narrowness, abs(one.weight - weight))).face)
    return chosen


def licence_of(path: Path, statement: str) -> str:
    """The licence of a font file: what its name table states; if that is nothing known, what lies beside the font
    (a package's metadata or a licence file, in its folder or the one above), then what Debian's package says.

    Args:
        path: the file.
        statement: its name table's licence and the licence's address (names 13 and 14).
    """
    licence = classify_licence(statement)
    if licence == UNKNOWN:
        licence = _licence_in(path.parent)
    if licence == UNKNOWN:
        licence = _licence_in(path.parent.parent)
    if licence == UNKNOWN and (package := _debian_packages().get(str(path))):
        copyright = Path("/usr/share/doc", package, "copyright")
        licence = classify_copyright(copyright.read_text("utf-8", "replace")) if copyright.is_file() else UNKNOWN
    return licence


def classify_licence(statement: str) -> str:
    """One of `FREE_LICENCES`, "CC-BY", "GPL", "restricted" or "unknown", from a licence's text, name or address.

    Of several it is the strictest, whether they are said to hold together or to be chosen from.
    """
    statement = statement.strip()
    for licence, pattern in LICENCE_PATTERNS:
        if re.search(pattern, statement, re.I | re.S):
            return licence
    return UNKNOWN


def classify_copyright(text: str) -> str:
    """The licence in a Debian copyright file in the machine-readable format, of all that is not the packaging itself.

    Where several licences cover several files, nobody says which is the font's: that is "unknown" unless all are free.
    """
    licences = []
    for stanza in re.split(r"\n\s*\n", text):
        files = re.search(r"^Files:(.*(?:\n[ \t].*)*)", stanza, re.M)
        licence = re.search(r"^License:[ \t]*(\S.*)", stanza, re.M)
        if files and licence and not all(name.startswith("debian/") for name in files[1].split()):
            licences.append(classify_licence(licence[1]))
    if licences and all(licence in FREE_LICENCES for licence in licences):
        return min(licences, key=FREE_LICENCES.index)  # the strictest
    return licences[0] if len(set(licences)) == 1 else UNKNOWN


@cache
def _licence_in(folder: Path) -> str:
    metadata = folder / "metadata.json"
    if metadata.is_file():
        try:
            content = json.loads(metadata.read_text("utf-8"))
        except ValueError:
            return UNKNOWN
        return classify_licence(str(content.get("license", ""))) if isinstance(content, dict) else UNKNOWN
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name == "copyright":
            return classify_copyright(path.read_text("utf-8", "replace"))
        if path.is_file() and re.match(r"(ofl|licen[sc]e|copying)\b", path.name, re.I):
            return classify_licence(path.read_text("utf-8", "replace"))
    return UNKNOWN


@cache
def _debian_packages() -> dict[str, str]:
    """The package that each installed font file belongs to."""
    owners = {}
    for listing in sorted(Path("/var/lib/dpkg/info").glob("*.list")):
        package = listing.stem.partition(":")[0]
        if package.startswith(("fonts-", "ttf-", "otf-")):
            owners.update(dict.fromkeys(_font_lines(listing.read_text("utf-8").splitlines()), package))
    return owners


def package_of(path: Path) -> str:
    """The package that a font file came in, with its version: "PyPI matplotlib 3.10.7", "Debian fonts-agave 37-1"; or ""."""
    if name := _debian_packages().get(str(path)):
        return f"Debian {name} {_debian_versions()[name]}"
    site = next((folder for folder in path.parents if folder.name in ("site-packages", "dist-packages")), None)
    if site is None:
        return ""
    module = path.relative_to(site).parts[0]
    described = next(site.glob(f"{glob.escape(module)}-*.dist-info"), None)
    if described is None:
        return ""
    package = Distribution.at(described)
    return f"PyPI {package.metadata['Name']} {package.version}"


@cache
def _debian_versions() -> dict[str, str]:
    status = Path("/var/lib/dpkg/status").read_text("utf-8")
    return dict(re.findall(r"^Package: (\S+)\n(?:.+\n)*?Version: (\S+)", status, re.M))


def _font_lines(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.lower().endswith(SUFFIXES))
