# SPDX-License-Identifier: Apache-2.0
"""Audits in words: a table, and what to do about each problem."""

import bisect
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from .audit import EXAMPLES, VERTICAL, AuditReport, code_point
from .labels import Rejection, Remark


NO_SAMPLE = "There is no sample."
LENGTHS_IN_A_ROW = 5  # of the table of lengths
Range = tuple[str, int, int | None]  # what to call it, its first value, and its last, if it has one


# What labels have that is often a mistake, and what to do about it.
_REMARKS = {
    Remark.DECOMPOSED: (
        "Labels that are not in Unicode's NFC",
        "Their accents are characters of their own; --normalize nfc joins them, in charset, labels and scoring.",
    ),
    Remark.COMPATIBLE: (
        "Labels with full-width letters or digits, ligatures or other variants of usual characters",
        "If they need not be told apart, --normalize nfkc replaces them, in charset, labels and scoring.",
    ),
    Remark.CONTROL: ("Labels with control characters", "No image shows them; remove them from the labels."),
    Remark.INVISIBLE: (
        "Labels with invisible characters (byte order marks, zero-width characters, marks of direction)",
        "No image shows them; remove them, unless the script needs them.",
    ),
    Remark.PADDED: (
        "Labels that begin or end with a space, or are nothing else",
        "The image does not show such a space; strip the labels.",
    ),
    Remark.SPACE: (
        "Labels with spaces other than the usual one (no-break, ideographic, thin)",
        "They look like the usual one; replace them, for instance by --normalize nfkc.",
    ),
    Remark.ESCAPE: (
        "Labels with backslash escapes",
        "If the images do not show the backslash, a program has escaped the characters; write the characters themselves.",
    ),
    Remark.ENTITY: (
        "Labels with entities of HTML",
        "If the images do not show them so, write the characters themselves.",
    ),
}


class Problem(NamedTuple):
    """Something wrong with samples.

    Attributes:
        title: what it is.
        told: how often, and where for example.
        advice: what to do, in sentences.
        errors: one for each file to look at.
    """

    title: str
    told: str
    advice: str
    errors: Sequence[str] = ()

    def render(self, advice: str = "") -> str:
        """How often and where, in Markdown; with advice, if there is any."""
        sentence = f"{self.title}: {self.told}." + (f" {advice}" if advice else "")
        return "\n".join([sentence, "", *(f"- {error}" for error in self.errors)]) if self.errors else sentence


def total(reports: Sequence[AuditReport]) -> AuditReport:
    """The reports added up."""
    everything = reports[0].empty("all")
    for report in reports:
        everything.update(report)
    return everything


def render_table(reports: Sequence[AuditReport]) -> str:
    """A line for each report, and one for all if there are several; in Markdown, aligned."""
    rows = [
        [
            "source",
            "samples",
            "usable",
            "usable %",
            "repairable",
            *(str(fault).replace("_", " ") for fault in Rejection),
        ]
    ]
    rows[0] += ["clipped", "vertical"]
    for report in [*reports, total(reports)] if len(reports) > 1 else reports:
        share = percent(report.usable, report.samples)
        counts = [report.repairable, *(report.faults[fault] for fault in Rejection), report.clipped, report.vertical]
        name = report.name.replace("|", "\\|")
        rows.append([name, f"{report.samples:,}", f"{report.usable:,}", share, *(f"{count:,}" for count in counts)])
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = []
    for name, *numbers in rows:
        cells = [name.ljust(widths[0]), *(n.rjust(width) for n, width in zip(numbers, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def problems_of(report: AuditReport) -> list[Problem]:
    """What is wrong with the samples of a report; nothing, if it has none."""
    encoder, max_ratio, faults = report.encoder, report.image_processor.max_ratio, report.faults
    problems = []
    if count := faults[Rejection.UNKNOWN_CHARACTERS]:
        advice = {
            "error": "Training would stop. Add them to the charset (--charset FILE), or choose --unknown_characters "
            "drop_sample, to leave these samples out, or drop_character, to leave the characters out of the labels, "
            f"which makes {report.repairable:,} of the samples usable.",
            "drop_sample": "Training leaves these samples out. Add the characters to the charset (--charset FILE) to "
            f"keep them all; --unknown_characters drop_character would keep {report.repairable:,}, without the "
            "characters.",
            "drop_character": "Training leaves the characters out of the labels, which makes "
            f"{report.repairable:,} of the samples usable. Add them to the charset (--charset FILE) to have them read.",
        }[encoder.unknown_characters]
        told = f"{samples_told(count)}, {_most_frequent(report.unknown_characters)}"
        problems.append(Problem("Characters outside the charset", told, advice))
    if count := faults[Rejection.EMPTY]:
        problems.append(
            Problem(
                "Empty labels",
                samples_told(count) + _such_as(report, Rejection.EMPTY),
                "Training leaves them out; write what the images say, or remove them.",
            )
        )
    if count := faults[Rejection.TOO_LONG]:
        enough = _would_do("--max_label_length", report.label_lengths, encoder.max_length)
        problems.append(
            Problem(
                f"Labels of more than {encoder.max_length} characters",
                samples_told(count) + _such_as(report, Rejection.TOO_LONG),
                f"Training leaves them out; {enough}.",
            )
        )
    if count := faults[Rejection.UNALIGNABLE]:
        pixels = report.image_processor.pixels_per_frame
        problems.append(
            Problem(
                f"Labels of more characters than CTC has frames for, one in {pixels} pixels of the resized width",
                samples_told(count) + _such_as(report, Rejection.UNALIGNABLE),
                "Training leaves them out; correct their labels or crops, or raise --max_ratio where the image is wider than "
                f"{max_ratio} times its height.",
            )
        )
    if count := faults[Rejection.UNREADABLE]:
        errors = [error for _, error in sorted(report.unreadable)[:EXAMPLES]]
        if count > len(errors):
            errors.append(f"and {count - len(errors):,} more; --output FOLDER writes all their names.")
        advice = "Replace or remove these files."
        problems.append(Problem("Images that cannot be read", samples_told(count), advice, errors))
    if report.clipped:
        enough = _would_do("--max_ratio", report.aspect_ratios, max_ratio)
        problems.append(
            Problem(
                f"Images wider than {max_ratio} times their height",
                samples_told(report.clipped),
                f"They are squeezed; {enough}.",
            )
        )
    if report.vertical:
        problems.append(
            Problem(
                f"Images taller than {VERTICAL:g} times their width, of several characters",
                samples_told(report.vertical),
                "If their text runs down or up, turn them by a quarter, for the model reads from left to right.",
            )
        )
    for remark, (title, advice) in _REMARKS.items():
        if count := report.remarks[remark]:
            quoted = ascii if remark == Remark.DECOMPOSED else repr  # which shows accents as characters of their own
            shown = ", ".join(f"{quoted(label)} ({name})" for name, label in report.labels[remark][:3])
            told = f"{samples_told(count)}, such as {shown}" + (", ..." if count > 3 else "")
            problems.append(Problem(title, told, advice))
    return problems


def advise(report: AuditReport) -> list[str]:
    """A sentence for each problem of the samples: how often, where for example, and what to do."""
    if not report.samples:
        return [NO_SAMPLE]
    return [problem.render(problem.advice) for problem in problems_of(report)]


def never_seen(report: AuditReport) -> list[str]:
    """A sentence about characters of the charset that never occur, if there are any."""
    unused = report.unused_characters
    if not report.samples or not unused:
        return []
    shown = unused if len(unused) <= 100 else unused[:100] + "..."
    return [
        f"Characters of the charset that never occur: {len(unused):,} of {len(report.encoder.ids):,}. The model cannot learn to "
        f"read them from these data: {shown!r}"
    ]


def render(reports: Sequence[AuditReport]) -> str:
    """The rules, the table, the problems of each source, and what to do about them, told once for all, in Markdown."""
    encoder, image_processor = reports[0].encoder, reports[0].image_processor
    rules = (
        f"Rules: a charset of {len(encoder.ids):,} characters, labels of up to {encoder.max_length} of them, images up to "
        f"{image_processor.max_ratio} times as wide as high."
    )
    words = (
        "Usable: without any fault. Repairable: usable once the characters outside the charset are left out of the labels. "
        "A sample with several faults counts in each; training counts the first that it meets. "
        "Clipped and vertical images are trained on."
    )
    everything = total(reports)
    unused = never_seen(everything)
    if len(reports) == 1:
        told = [*advise(everything), *unused]
    else:
        told = []
        for report in reports:
            own = [problem.render() for problem in problems_of(report)] if report.samples else [NO_SAMPLE]
            if own:
                told += [f"## {report.name}", *own]
        to_do = [f"{problem.title}: {problem.advice}" for problem in problems_of(everything)] + unused
        if to_do:
            told += ["## All together", *to_do]
    return "\n\n".join([rules, render_table(reports), words, *told])


def render_histograms(reports: Sequence[AuditReport]) -> str:
    """Two tables in Markdown: images by rounded aspect ratio, and labels by length, of each report."""
    max_ratio, max_length = reports[0].image_processor.max_ratio, reports[0].encoder.max_length
    ratios: list[Range] = [(str(ratio), ratio, ratio) for ratio in range(1, max_ratio + 1)]
    ratios.append((f"over {max_ratio}", max_ratio + 1, None))
    lengths: list[Range] = [("0", 0, 0)]
    for first in range(1, max_length + 1, LENGTHS_IN_A_ROW):
        last = min(first + LENGTHS_IN_A_ROW - 1, max_length)
        lengths.append((f"{first} to {last}" if first < last else str(first), first, last))
    lengths.append((f"over {max_length}", max_length + 1, None))
    return "\n\n".join(
        [
            "## Images by aspect ratio (width / height, rounded)",
            _histogram(reports, ratios, [report.aspect_ratios for report in reports]),
            "## Labels by number of characters",
            _histogram(reports, lengths, [report.label_lengths for report in reports]),
        ]
    )


def _histogram(
    reports: Sequence[AuditReport],
    rows: Sequence[Range],
    counters: Sequence[Counter[int]],
) -> str:
    names = [report.name.replace("|", "\\|") for report in reports]
    lines = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for title, first, last in rows:
        counts = [
            sum(count for value, count in counter.items() if value >= first and (last is None or value <= last))
            for counter in counters
        ]
        lines.append(f"| {title} | {' | '.join(f'{count:,}' for count in counts)} |")
    return "\n".join(lines)


def samples_told(count: int) -> str:
    """A number of samples, in words."""
    return f"{count:,} sample{'' if count == 1 else 's'}"


def _would_do(option: str, counts: Counter[int], limit: int) -> str:
    """What the option must be for nine in ten of the counts beyond the limit, since a single one may be enormous."""
    values, numbers = zip(*sorted(item for item in counts.items() if item[0] > limit), strict=True)
    so_far = list(accumulate(numbers))
    enough = values[bisect.bisect_left(so_far, 0.9 * so_far[-1])]
    if enough == values[-1]:
        return f"{option} {enough} would do for them"
    return f"{option} {enough} would do for nine in ten of them, {values[-1]} for all"


def _such_as(report: AuditReport, fault: Rejection) -> str:
    names = ", ".join(report.examples[fault][:3])
    return f" ({names}{', ...' if report.faults[fault] > 3 else ''})"


def _most_frequent(characters: Counter[str]) -> str:
    told = [f"{_describe(character)} {count:,} times" for character, count in islice(characters.items(), 10)]
    others = len(characters) - len(told)
    return ", ".join(told) + (f", and {others:,} others" if others else "")


def _describe(character: str) -> str:
    return f"{character!r} ({'space, ' if is_space(character) else ''}{code_point(character)})"


def is_space(character: str) -> bool:
    """Whether it is one of Unicode's spaces."""
    return unicodedata.category(character) == "Zs"


def percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 % is all."""
    return f"{part * 1000 // whole / 10:.1f}" if whole else "-"
