# SPDX-License-Identifier: Apache-2.0
"""Sources of labeled images: one module per format, and `open_source`, which selects the format of a place.

Other packages can add formats: an entry point of the group `svtrv2_hf.sources` that refers to a [`Format`].
"""

import glob
import logging
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from ..data.sample import Source
from ..paths import user_path
from ..redaction import redact
from ..reporting import first
from . import file_list, hub, lmdb, metadata, parquet, synthetic, webdataset
from .format import COMMON, Format, Option, Place
from .spec import Spec, split_spec
from .splits import SplitChoice


logger = logging.getLogger(__name__)

FORMATS = tuple(module.FORMAT for module in (file_list, metadata, lmdb, parquet, webdataset, hub, synthetic))
ENTRY_POINTS = "svtrv2_hf.sources"


@cache
def formats() -> tuple[Format, ...]:
    """Return the formats of this package and of installed packages, which cannot replace one another."""
    known = {format.name: format for format in FORMATS}
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            format = entry.load()
            if not isinstance(format, Format) or format.name in known:
                raise TypeError(f"{format!r} is not a Format with a new name")
            known[format.name] = format
        except Exception as error:  # of another package, which may raise anything
            logger.warning("The source format %s cannot be loaded: %s.", entry.value, error)
    return tuple(known.values())


def open_source(spec: str | Path, split: str = "train") -> Source:
    """Open a source of labeled images.

    Args:
        spec: `PLACE` or `PLACE?key=value&key=value`, with percent-encoded values. The tables of [`describe`] list the
            places and options of all formats.
        split: split to read if `spec` does not specify one.

    Returns:
        the source. Each process that reads it opens its own files and connections.

    Raises:
        FileNotFoundError: the place contains no supported data, or a listed file is missing.
        ValueError: an option is unknown or invalid; the place contains several formats; a file is malformed, truncated or
            inconsistent; or the source or the split is empty.
        TypeError: `spec` is neither a string nor a path.
    """
    if not isinstance(spec, (str, Path)):
        raise TypeError(
            f"A source is the path or specification of data, not an object of type {type(spec).__name__}: datasets in memory can be "
            "trained on with Trainer and SVTRv2DataCollator."
        )
    spec = str(spec)
    place, options = split_spec(spec)
    format, files = find_format(place)
    accepted = [option.key for option in (*COMMON, *format.options)]
    if unknown := [key for key in options if key not in accepted]:
        raise ValueError(
            f"{redact(spec)!r}: unknown option {', '.join(unknown)} for {format.name}; its options are {', '.join(accepted)}."
        )
    name = options.get("name") or default_name(redact(place))
    parsed = Spec(place, name, options, SplitChoice(options.get("split", split), "split" in options))
    _ = parsed.weight, parsed.num_samples  # raise an error before data are opened
    return format.open(parsed, files)


def find_format(place: str) -> tuple[Format, list[str]]:
    """Return the format of a place and its files there, or the rest of the place after the prefix of the format.

    Raises:
        FileNotFoundError: the place contains no supported data.
        ValueError: it contains several formats.
    """
    for format in formats():
        if format.prefix and place.startswith(format.prefix):
            return format, [place.removeprefix(format.prefix)]
    where = Place(place)
    matches = [(format, files) for format in formats() if (files := format.match(where))]
    if not matches and where.is_folder:
        matches = [(format, files) for format in formats() if (files := format.search(where))][:1]
    matched = {file for _, files in matches for file in files}
    if not matches or not (where.is_folder or matched.issuperset(where.files)):
        if not where.is_remote and not where.files and not where.is_folder and not glob.has_magic(place):
            raise FileNotFoundError(f"No such file or folder: {redact(place)!r}.")
        forms = "\n- ".join(["", *_places()])
        raise FileNotFoundError(
            f"No data in a supported format at {redact(place)!r}.{_hint(where)} Supported formats:{forms}"
        )
    [(format, files), *others] = matches
    if others or (format.single_file and len(files) > 1):
        paths = [(format.single_file, Path(file)) for format, files in matches for file in files]
        names = ", ".join(sorted({path.name if single else f"*{path.suffix}" for single, path in paths}))
        raise ValueError(f"{redact(place)} contains several datasets. Specify one of them: {names}.")
    return format, files


def _hint(place: Place) -> str:
    """Return a sentence about the contents of a folder without data."""
    if not place.is_folder:
        return ""
    folder = place.path
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return (
            " The folder was written by save_to_disk of datasets: convert it to parquet with datasets.load_from_disk(FOLDER) and "
            "to_parquet(FILE) of each split."
        )
    below = [path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if path.is_dir()]
    inside = [path for path in below if any(format.match(Place(str(path))) for format in formats())]
    if not inside:
        return ""
    listed = first([str(path.relative_to(folder)) for path in inside], 5)
    return f" Subfolders with data: {listed}. If the folder is a clone of a Hub dataset, use hub:{folder}."


def default_name(place: str) -> str:
    """Return the name of a source without the option `name`: that of its folder or file."""
    for format in formats():
        if format.prefix and place.startswith(format.prefix):
            place = place.removeprefix(format.prefix)
            if format.default_name:
                return format.default_name
    path = user_path(place)
    if glob.has_magic(path.name):
        path = path.parent
    return path.resolve().name if path.is_dir() else path.stem


def summary() -> str:
    """Return a sentence about the places of all formats, for help texts and messages."""
    return f"Supported formats: {'; '.join(_places())}."


def _places() -> list[str]:
    """Return the name and the places of each format as plain text."""
    return [f"{format.name}: {format.help}".replace("`", "") for format in formats()]


def describe(known: tuple[Format, ...] | None = None) -> str:
    """Return Markdown tables of the formats, by default all, and their options."""
    known = known or formats()
    users: dict[Option, list[str]] = {option: ["all"] for option in COMMON}
    for format in known:
        for option in format.options:
            users.setdefault(option, []).append(format.name)
    lines = ["| format | place |", "|---|---|", *(f"| {format.name} | {format.help} |" for format in known)]
    lines += ["", "| option | formats | meaning |", "|---|---|---|"]
    lines += [f"| `{option.key}` | {', '.join(names)} | {option.help} |" for option, names in users.items()]
    return "\n".join(lines)


__all__ = ["FORMATS", "Format", "Option", "Place", "Spec", "default_name", "describe", "find_format", "formats"]
__all__ += ["open_source", "split_spec", "summary"]
