# SPDX-License-Identifier: Apache-2.0
"""What training would make of data, told before it begins: every fault counted."""

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from ..charsets import Normalization, normalize_unicode
from ..image_processing_svtrv2 import (
    SVTRv2ImageProcessor,
    UnreadableImageError,
    load_rgb,
    open_image,
    upright_size,
)
from .labels import LabelEncoder, Rejection, Remark, frames_needed, remarks_of
from .loader import Loader, plain_worker_errors
from .sample import Sample, Source


EXAMPLES = 20  # names kept of each fault, and told of unreadable images
SAMPLES_PER_REPORT = 256  # that a worker reads before it reports
VERTICAL = 1.5  # height in units of the width from which words seem to run down or up; the pipeline turns such images


@dataclass(eq=False)
class AuditReport:
    """What was found in some samples. Reports under the same rules add up.

    A sample may have several faults and counts in each, for all of them are to be mended; training stops at the first that it
    meets and counts that. Labels are judged as they are written; where the policy is to drop characters, without these, so that a
    label of which nothing is left counts as empty in both. Such a sample also counts under unknown characters here, where training
    counts the characters (`dropped_characters`).

    Attributes:
        name: of the source.
        encoder: the label rules.
        image_processor: the size rules.
        normalize: the form that labels are judged in.
        samples: how many were read.
        usable: those without any fault.
        repairable: those that are usable once the characters outside the charset are left out of their labels.
        vertical: images so tall that their text, of several characters, may run down or up. No fault.
        remarks: labels by what is unusual about them, before they are normalized. No fault.
        labels: names and labels of samples by remark, the first `EXAMPLES` in alphabetical order.
        faults: samples by fault.
        examples: names of samples by fault, the first `EXAMPLES` in alphabetical order.
        characters: how often each occurs in the labels, whether in the charset or not.
        label_lengths: labels by their number of characters, as they are judged.
        aspect_ratios: images by width / height, rounded, 1 at least.
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
    remarks: Counter[Remark] = field(default_factory=Counter)
    labels: defaultdict[Remark, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    faults: Counter[Rejection] = field(default_factory=Counter)
    examples: defaultdict[Rejection, list[str]] = field(default_factory=lambda: defaultdict(list))
    characters: Counter[str] = field(default_factory=Counter)
    label_lengths: Counter[int] = field(default_factory=Counter)
    aspect_ratios: Counter[int] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Examines a sample, by the rules of training; the image is decoded."""
        self.samples += 1
        for remark in remarks_of(sample.text):
            self.remarks[remark] += 1
            bisect.insort(self.labels[remark], (sample.name, sample.text))
            del self.labels[remark][EXAMPLES:]
        sample = sample._replace(text=normalize_unicode(sample.text, self.normalize))
        self.characters.update(sample.text)
        known = "".join(character for character in sample.text if character in self.encoder.ids)
        readable, frames = self._add_image(sample)
        judged = known if self.encoder.unknown_characters == "drop_character" else sample.text
        self.label_lengths[len(judged)] += 1
        faults = self._faults_of_label(judged, frames)
        if len(known) < len(sample.text):
            faults.add(Rejection.UNKNOWN_CHARACTERS)
        if not readable:
            faults.add(Rejection.UNREADABLE)
        for fault in faults:
            self.faults[fault] += 1
            bisect.insort(self.examples[fault], sample.name)
            del self.examples[fault][EXAMPLES:]
        if not faults:
            self.usable += 1
        elif Rejection.UNKNOWN_CHARACTERS in faults and readable and not self._faults_of_label(known, frames):
            self.repairable += 1

    def _add_image(self, sample: Sample) -> tuple[bool, int | None]:
        """Whether the image can be decoded, and the frames that the model makes of it if its size can be told."""
        readable, frames = True, None
        try:
            image = open_image(sample.image, sample.name)
            width, height = upright_size(image, sample.name)
            self.vertical += height > VERTICAL * width and len(sample.text) > 1
            self.aspect_ratios[max(round(width / height), 1)] += 1
            frames = self.image_processor.target_size(width, height)[1] // self.image_processor.pixels_per_frame
            load_rgb(image, sample.name)  # many a truncated file has a sound header
        except UnreadableImageError as error:
            readable = False
            self.unreadable.append((sample.name, str(error)))
        return readable, frames

    def _faults_of_label(self, label: str, frames: int | None) -> set[Rejection]:
        faults = set()
        if not label:
            faults.add(Rejection.EMPTY)
        if len(label) > self.encoder.max_length:
            faults.add(Rejection.TOO_LONG)
        # equal neighbours need a frame more, whether the charset knows them or not
        if frames is not None and frames_needed([ord(character) for character in label]) > frames:
            faults.add(Rejection.UNALIGNABLE)
        return faults

    def update(self, other: "AuditReport") -> None:
        """Adds what another report has found.

        Raises:
            ValueError: it was made under other rules.
        """
        if self._rules != other._rules:
            raise ValueError(f"The reports on {self.name} and {other.name} were made under different rules.")
        self.samples += other.samples
        self.usable += other.usable
        self.repairable += other.repairable
        self.vertical += other.vertical
        self.remarks.update(other.remarks)
        for remark, labels in other.labels.items():
            self.labels[remark] = sorted([*self.labels[remark], *labels])[:EXAMPLES]
        self.faults.update(other.faults)
        for fault, names in other.examples.items():
            self.examples[fault] = sorted([*self.examples[fault], *names])[:EXAMPLES]
        self.characters.update(other.characters)
        self.label_lengths.update(other.label_lengths)
        self.aspect_ratios.update(other.aspect_ratios)
        self.unreadable.extend(other.unreadable)

    def __add__(self, other: "AuditReport") -> "AuditReport":
        both = self.empty(self.name if self.name == other.name else f"{self.name} + {other.name}")
        both.update(self)
        both.update(other)
        return both

    def empty(self, name: str) -> "AuditReport":
        """A report on nothing yet, under the same rules."""
        return AuditReport(name, self.encoder, self.image_processor, self.normalize)

    @property
    def _rules(self) -> tuple[Any, ...]:
        encoder, processor = self.encoder, self.image_processor
        return encoder.ids, encoder.max_length, encoder.unknown_characters, processor.to_dict(), self.normalize

    @property
    def unknown_characters(self) -> Counter[str]:
        """How often each character outside the charset occurs; the most frequent come first."""
        unknown = self.characters.keys() - self.encoder.ids.keys()
        return Counter({c: self.characters[c] for c in sorted(unknown, key=lambda c: (-self.characters[c], c))})

    @property
    def unused_characters(self) -> str:
        """The characters of the charset that never occur, in its order."""
        return "".join(character for character in self.encoder.ids if character not in self.characters)

    @property
    def clipped(self) -> int:
        """Images wider than `max_ratio` times their height, which are squeezed. No fault."""
        return sum(count for ratio, count in self.aspect_ratios.items() if ratio > self.image_processor.max_ratio)

    @property
    def padded(self) -> int:
        """Labels that begin or end with a space, or are nothing else. No fault."""
        return self.remarks[Remark.PADDED]

    @property
    def faultless(self) -> bool:
        """Whether there are samples, and training would take them all as they are."""
        return 0 < self.samples == self.usable

    def size_of(self, ratio: int) -> tuple[int, int]:
        """Height and width in pixels that images of a rounded aspect ratio are resized to."""
        return self.image_processor.target_size(ratio, 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything found, as JSON holds it; does not depend on the order in which samples were read."""
        return {
            "source": self.name,
            "samples": self.samples,
            "usable": self.usable,
            "repairable": self.repairable,
            "faults": {str(fault): self.faults[fault] for fault in Rejection},
            "clipped": self.clipped,
            "vertical": self.vertical,
            "padded": self.padded,
            "remarks": {
                str(remark): {
                    "samples": self.remarks[remark],
                    "labels": [list(label) for label in self.labels[remark]],
                }
                for remark in Remark
                if self.remarks[remark]
            },
            "examples": {str(fault): self.examples[fault] for fault in Rejection if fault in self.examples},
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
        else:  # parts need not follow each other, so each worker goes through the first samples and takes its share
            samples = islice(self.source.read(), part, self.limit, parts)
        report = self.empty.empty(self.empty.name)
        for sample in samples:
            report.add(sample)
            if report.samples == SAMPLES_PER_REPORT:
                yield report
                report = self.empty.empty(self.empty.name)
        yield report


def audit(
    source: Source,
    encoder: LabelEncoder,
    image_processor: SVTRv2ImageProcessor,
    workers: int = 0,
    limit: int | None = None,
    progress: bool = False,
) -> AuditReport:
    """Reads a source once, in the order of its files, and examines every sample.

    Args:
        source: what is examined.
        encoder: the label rules of the training.
        image_processor: decides sizes, as it will in training.
        workers: processes that read besides this one; the report does not depend on it.
        limit: samples to read from the beginning; all by default.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError, OSError: the source cannot be read. (An image that cannot is a fault and counted.)
    """
    report = AuditReport(source.name, encoder, image_processor)
    audit_into(report, source, workers, limit, progress)
    return report


def audit_into(report: AuditReport, source: Source, workers: int, limit: int | None, progress: bool) -> None:
    """As [`audit`], adding to a report, which also holds what was read when an interruption ended the reading."""
    loader = Loader(
        _PartialReports(source, report.empty(report.name), limit),
        num_workers=workers,
        generator=torch.Generator(),  # or starting to read would advance the global random numbers
    )
    total = source.num_samples if limit is None or source.num_samples is None else min(limit, source.num_samples)
    with (
        tqdm(desc=report.name, total=total, unit="sample", disable=None if progress else True) as bar,
        plain_worker_errors(),
    ):
        for partial in loader:
            report.update(partial)
            bar.update(partial.samples)


def code_point(character: str) -> str:
    """As Unicode writes it: U+0041."""
    return f"U+{ord(character):04X}"
