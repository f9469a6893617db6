# SPDX-License-Identifier: Apache-2.0
"""Data audits: count every problem that samples have under the rules of a training run."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from ..charsets import Normalization, code_point, normalize_unicode
from ..image_processing_svtrv2 import (
    SVTRv2ImageProcessor,
    UnreadableImageError,
    load_rgb,
    open_image,
    upright_size,
)
from ..pipeline_svtrv2 import VERTICAL_RATIO
from .labels import LabelEncoder, Rejection, Remark, frames_needed, remarks_of
from .loader import Loader, plain_worker_errors
from .sample import Sample, Source


MAX_EXAMPLES = 20  # names kept per problem
SAMPLES_PER_REPORT = 256  # samples that a worker reads before it reports them


@dataclass(eq=False)
class AuditReport:
    """Problems found in some samples; reports with the same rules can be merged.

    A sample counts under each of its problems, because all of them need correction; training counts only the first one it encounters.
    With `unknown_characters="drop_character"`, labels are judged without their unknown characters, as in training.

    Attributes:
        name: name of the source.
        encoder: rules for labels.
        image_processor: rules for image sizes.
        normalize: Unicode form that labels are converted to before they are judged.
        samples: number of samples read.
        usable: number of samples without problems.
        repairable: number of samples that are usable once the characters outside the charset are removed from their labels.
        vertical: number of images whose text, of several characters, may run vertically. Not a problem.
        counts: number of samples per problem ([`Rejection`]) and unusual property of the label ([`Remark`], not a problem).
        examples: name and label of the first `MAX_EXAMPLES` samples of each, in alphabetical order.
        characters: number of occurrences of each character of the labels.
        label_lengths: number of labels per length in characters.
        aspect_ratios: number of images per aspect ratio (width / height), rounded and at least 1.
        unreadable: name and error of all images that cannot be decoded.
    """

    name: str
    encoder: LabelEncoder = field(repr=False)
    image_processor: SVTRv2ImageProcessor = field(repr=False)
    normalize: Normalization = "none"
    samples: int = 0
    usable: int = 0
    repairable: int = 0
    vertical: int = 0
    counts: Counter[Rejection | Remark] = field(default_factory=Counter)
    examples: defaultdict[Rejection | Remark, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    characters: Counter[str] = field(default_factory=Counter)
    label_lengths: Counter[int] = field(default_factory=Counter)
    aspect_ratios: Counter[int] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Check a sample by the rules of training, including that its image can be decoded."""
        text = normalize_unicode(sample.text, self.normalize)
        known = "".join(character for character in text if character in self.encoder.ids)
        judged = known if self.encoder.unknown_characters == "drop_character" else text
        readable, frames = self._add_image(sample, len(text))
        problems = self._label_problems(judged, frames)
        if known != text:
            problems.add(Rejection.UNKNOWN_CHARACTERS)
        if not readable:
            problems.add(Rejection.UNREADABLE)
        self.samples += 1
        self.usable += not problems
        self.repairable += known != text and readable and bool(problems) and not self._label_problems(known, frames)
        self.characters.update(text)
        self.label_lengths[len(judged)] += 1
        kinds: list[Rejection | Remark] = [*problems, *remarks_of(sample.text)]
        for kind in kinds:
            self.counts[kind] += 1
            self._add_examples(kind, [(sample.name, sample.text)])

    def _add_image(self, sample: Sample, length: int) -> tuple[bool, int | None]:
        """Return whether the image can be decoded, and its number of frames if the size is known."""
        frames = None
        try:
            image = open_image(sample.image, sample.name)
            width, height = upright_size(image, sample.name)
            self.vertical += height > VERTICAL_RATIO * width and length > 1
            self.aspect_ratios[max(round(width / height), 1)] += 1
            frames = self.image_processor.target_size(width, height)[1] // self.image_processor.pixels_per_frame
            load_rgb(image, sample.name)  # truncated files often have an intact header
        except UnreadableImageError as error:
            self.unreadable.append((sample.name, str(error)))
            return False, frames
        return True, frames

    def _label_problems(self, label: str, frames: int | None) -> set[Rejection]:
        too_few = frames is not None and frames_needed([ord(character) for character in label]) > frames
        limit = self.encoder.max_length
        problems = {
            Rejection.EMPTY: not label,
            Rejection.TOO_LONG: limit is not None and len(label) > limit,
            Rejection.UNALIGNABLE: too_few,
        }
        return {problem for problem, present in problems.items() if present}

    def _add_examples(self, kind: Rejection | Remark, samples: list[tuple[str, str]]) -> None:
        self.examples[kind] = sorted(self.examples[kind] + samples)[:MAX_EXAMPLES]

    def update(self, other: "AuditReport") -> None:
        """Add the counts of another report with the same rules."""
        for name in ("samples", "usable", "repairable", "vertical"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("counts", "characters", "label_lengths", "aspect_ratios"):
            getattr(self, name).update(getattr(other, name))
        for kind, samples in other.examples.items():
            self._add_examples(kind, samples)
        self.unreadable += other.unreadable

    def empty(self, name: str) -> "AuditReport":
        """Return an empty report with the same rules."""
        return AuditReport(name, self.encoder, self.image_processor, self.normalize)

    @property
    def unknown_characters(self) -> Counter[str]:
        """Number of occurrences of each character outside the charset, the most frequent first."""
        unknown = self.characters.keys() - self.encoder.ids.keys()
        return Counter({c: self.characters[c] for c in sorted(unknown, key=lambda c: (-self.characters[c], c))})

    @property
    def unused_characters(self) -> str:
        """Characters of the charset that never occur, in its order."""
        return "".join(character for character in self.encoder.ids if character not in self.characters)

    @property
    def compressed(self) -> int:
        """Number of images wider than `max_ratio` times their height, which are resized to that ratio. Not a problem."""
        return sum(count for ratio, count in self.aspect_ratios.items() if ratio > self.image_processor.max_ratio)

    @property
    def is_clean(self) -> bool:
        """Whether there are samples, and training uses all of them unchanged."""
        return 0 < self.samples == self.usable

    def size_of(self, ratio: int) -> tuple[int, int]:
        """Return the height and width in pixels that images of a rounded aspect ratio are resized to."""
        return self.image_processor.target_size(ratio, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the report in the form of `audit.json`; it does not depend on the order in which samples were read."""
        return {
            "source": self.name,
            "samples": self.samples,
            "usable": self.usable,
            "repairable": self.repairable,
            "problems": {str(problem): self.counts[problem] for problem in Rejection},
            "compressed": self.compressed,
            "vertical": self.vertical,
            "padded": self.counts[Remark.PADDED],
            "remarks": {
                str(remark): {
                    "samples": self.counts[remark],
                    "labels": [list(label) for label in self.examples[remark]],
                }
                for remark in Remark
                if self.counts[remark]
            },
            "examples": {
                str(problem): [name for name, _ in self.examples[problem]]
                for problem in Rejection
                if self.counts[problem]
            },
            "unknown_characters": [
                {"character": character, "code_point": code_point(character), "count": count}
                for character, count in self.unknown_characters.items()
            ],
            "unused_characters": self.unused_characters,
            "label_lengths": {str(length): count for length, count in sorted(self.label_lengths.items())},
            "aspect_ratios": [
                {"ratio": ratio, "size": list(self.size_of(ratio)), "count": count}
                for ratio, count in sorted(self.aspect_ratios.items())
            ],
            "unreadable": [{"name": name, "error": error} for name, error in sorted(self.unreadable)],
        }


def count_characters(
    sources: Sequence[Source], normalize: Normalization = "none"
) -> tuple[Counter[str], int, int, int]:
    """Count the characters of all labels of sources.

    Args:
        sources: sources to read.
        normalize: Unicode form that labels are converted to.

    Returns:
        the number of occurrences of each character; and the numbers of labels, of empty ones, and of those that have another
        form in NFC.

    Raises:
        ValueError, OSError: a source cannot be read.
    """
    characters: Counter[str] = Counter()
    labels = empty = decomposed = 0
    for source in sources:
        for text in tqdm(source.texts(), source.name, source.num_samples, unit=" labels", delay=5):
            text = normalize_unicode(text, normalize)
            characters.update(text)
            labels += 1
            empty += not text
            decomposed += not unicodedata.is_normalized("NFC", text)
    return characters, labels, empty, decomposed


class _PartialReports(IterableDataset):
    """Reports on a few hundred samples at a time; each worker reads a part of the source."""

    def __init__(self, source: Source, empty: AuditReport, limit: int | None):
        self.source = source
        self.empty = empty
        self.limit = limit

    def __iter__(self) -> Iterator[AuditReport]:
        worker = get_worker_info()
        part, parts = (worker.id, worker.num_workers) if worker else (0, 1)
        if self.limit is None:
            samples = self.source.read(part, parts)
        else:  # parts may not be contiguous, so each worker reads the first samples and uses its share
            samples = islice(self.source.read(), part, self.limit, parts)
        while True:
            report = self.empty.empty(self.empty.name)
            for sample in islice(samples, SAMPLES_PER_REPORT):
                report.add(sample)
            yield report
            if not report.samples:
                return


def audit(
    source: Source, report: AuditReport, workers: int = 0, limit: int | None = None, progress: bool = False
) -> None:
    """Read a source once, in the order of its files, and add all samples to a report.

    If reading fails or is interrupted, the report has the samples read so far.

    Args:
        source: source to read.
        report: report to add to.
        workers: number of worker processes; the report does not depend on it.
        limit: number of samples to read; defaults to all.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError, OSError: the source cannot be read. (An unreadable image is a problem and counted.)
    """
    loader = Loader(
        _PartialReports(source, report.empty(report.name), limit),
        num_workers=workers,
        generator=torch.Generator(),  # leaves the global random state unchanged
    )
    total = source.num_samples if limit is None or source.num_samples is None else min(limit, source.num_samples)
    bar = tqdm(desc=report.name, total=total, unit="sample", disable=None if progress else True)
    with bar, plain_worker_errors():
        for partial in loader:
            report.update(partial)
            bar.update(partial.samples)
