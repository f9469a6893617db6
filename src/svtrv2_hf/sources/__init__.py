# SPDX-License-Identifier: Apache-2.0
"""Where labelled images come from: lists of files, LMDB, and whatever `datasets` can stream."""

import math
import os
import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote

from ..data.sample import Source
from ..paths import user_path
from ..redaction import redact
from .splits import ALL, SplitChoice, files_of_split


class Kind(StrEnum):
    """What lies at a place."""

    LIST = "a list of files"
    METADATA = "an image folder with metadata"
    LMDB = "LMDB"
    PARQUET = "parquet"
    TAR = "webdataset"
    HUB = "a dataset for load_dataset"
    SYNTHETIC = "synthetic text"


_FORMS = (
    "a folder with a labels.tsv (file TAB text), or such a list itself, .tsv or .txt; "
    "an image folder with a metadata.csv or metadata.jsonl, or that file; "
    "an LMDB folder (data.mdb), or a folder with such folders below it; "
    "a .parquet or a .tar (webdataset) file, a pattern or a folder of them; "
    "hub:NAME, a dataset of the Hub, or a folder that datasets.load_dataset understands; "
    "synthetic: or synthetic:ATLAS, text that is drawn for training"
)
_LISTS = ("labels.tsv", "metadata.csv", "metadata.jsonl")
_ENDINGS = {
    ".tsv": Kind.LIST,
    ".txt": Kind.LIST,
    ".csv": Kind.METADATA,
    ".jsonl": Kind.METADATA,
    ".mdb": Kind.LMDB,
    ".parquet": Kind.PARQUET,
    ".tar": Kind.TAR,
}
_KEYS = {
    Kind.LIST: ("split",),
    Kind.METADATA: ("image", "text", "split"),
    Kind.LMDB: ("split",),
    Kind.PARQUET: ("image", "text", "samples", "split"),
    Kind.TAR: ("image", "text", "samples", "split"),
    Kind.HUB: ("image", "text", "samples", "split", "config"),
    Kind.SYNTHETIC: ("samples", "difficulty", "lines", "charset", "words", "allow_unknown_license"),
}


def open_source(spec: str, split: str = "train") -> Source:
    """Opens a source of labelled images.

    Args:
        spec: `PLACE` or `PLACE?key=value&key=value`; values may be percent-encoded. A place is

            - a folder with a `labels.tsv` (UTF-8, a line `file TAB text` for each image, files relative to the folder
              or to `images/` in it), or another such list, `.tsv` or `.txt`, its files relative to its folder;
            - an image folder with a `metadata.csv`, `.jsonl` or `.parquet` (columns `file_name` and `text`, or other usual
              names such as `filename` and `words`) or a `labels.csv`, or that file;
            - a folder with an LMDB (`data.mdb`; keys `num-samples`, and from 1 `image-%09d` and `label-%09d`), or a
              folder below which there are such: all together are one source;
            - a `.parquet` file or a `.tar` file (webdataset, also `.tar.gz`), a pattern, or a folder of them; remote ones
              (`hf://`, `https://`) by their full address;
            - `hub:NAME`: what `datasets.load_dataset` streams, a dataset of the Hub or a folder;
            - `synthetic:`, text drawn in the fonts of this machine, or `synthetic:ATLAS` in those of an atlas's file.

            Keys are `weight` (share of the draws in a mixture) and `name` (for logs); `image` and `text`, the columns,
            where there are columns; `samples`, how many there are, for parquet, webdataset and `hub:`, which do not
            always tell, and for `synthetic:`; `config` for `hub:`; `split` for `hub:`, and for LMDB, parquet and webdataset, where
            names of folders or files part several (`train/0.tar`, `test-00000-of-00001.parquet`; `all` is all of them), and for
            lists and metadata, where a column `split` or the folders of the files do. For `synthetic:` there are
            `difficulty` (1), `lines` (1, or 0 for words alone), `charset` (a file, one character a line, of what texts are
            made of; printable ASCII if not given), `words` (a file, one a line, of more words to draw) and
            `allow_unknown_license` (1 to use fonts that are not in the curated list of licenses).
        split: the split to read if the spec names none, of a dataset of the Hub or of files or rows of several splits.

    Returns:
        the source. Whatever it needs of files and connections is opened anew in each process that reads it.

    Raises:
        FileNotFoundError: nothing that is understood lies there, or a file that a list names is missing.
        ValueError: a key or its value is wrong; the place holds several kinds of data; a file is malformed, cut off or
            inconsistent, which the message names; there is no sample; or there is no such split.
    """
    place, options = split_spec(spec)
    spec = redact(spec)  # from here on for messages alone
    kind, files = find_format(place)
    accepted = ("weight", "name", *_KEYS[kind])
    if wrong := [key for key in options if key not in accepted]:
        raise ValueError(f"{spec!r}: {', '.join(wrong)} cannot be given; for {kind} there are {', '.join(accepted)}.")
    weight = _positive(spec, "weight", options.get("weight"))
    samples = _positive(spec, "samples", options.get("samples"))
    if samples is not None and samples != int(samples):
        raise ValueError(f"{spec!r}: samples must be a whole number.")
    name = options.get("name") or short_name(redact(place))
    choice = SplitChoice(options.get("split", split), "split" in options)
    if kind in (Kind.LMDB, Kind.PARQUET, Kind.TAR):
        files = files_of_split(redact(place), files, choice)
    image, text = options.get("image"), options.get("text")

    # Imported here, since they import this module, and so that reading a list needs no package of another kind.
    if kind in (Kind.LIST, Kind.METADATA):
        from .file_source import open_list, open_metadata

        if kind == Kind.LIST:
            return open_list(Path(files[0]), name, weight, choice)
        return open_metadata(Path(files[0]), name, weight, image, text, choice)
    if kind == Kind.LMDB:
        from .lmdb_source import LmdbSource

        return LmdbSource([Path(file).parent for file in files], name, weight)
    if kind == Kind.SYNTHETIC:
        from ..charsets import ENGLISH_94, read_charset
        from ..synthetic.source import SyntheticSource

        return SyntheticSource(
            atlas=files[0] if files else None,
            charset="".join(read_charset(options["charset"])) if "charset" in options else ENGLISH_94 + " ",
            difficulty=_positive(spec, "difficulty", options.get("difficulty")) or 1.0,
            num_samples=int(samples or 1_000_000),
            lines=_switch(spec, "lines", options.get("lines", "1")),
            words=options.get("words"),
            name=name,
            weight=weight,
            allow_unknown_license=_switch(spec, "allow_unknown_license", options.get("allow_unknown_license", "0")),
        )
    from .shards import check_numbers, check_split_column
    from .streamed_source import StreamedSource, open_stream

    if kind in (Kind.PARQUET, Kind.TAR):
        check_numbers(files, "*" if user_path(place.removeprefix("file://")).is_dir() else Path(place).name)

    path = {Kind.PARQUET: "parquet", Kind.TAR: "webdataset"}.get(kind, files[0])
    data_files = None if kind == Kind.HUB else files
    if kind != Kind.HUB:  # `datasets` calls any list of files so
        splits = ["train"]
    elif "split" in options:
        splits = [options["split"]]
    else:  # an image folder need not have several splits
        splits = [split] if place.startswith("hub:") else [split, "train"]
    stream, known, open_shards = open_stream(path, data_files, options.get("config"), splits, image, text)
    if kind == Kind.PARQUET and choice.name != ALL:
        check_split_column(files)
    if samples is not None and known not in (None, samples):
        raise ValueError(f"{spec!r}: samples={int(samples)} contradicts the data, which have {known:,} samples.")
    known = known if samples is None else int(samples)
    source = StreamedSource(stream, redact(place), name, weight, known, image, text, open_shards)
    source.local = kind != Kind.HUB and not any("://" in file for file in files)
    return source


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """The place and the options of a spec, as [`open_source`] takes it.

    Raises:
        ValueError: an option is given twice, or has no value.
    """
    place, _, query = spec.rpartition("?")
    if not place or not re.fullmatch(r"\w+=[^&]*(&\w+=[^&]*)*", query):
        return spec, {}
    options: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key in options or not value:
            raise ValueError(f"{redact(spec)!r}: {key} is given {'twice' if key in options else 'no value'}.")
        options[key] = unquote(value)
    return place, options


def _positive(spec: str, key: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ValueError(f"{spec!r}: {key} must be a number above 0, not {value!r}.")
    return number


def _switch(spec: str, key: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"{spec!r}: {key} must be 0 or 1, not {value!r}.")
    return value == "1"


def short_name(place: str) -> str:
    """What a source is called if its spec has no name for it: as its folder or file."""
    if place.startswith("synthetic:"):
        return "synthetic"
    path = user_path(place.removeprefix("hub:"))
    return path.resolve().name if path.is_dir() else path.stem


def find_format(place: str) -> tuple[Kind, list[str]]:
    """What lies at a place, and the files that hold it.

    Raises:
        FileNotFoundError: nothing that is understood lies there.
        ValueError: the place holds several kinds of data.
    """
    if place.startswith("hub:"):
        name = place.removeprefix("hub:")
        if not name.strip("/ "):
            raise ValueError(f"{place!r} names no dataset: write hub:OWNER/NAME or hub:FOLDER.")
        return Kind.HUB, [name]
    if place.startswith("synthetic:"):
        return Kind.SYNTHETIC, [place.removeprefix("synthetic:")] if place != "synthetic:" else []
    place = place.removeprefix("file://")
    remote = "://" in place
    found = _remote_files(place) if remote else [str(file) for file in _files_at(user_path(place))]
    files = [Path(file) for file in found]
    kinds = {_kind_of(file) for file in files}
    kind = next(iter(kinds), None)
    if kind is None or None in kinds or (remote and kind not in (Kind.PARQUET, Kind.TAR)):
        hint = "" if remote else _hint(user_path(place))
        raise FileNotFoundError(f"There is no data that is understood at {redact(place)!r}.{hint} It may be {_FORMS}.")
    if [file.name.lower() for file in files] == ["metadata.parquet"] and not remote:
        return Kind.METADATA, [str(files[0])]
    if len(kinds) > 1 or (len(files) > 1 and kind in (Kind.LIST, Kind.METADATA)):
        names = {f"*{file.suffix}" if _kind_of(file) in (Kind.PARQUET, Kind.TAR) else file.name for file in files}
        raise ValueError(
            f"{redact(place)} holds more than one kind of data. Name one of them: {', '.join(sorted(names))}."
        )
    return kind, found


def _remote_files(place: str) -> list[str]:
    """The files that a pattern matches, so that their splits can be told apart; or the address itself."""
    if "*" not in place:
        return [place]
    import fsspec

    system, pattern = fsspec.core.url_to_fs(place)
    return [system.unstrip_protocol(file) for file in sorted(system.glob(pattern))]


def _hint(folder: Path) -> str:
    """What a folder without data of its own has below it, in a sentence."""
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return (
            " It was saved by save_to_disk of datasets: write it as parquet (datasets.load_from_disk(FOLDER), and to_parquet(FILE) of "
            "each split)."
        )
    inside = sorted({file.parent.name for name in _LISTS for file in folder.glob(f"*/{name}")})
    if inside:
        return f" Folders in it hold some: {', '.join(inside[:5])}."
    if any(file.suffix in (".parquet", ".tar") for pattern in ("*/*", "*/*/*") for file in folder.glob(pattern)):
        return f" If it is a dataset as the Hub stores it, hub:{folder} reads it."
    return ""


def _kind_of(file: Path) -> Kind | None:
    compressed = re.search(r"\.(tar\.(gz|bz2|xz)|tgz)$", file.name, flags=re.IGNORECASE)
    return Kind.TAR if compressed else _ENDINGS.get(file.suffix.lower())


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        with os.scandir(path) as entries:  # once, since there may be 400,000 images
            names = sorted(entry.name for entry in entries)
        listed = [name for name in names if name.lower() in _LISTS]
        shards = [name for name in names if _kind_of(Path(name)) in (Kind.PARQUET, Kind.TAR) and name[0] != "."]
        others = [name for name in names if name.lower() == "labels.csv"]
        found = [path / name for name in (listed + shards or others)]
        return found if found and not (path / "data.mdb").is_file() else found + _databases_below(path)
    if path.is_file():
        return [path]
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _databases_below(folder: Path) -> list[Path]:
    """Every `data.mdb` in or below a folder, also behind links, but each once."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    seen: set[Path] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        if (real := Path(parent).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        if "data.mdb" in files:
            found.append(Path(parent, "data.mdb"))
    return found
