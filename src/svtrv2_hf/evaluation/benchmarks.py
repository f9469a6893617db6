# SPDX-License-Identifier: Apache-2.0
"""Text recognition benchmarks: their properties, locations, averages, and results published by the authors of SVTRv2.

Benchmark names are unambiguous: names such as `curve`, `general`, `weak` or `web` get a prefix (`U14M-Curve`, `OST-Weak`,
`BCTR-Web`).
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ..paths import user_path
from ..sources import find_format, split_spec
from .protocols import EvaluationProtocol


@dataclass(frozen=True)
class LengthGroup:
    """A part of a benchmark with labels of certain lengths, which has a separate score.

    Attributes:
        name: name in tables and in published results.
        lengths: numbers of characters of the normalized label.
        samples: number of samples.
    """

    name: str
    lengths: range
    samples: int


@dataclass(frozen=True)
class Benchmark:
    """A public evaluation dataset.

    Attributes:
        name: name in tables and results, and of the dataset's folder.
        group: group of datasets that share a table. Averages are computed for the groups of `AVERAGED`.
        samples: number of labeled images.
        samples_source: where this number is published.
        paper: URL of the paper that introduces the dataset.
        data: URL of the images and labels.
        protocol: how predictions are compared with labels.
        max_ratio: maximum aspect ratio (width / height) of resized images; `None` for the model's default.
        aliases: other folder names. `u14m/curve` is a folder `curve` in a folder `u14m`.
        length_groups: parts with separate results.
        max_label_length: maximum length of the labels that the authors of SVTRv2 evaluate, as counted by
            [`length_as_published`]; `None` for no limit.
    """

    name: str
    group: str
    samples: int
    samples_source: str
    paper: str
    data: str
    protocol: EvaluationProtocol = "alphanumeric"
    max_ratio: int | None = None
    aliases: tuple[str, ...] = ()
    length_groups: tuple[LengthGroup, ...] = ()
    max_label_length: int | None = 25


def _read(name: str) -> list[dict[str, Any]]:
    return json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _benchmark(entry: Mapping[str, Any]) -> Benchmark:
    groups = tuple(
        LengthGroup(group["name"], range(group["shortest"], 1 + (group["longest"] or 10**9)), group["samples"])
        for group in entry.get("length_groups", ())
    )
    return Benchmark(**{**entry, "aliases": tuple(entry.get("aliases", ())), "length_groups": groups})


# In the order of the paper's tables. Folders are those of Topdu/OpenOCR at ae934e5, tools/eval_rec_all_{en,ch,long}.py, and of the
# authors of Union14M. Papers of the common sets as in open-mmlab/mmocr, dataset_zoo. The length groups of LTB are alphanumeric,
# as tools/eval_rec_all_long.py with openrec/metrics/rec_metric_long.py, since configs/rec/svtrv2/
# svtrv2_smtr_gtc_rctc_infer.yml sets `is_filter`; the tables of OpenOCR call the first group "LTB".
BENCHMARKS: dict[str, Benchmark] = {entry["name"]: _benchmark(entry) for entry in _read("benchmarks.json")}

AVERAGED = ("Common", "Union14M-Benchmark", "OST", "Chinese")


_DEPTH = 3  # a dataset's folder is in the root, or up to two levels deeper
_FOLDERS = {
    tuple(place.casefold().split("/")): benchmark.name
    for benchmark in BENCHMARKS.values()
    for place in (benchmark.name, *benchmark.aliases)
}


def benchmark_at(place: str | Path) -> str | None:
    """Return the benchmark whose name or alias a folder has, ignoring case, or `None`; only the path is checked."""
    parts = tuple(part.casefold() for part in Path(place).parts)
    return _FOLDERS.get(parts[-2:]) or _FOLDERS.get(parts[-1:])


def default_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol of a dataset: that of the benchmark which has this name or alias, or else "exact".

    >>> default_protocol("svt"), default_protocol("receipts")
    ('alphanumeric', 'exact')
    """
    benchmark = benchmark_at(name)
    return "exact" if benchmark is None else BENCHMARKS[benchmark].protocol


def test_split_at(source: str) -> str | None:
    """Return the benchmark whose test split a source is, by the names of its folders and its options, or `None`.

    >>> test_split_at("data/IIIT5k/labels.tsv"), test_split_at("data/IIIT5k?split=train")
    ('IIIT5k', None)
    """
    place, options = split_spec(source)
    path = Path(place.removeprefix("hub:"))
    for folder in (Path(options.get("name", "")), path, *path.parents[:2]):
        if name := benchmark_at(folder):
            parts = [*path.parts[len(folder.parts) :], options.get("split", "test")]
            return None if any(re.match("train|val|dev", part, re.IGNORECASE) for part in parts) else name
    return None


def find_sets(root: Path, names: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the datasets in a folder.

    A benchmark's folder has its name or one of its aliases, ignoring case, and is in the root or up to two levels deeper.
    The name of the root counts as a parent folder: `general` is `U14M-General` in a root `u14m`, and a custom dataset elsewhere.
    Every other folder directly in the root that contains data is a custom dataset, unless it contains a benchmark.

    Args:
        root: folder.
        names: names of the benchmarks or custom datasets to find, ignoring case; `None` for all.

    Returns:
        The folder of each dataset by name: benchmarks in the order of `BENCHMARKS`, then custom datasets by name.

    Raises:
        FileNotFoundError: the root is not a folder, or a dataset, or any dataset, was not found.
        ValueError: a dataset was found twice, or a folder contains data in two formats.
    """
    root = user_path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Folder {root} not found: pass the folder that contains the datasets.")
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for name, folder in _benchmarks_below(root, Path(root.resolve().name), _DEPTH):
        places[name].append(folder)
    sets = {name: places[name] for name in BENCHMARKS if name in places}
    for folder in _folders_in(root):
        has_benchmark = any(place.is_relative_to(folder) for several in places.values() for place in several)
        if not has_benchmark and any(file.parent == folder for file in _data_at(folder)):
            sets[folder.name] = [folder]
    if names is not None:
        available = {name.casefold() for name in sets}
        if missing := [name for name in names if name.casefold() not in available]:
            raise FileNotFoundError(
                f"Dataset {', '.join(missing)} not found in {root} (found: {', '.join(sets) or 'none'}). Each dataset is a folder "
                f"with images and labels; benchmark folders are named {', '.join(BENCHMARKS)}.{_hint_if_dataset(root)}"
            )
        selected = {name.casefold() for name in names}
        sets = {name: folders for name, folders in sets.items() if name.casefold() in selected}
    if not sets:
        raise FileNotFoundError(
            f"No dataset found in {root}. Each dataset is a subfolder with data, such as a labels.tsv or an LMDB; benchmarks may be "
            f"up to two levels deeper.{_hint_if_dataset(root)}"
        )
    for name, folders in sets.items():
        if len(folders) > 1:
            raise ValueError(
                f"{name} was found more than once: {', '.join(map(str, folders))}. Select other datasets, or pass a folder "
                "that contains each dataset once."
            )
    return {name: folders[0] for name, folders in sets.items()}


def _hint_if_dataset(root: Path) -> str:
    return (
        f" {root} is itself a dataset; evaluate it as NAME={root}."
        if any(file.parent == root for file in _data_at(root))
        else ""
    )


def _benchmarks_below(folder: Path, path: Path, depth: int) -> Iterator[tuple[str, Path]]:
    for child in _folders_in(folder):
        name = benchmark_at(path / child.name)
        if name is not None and _data_at(child):
            yield name, child
        elif depth > 1:
            yield from _benchmarks_below(child, path / child.name, depth - 1)


def _folders_in(folder: Path) -> list[Path]:
    # scandir distinguishes folders from files without a system call for each of possibly 400,000 images.
    with os.scandir(folder) as entries:
        return sorted(folder / entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _data_at(folder: Path) -> list[Path]:
    """Return the files with labeled images in or below a folder; empty if no known format is found."""
    try:
        return [Path(file) for file in find_format(str(folder))[1]]
    except FileNotFoundError:
        return []


class Average(TypedDict):
    """Averages over the datasets of a group.

    Attributes:
        arithmetic: mean of the datasets' accuracies, 0 to 1, as in papers.
        weighted: accuracy over all samples, 0 to 1.
        sets: names of the averaged datasets.
        complete: whether all datasets of the group are included with all their samples. If not, the averages are not comparable.
    """

    arithmetic: float
    weighted: float
    sets: list[str]
    complete: bool


def averages(sets: Mapping[str, tuple[float, float]]) -> dict[str, Average]:
    """Compute averages over the groups of `AVERAGED` that have at least one dataset.

    Args:
        sets: numbers of samples and of correct predictions by dataset name. Datasets outside these groups are ignored.

    Raises:
        ValueError: the numbers of a dataset are not a valid share.
    """
    result: dict[str, Average] = {}
    for group in AVERAGED:
        members = [benchmark for benchmark in BENCHMARKS.values() if benchmark.group == group]
        given = [benchmark.name for benchmark in members if benchmark.name in sets]
        if given:
            samples, correct = (sum(numbers) for numbers in zip(*(sets[name] for name in given), strict=True))
            result[group] = Average(
                arithmetic=math.fsum(_share(*sets[name]) for name in given) / len(given),
                weighted=_share(samples, correct),
                sets=given,
                complete=all(sets.get(member.name, (0, 0))[0] == member.samples for member in members),
            )
    return result


def wilson_interval(correct: float, samples: float, z: float = 1.96) -> tuple[float, float]:
    """Compute the confidence interval of an accuracy, after Wilson (1927).

    Unlike the normal approximation, it is valid for few samples and for accuracies near 0 and 1.

    Args:
        correct: number of correct predictions.
        samples: number of samples, at least 1.
        z: half width in standard deviations; 1.96 for a confidence of 95 %.

    Returns:
        Lower and upper bound, 0 to 1.

    Raises:
        ValueError: the numbers are not a valid share.
    """
    share = _share(samples, correct)
    scale = 1 + z**2 / samples
    center = (share + z**2 / (2 * samples)) / scale
    half = z * math.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2)) / scale
    # At 0 and 1 the bound is exact except for rounding.
    return (max(0.0, center - half) if correct else 0.0), (min(1.0, center + half) if correct < samples else 1.0)


def _share(samples: float, correct: float) -> float:
    if not 0 <= correct <= samples or samples == 0:
        raise ValueError(f"{correct} correct of {samples} samples is not a valid share.")
    return correct / samples


@dataclass(frozen=True, eq=False)
class PublishedResult:
    """Results that the authors of SVTRv2 published for one trained model.

    Attributes:
        system: name of the model.
        training_data: name of the training data.
        parameters_millions: parameters in millions, without those used only in training; `None` if not published.
        latency_ms: milliseconds per image on one NVIDIA 1080Ti; `None` if not published.
        source: where the results were published.
        sets: word accuracy in percent by benchmark or group of lengths, under its protocol.
        averages: arithmetic means in percent by group.
    """

    system: str
    training_data: str
    parameters_millions: float | None
    latency_ms: float | None
    source: str
    sets: dict[str, float]
    averages: dict[str, float]


# OpenOCR lists the results twice, with different headings for IIIT5k and IC13. Trained on Union14M-L-Filter: IIIT5k, SVT, IC13
# in docs/svtrv2.md, as in the paper's supplement; IC13, SVT, IIIT5k in configs/rec/svtrv2/readme.md. Trained on MJ+ST: IC13,
# SVT, IIIT5k in both, but the columns are IIIT5k, SVT, IC13: the same table has SVTR-B's 96.0, 91.5, 97.1, and its authors'
# results (PaddleOCR 2.5, doc/doc_ch/algorithm_rec_svtr.md) are 96.03 on IIIT5k, 91.50 on SVT and 97.08 on IC13_857.
# For OST, only the average of its two sets was published.
PUBLISHED: tuple[PublishedResult, ...] = tuple(PublishedResult(**entry) for entry in _read("published.json"))
