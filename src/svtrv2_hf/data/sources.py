# SPDX-License-Identifier: Apache-2.0
"""Where labelled images come from: lists of files, LMDB, and whatever `datasets` can stream."""

import itertools
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from ..paths import user_path
from ..redaction import redact
from .splits import ALL, SplitChoice, files_of_split


class Sample(NamedTuple):
    """An image, still encoded, and its text."""

    image: bytes
    text: str
    name: str
    """What to call it in messages: a path, or the place in its file."""


class Source(ABC):
    """A set of samples that can be read in parts.

    Attributes:
        name: short, for logs and tables.
        weight: share of the draws in a mixture, in proportion to those of the other sources; `None` for one pass an epoch.
        num_samples: how many there are; `None` where only a whole pass would tell.
        local: the samples lie on this machine, so that all labels can be looked at before training.
        fingerprint: tells these samples from as many others of the same name, in a form that JSON can hold; `None` where only a
            whole pass would tell.
    """

    name: str
    weight: float | None
    num_samples: int | None
    local: bool = False
    fingerprint: Any = None

    @abstractmethod
    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """One pass over a part of the samples; together, the `parts` parts of an epoch hold each sample exactly once.

        The order is a function of `part`, `parts`, `seed` and `epoch`; without a seed it is that of the files. With a seed,
        lists of files and LMDBs are shuffled as a whole; parquet, tars and datasets of the Hub are read from several shards at
        a time, in a random order of the shards, through a shuffle buffer.
        """

    @abstractmethod
    def texts(self) -> Iterator[str]:
        """The labels alone, in the order of the files, as cheaply as the format allows."""


class IndexedSource(Source):
    """A source whose samples can be had by number, so that every order is possible."""

    num_samples: int
    local = True

    @abstractmethod
    def fetch(self, indices: Sequence[int]) -> list[Sample]:
        """The samples of these numbers, from 0, in this order."""

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """One pass over a part, shuffled as a whole where there is a seed."""
        if seed is None:
            order = np.arange(part, self.num_samples, parts)
        else:
            # A copy, since a view would keep the order of all parts in the memory of each.
            order = np.random.default_rng([seed, epoch]).permutation(self.num_samples)[part::parts].copy()
        for start in range(0, len(order), 64):
            yield from self.fetch(order[start : start + 64].tolist())


class Kind(StrEnum):
    """What lies at a place."""

    LIST = "a list of files"
    METADATA = "an image folder with metadata"
    LMDB = "LMDB"
    PARQUET = "parquet"
    TAR = "webdataset"
    HUB = "a dataset for load_dataset"
    DRAWN = "drawn text"


_FORMS = (
    "a folder with a labels.tsv (file TAB text), or such a list itself, .tsv or .txt; "
    "an image folder with a metadata.csv or metadata.jsonl, or that file; "
    "an LMDB folder (data.mdb), or a folder with such folders below it; "
    "a .parquet or a .tar (webdataset) file, a pattern or a folder of them; "
    "hub:NAME, a dataset of the Hub, or a folder that datasets.load_dataset understands; "
    "drawn: or drawn:ATLAS, text that is drawn for training"
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
    Kind.DRAWN: ("samples", "difficulty", "lines", "charset", "words", "allow_unknown_license"),
}
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
TEXT_COLUMNS = ("text", "label", "txt", "transcription", "transcript", "word")
# Names that are looked for, in any case, where there is none of those.
OTHER_IMAGE_COLUMNS = ("images", "image_bytes", "img_bytes", "picture")
OTHER_TEXT_COLUMNS = (
    "words",
    "labels",
    "texts",
    "ground_truth",
    "groundtruth",
    "gt",
    "sentence",
    "caption",
    "identity",
)


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
            - `drawn:`, text drawn in the fonts of this machine, or `drawn:ATLAS` in those of an atlas's file.

            Keys are `weight` (share of the draws in a mixture) and `name` (for logs); `image` and `text`, the columns,
            where there are columns; `samples`, how many there are, for parquet, webdataset and `hub:`, which do not
            always tell, and for `drawn:`; `config` for `hub:`; `split` for `hub:`, and for LMDB, parquet and webdataset, where
            names of folders or files part several (`train/0.tar`, `test-00000-of-00001.parquet`; `all` is all of them), and for
            lists and metadata, where a column `split` or the folders of the files do. For `drawn:` there are
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
    kind, files = recognise(place)
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
    if kind == Kind.DRAWN:
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
    if place.startswith("drawn:"):
        return "drawn"
    path = user_path(place.removeprefix("hub:"))
    return path.resolve().name if path.is_dir() else path.stem


def recognise(place: str) -> tuple[Kind, list[str]]:
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
    if place.startswith("drawn:"):
        return Kind.DRAWN, [place.removeprefix("drawn:")] if place != "drawn:" else []
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


def pick_column(
    place: str, columns: Sequence[str], key: str, chosen: str | None, usual: Sequence[str], others: Sequence[str] = ()
) -> str:
    """The column that was chosen, or the only one with a usual name.

    Args:
        place: for the message.
        columns: all of them.
        key: what the column holds, and how to choose it in a spec: `image` or `text`.
        chosen: the name that was given, if any.
        usual: names to look for otherwise.
        others: names to look for where there is none of these; of all of them, upper and lower case are the same then.

    Raises:
        ValueError: there is no such column, or several could be meant.
    """
    found = [column for column in columns if column in ([chosen] if chosen else usual)]
    if not found and not chosen:
        found = [column for column in columns if column.strip().lower() in (*usual, *others)]
    if len(found) != 1:
        which = f"is not {chosen!r}" if chosen else "may be any of several" if found else "has none of the usual names"
        raise ValueError(
            f"{place}: the column of the {key} {which}. The columns are {', '.join(columns)}; "
            f"name one by ?{key}=COLUMN after the place."
        )
    return found[0]


def mix(sources: Sequence[Source], part: int, parts: int, seed: int) -> Iterator[tuple[int, int, Sample]]:
    """An endless stream of one part of several sources.

    Without weights there are true epochs: in each, every sample of every source comes exactly once, and the sources are mixed
    at random over the whole epoch; the order within a source is that of its `read`. With weights each draw picks a source with a chance in proportion to its weight, and each source goes
    through epochs of its own, every sample exactly once in each.

    Args:
        sources: all with a weight, or all without.
        part: which part to read, from 0.
        parts: how many there are: processes x workers.
        seed: of the order; what comes follows from it alone.

    Returns:
        the number of the source, its epoch, and the sample, for ever.

    Raises:
        ValueError: only some have a weight; a source does not tell how long it is, which true epochs of several
            sources need; or it has no sample for this part.
    """
    if not sources:
        raise ValueError("There is no source to read.")
    if short := [source for source in sources if source.num_samples is not None and source.num_samples < parts]:
        raise _nothing_to_read(short[0], part, parts)
    weights = [source.weight for source in sources if source.weight is not None]
    if len(sources) == 1:
        return _by_weight(sources, [1.0], part, parts, seed)
    if len(weights) == len(sources):
        return _by_weight(sources, weights, part, parts, seed)
    if weights:
        without = ", ".join(source.name for source in sources if source.weight is None)
        raise ValueError(f"Give all sources a weight or none; these have none: {without}.")
    lengths = [source.num_samples for source in sources if source.num_samples is not None]
    if len(lengths) < len(sources):
        unknown = ", ".join(source.name for source in sources if source.num_samples is None)
        raise ValueError(
            f"How many samples there are is not known of {unknown}. To mix several sources, give each a weight "
            f"(?weight=1), or these their number (?samples=N)."
        )
    return _by_epoch(sources, [len(range(part, length, parts)) for length in lengths], part, parts, seed)


def _nothing_to_read(source: Source, part: int, parts: int) -> ValueError:
    return ValueError(
        f"The source {source.name} has nothing for part {part} of {parts}: it has fewer samples (or shards) than there "
        f"are processes x workers. Lower the number of workers."
    )


def _by_weight(
    sources: Sequence[Source], weights: Sequence[float], part: int, parts: int, seed: int
) -> Iterator[tuple[int, int, Sample]]:
    # Seeds differ in their last numbers from those of the sources, [seed, epoch], which are as if followed by zeros.
    rng = np.random.default_rng([seed, part, 1])
    chances = np.array(weights) / sum(weights)
    passes = [_passes(source, part, parts, seed) for source in sources]
    while True:
        for number in rng.choice(len(sources), size=1024, p=chances).tolist():
            epoch, sample = next(passes[number])
            yield number, epoch, sample


def _passes(source: Source, part: int, parts: int, seed: int) -> Iterator[tuple[int, Sample]]:
    for epoch in itertools.count():
        empty = True
        for sample in source.read(part, parts, seed, epoch):
            empty = False
            yield epoch, sample
        if empty:
            raise _nothing_to_read(source, part, parts)


def _by_epoch(
    sources: Sequence[Source], lengths: Sequence[int], part: int, parts: int, seed: int
) -> Iterator[tuple[int, int, Sample]]:
    for epoch in itertools.count():
        passes = [source.read(part, parts, seed, epoch) for source in sources]
        rng = np.random.default_rng([seed, part, epoch + 1, 2])
        plan = rng.permutation(np.repeat(np.arange(len(sources), dtype=np.int16), lengths))
        counts = [0] * len(sources)
        for number in map(int, plan):
            if (sample := next(passes[number], None)) is not None:
                counts[number] += 1
                yield number, epoch, sample
            elif not counts[number]:
                raise _nothing_to_read(sources[number], part, parts)
        # What a source holds beyond the number that it gave.
        for number, rest in enumerate(passes):
            for sample in rest:
                counts[number] += 1
                yield number, epoch, sample
        lengths = counts
