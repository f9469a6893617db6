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
from ..sources import find_format
from .metrics import Protocol


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
    """A public test set.

    Attributes:
        name: name in tables and results, and of the dataset's folder.
        group: group of sets that share a table. Averages are computed for the groups of `AVERAGED`.
        samples: number of labeled images.
        paper: URL of the paper that introduces the set.
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
    paper: str
    data: str
    protocol: Protocol = "english"
    max_ratio: int | None = None
    aliases: tuple[str, ...] = ()
    length_groups: tuple[LengthGroup, ...] = ()
    max_label_length: int | None = 25


# As in OpenOCR, tools/eval_rec_all_long.py with openrec/metrics/rec_metric_long.py: with `is_filter`, which configs/rec/svtrv2/
# svtrv2_smtr_gtc_rctc_infer.yml sets, this is the English protocol. Numbers: alphaXiv's page on the benchmark's paper, arXiv
# 2407.12317, and for the first group also OpenOCR, docs/svtrv2.md, whose tables call that group "LTB".
_LTB = (
    LengthGroup("LTB 26-35", range(26, 36), 3376),
    LengthGroup("LTB 36-55", range(36, 56), 1147),
    LengthGroup("LTB 56+", range(56, 10**9), 266),
)


# Papers of the common sets as in open-mmlab/mmocr, dataset_zoo.
_PAPERS = {
    "IIIT5k": "https://hal.inria.fr/hal-00818183",
    "SVT": "https://link.springer.com/content/pdf/10.1007/978-3-642-15549-9_43.pdf",
    "IC13": "https://www.imlab.jp/publication_data/1352/icdar_competition_report.pdf",
    "IC15": "https://rrc.cvc.uab.es/files/short_rrc_2015.pdf",
    "SVTP": "https://openaccess.thecvf.com/content_iccv_2013/papers/Phan_Recognizing_Text_with_2013_ICCV_paper.pdf",
    "CUTE80": "https://www.sciencedirect.com/science/article/abs/pii/S0957417414004060",
    "U14M": "https://arxiv.org/abs/2307.08723",
    "OST": "https://arxiv.org/abs/2108.09661",
    "WordArt": "https://arxiv.org/abs/2208.00438",
    "LTB": "https://arxiv.org/abs/2407.12317",
    "BCTR": "https://arxiv.org/abs/2112.15093",
}
# All others are in OpenOCR's data (docs/svtrv2.md).
_OPENOCR = "https://huggingface.co/datasets/topdu/OpenOCR-Data"
_DATA = {
    "WordArt": "https://github.com/xdxie/WordArt",
    "BCTR": "https://github.com/FudanVI/benchmarking-chinese-text-recognition",
}


def _benchmark(name: str, group: str, samples: int, aliases: Sequence[str] = (), **more: Any) -> Benchmark:
    source = re.split("[-_]", name)[0]  # several sets have the same source
    return Benchmark(
        name, group, samples, _PAPERS[source], _DATA.get(source, _OPENOCR), aliases=tuple(aliases), **more
    )


def _union14m(name: str, samples: int, folder: str) -> Benchmark:
    # u14m as in OpenOCR's data, Union14M-Benchmarks as in the data of Union14M's authors.
    aliases = (f"u14m/{folder}", f"Union14M-Benchmarks/{folder}")
    return _benchmark(f"U14M-{name}", "Union14M-Benchmark", samples, aliases)


# In the order of the paper's tables. Folders are those of Topdu/OpenOCR at ae934e5, tools/eval_rec_all_{en,ch,long}.py.
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        # Numbers: OpenOCR, docs/svtrv2.md.
        _benchmark("IIIT5k", "Common", 3000),
        _benchmark("SVT", "Common", 647),
        _benchmark("IC13_857", "Common", 857),
        _benchmark("IC15_1811", "Common", 1811),
        _benchmark("SVTP", "Common", 645),
        _benchmark("CUTE80", "Common", 288),
        # Longer versions of two of these, not part of the averages. Numbers: baudm/parseq, README.md.
        _benchmark("IC13_1015", "Common, longer versions", 1015),
        _benchmark("IC15_2077", "Common, longer versions", 2077),
        # Numbers: OpenOCR, docs/svtrv2.md.
        _union14m("Curve", 2426, "curve"),
        _union14m("Multi-Oriented", 1369, "multi_oriented"),
        _union14m("Artistic", 900, "artistic"),
        _union14m("Contextless", 779, "contextless"),
        _union14m("Salient", 1585, "salient"),
        _union14m("Multi-Words", 829, "multi_words"),
        _union14m("General", 400_000, "general"),
        # Number: wangyuxin87/VisionLAN, README.md: 4832 in total; its averages weight both sets equally.
        _benchmark("OST-Weak", "OST", 2416, ["OST/weak"]),
        _benchmark("OST-Heavy", "OST", 2416, ["OST/heavy"]),
        # Number: xdxie/WordArt, README.md (1511 test images of 6316 images).
        _benchmark("WordArt", "WordArt", 1511, ["wordart_test"]),
        # Number: the sum of the groups. Ratio: OpenOCR, configs/rec/svtrv2/readme.md.
        _benchmark("LTB", "LTB", 4789, ["ltb/long_lmdb"], max_ratio=20, length_groups=_LTB, max_label_length=None),
        # Numbers: FudanVI/benchmarking-chinese-text-recognition, README.md, test splits. OpenOCR issue 197 has logs of
        # evaluations of the first two with the same numbers.
        _benchmark("BCTR-Scene", "Chinese", 63_646, ["scene_test"], protocol="chinese"),
        _benchmark("BCTR-Web", "Chinese", 14_059, ["web_test"], protocol="chinese"),
        _benchmark("BCTR-Document", "Chinese", 50_000, ["document_test"], protocol="chinese"),
        _benchmark("BCTR-Handwriting", "Chinese", 23_389, ["handwriting_test"], protocol="chinese"),
    )
}

AVERAGED = ("Common", "Union14M-Benchmark", "OST", "Chinese")


_DEPTH = 3  # a set's folder is in the root, or up to two levels deeper
_FOLDERS = {
    tuple(place.casefold().split("/")): benchmark.name
    for benchmark in BENCHMARKS.values()
    for place in (benchmark.name, *benchmark.aliases)
}


def benchmark_at(place: str | Path) -> str | None:
    """The benchmark whose name or alias a folder has, ignoring case; `None` if there is no match. Only the path is checked."""
    parts = tuple(part.casefold() for part in Path(place).parts)
    return _FOLDERS.get(parts[-2:]) or _FOLDERS.get(parts[-1:])


def find_sets(root: Path, names: Sequence[str] | None = None) -> dict[str, Path]:
    """Finds the test sets in a folder.

    A benchmark's folder has its name or one of its aliases, ignoring case, and is in the root or up to two levels deeper.
    The name of the root counts as a parent folder: `general` is `U14M-General` in a root `u14m`, and a custom set elsewhere.
    Every other folder directly in the root that contains data is a custom set, unless it contains a benchmark.

    Args:
        root: folder.
        names: names of the benchmarks or custom sets to find, ignoring case; `None` for all.

    Returns:
        The folder of each set by name: benchmarks in the order of `BENCHMARKS`, then custom sets by name.

    Raises:
        FileNotFoundError: the root is not a folder, or a set, or any set, was not found.
        ValueError: a set was found twice, or a folder contains data in two formats.
    """
    root = user_path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"Folder {root} not found: pass the folder that contains the test sets.")
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for name, folder in _benchmarks_below(root, Path(root.resolve().name), _DEPTH):
        places[name].append(folder)
    found = {name: places[name] for name in BENCHMARKS if name in places}
    for folder in _folders_in(root):
        has_benchmark = any(place.is_relative_to(folder) for several in places.values() for place in several)
        if not has_benchmark and any(file.parent == folder for file in _data_at(folder)):
            found[folder.name] = [folder]
    if names is not None:
        there = {name.casefold() for name in found}
        if missing := [name for name in names if name.casefold() not in there]:
            raise FileNotFoundError(
                f"Test set {', '.join(missing)} not found in {root} (found: {', '.join(found) or 'none'}). Each set is a folder "
                f"with images and labels; benchmark folders are named {', '.join(BENCHMARKS)}.{_hint_if_dataset(root)}"
            )
        wanted = {name.casefold() for name in names}
        found = {name: folders for name, folders in found.items() if name.casefold() in wanted}
    if not found:
        raise FileNotFoundError(
            f"No test set found in {root}. Each set is a subfolder with data, such as a labels.tsv or an LMDB; benchmarks may be "
            f"up to two levels deeper.{_hint_if_dataset(root)}"
        )
    for name, folders in found.items():
        if len(folders) > 1:
            raise ValueError(
                f"{name} was found more than once: {', '.join(map(str, folders))}. Select other sets with --sets, or pass a folder "
                "that contains each set once."
            )
    return {name: folders[0] for name, folders in found.items()}


def _hint_if_dataset(root: Path) -> str:
    return (
        f" {root} is itself a dataset; evaluate it with --sets NAME={root}."
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
    """The files in or below a folder that contain its labeled images; empty if no known format is found."""
    try:
        return [Path(file) for file in find_format(str(folder))[1]]
    except FileNotFoundError:
        return []


class Average(TypedDict):
    """Averages over the sets of a group.

    Attributes:
        arithmetic: mean of the sets' accuracies, 0 to 1, as in papers.
        weighted: accuracy over all samples, 0 to 1.
        sets: names of the averaged sets.
        complete: whether all sets of the group are included with all their samples. If not, the averages are not comparable.
    """

    arithmetic: float
    weighted: float
    sets: list[str]
    complete: bool


def averages(sets: Mapping[str, tuple[float, float]]) -> dict[str, Average]:
    """Averages over the groups of `AVERAGED` that have at least one set.

    Args:
        sets: numbers of samples and of correct predictions by set name. Sets outside these groups are ignored.

    Raises:
        ValueError: the numbers of a set are not a valid share.
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
    """Confidence interval of an accuracy, after Wilson (1927).

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
PUBLISHED: tuple[PublishedResult, ...] = tuple(
    PublishedResult(**entry)
    for entry in json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
)
