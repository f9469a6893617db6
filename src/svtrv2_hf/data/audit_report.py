# SPDX-License-Identifier: Apache-2.0
"""Audit reports as Markdown, with advice on each problem, and as a figure."""

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from ..charsets import code_point
from ..pipeline_svtrv2 import VERTICAL_RATIO
from ..reporting import first, markdown_table, percent, plural
from .audit import MAX_EXAMPLES, AuditReport
from .labels import Rejection, Remark


NO_SAMPLES = "The source has no samples."
LONGEST_BAR = 40  # characters, in the chart of label lengths without a limit
BLUE, ORANGE, RED, GRAY = "#4c78a8", "#f58518", "#d64f4f", "#a5a9ad"

# Unusual labels, and advice.
_REMARKS = {
    Remark.DECOMPOSED: (
        "not in Unicode's NFC",
        "Accents are separate characters; --normalize nfc composes them in charset, labels and scoring.",
    ),
    Remark.COMPATIBLE: (
        "with full-width letters or digits, ligatures or similar variants",
        "Unless the model must distinguish them, replace them by --normalize nfkc in charset, labels and scoring.",
    ),
    Remark.CONTROL: ("with control characters", "Images do not show them; remove them from the labels."),
    Remark.INVISIBLE: (
        "with invisible characters (byte order marks, zero-width characters, direction marks)",
        "Images do not show them; remove them, unless the script needs them.",
    ),
    Remark.PADDED: (
        "that begin or end with a space, or consist of spaces",
        "Images do not show such spaces; strip the labels.",
    ),
    Remark.SPACE: (
        "with unusual spaces (no-break, ideographic, thin)",
        "They look like U+0020; replace them, for example by --normalize nfkc.",
    ),
    Remark.ESCAPE: (
        "with backslash escapes",
        "Unless the images show the backslash, write the escaped characters themselves.",
    ),
    Remark.ENTITY: ("with HTML entities", "Unless the images show them literally, write the characters themselves."),
}


class Problem(NamedTuple):
    """A problem of some samples; `details` follow the number of samples, `errors` are listed."""

    samples: int
    title: str
    details: str
    advice: str
    errors: Sequence[str] = ()

    def render(self, advice: bool = True) -> str:
        """Return the problem in Markdown, with or without the advice."""
        sentence = f"{self.title}: {plural(self.samples, 'sample')}{self.details}."
        sentence += f" {self.advice}" if advice else ""
        return "\n".join([sentence, "", *(f"- {error}" for error in self.errors)]) if self.errors else sentence


def total(reports: Sequence[AuditReport]) -> AuditReport:
    """Return the sum of reports."""
    everything = reports[0].empty("all")
    for report in reports:
        everything.update(report)
    return everything


def render_table(reports: Sequence[AuditReport]) -> str:
    """Return a Markdown table with a row per report and, for several reports, their sum."""
    header = ["source", "samples", "usable", "usable %", "repairable"]
    header += [*(str(problem).replace("_", " ") for problem in Rejection), "compressed", "vertical"]
    rows = []
    for report in [*reports, total(reports)] if len(reports) > 1 else reports:
        counts = [
            report.repairable,
            *(report.counts[problem] for problem in Rejection),
            report.compressed,
            report.vertical,
        ]
        usable = [f"{report.usable:,}", percent(report.usable, report.samples)]
        rows.append([report.name, f"{report.samples:,}", *usable, *(f"{count:,}" for count in counts)])
    return markdown_table(header, rows)


def find_problems(report: AuditReport) -> list[Problem]:
    """Return the problems of the samples of a report."""
    encoder, processor, counts = report.encoder, report.image_processor, report.counts
    empty, unknown, too_long, unalignable, unreadable = Rejection
    policies = {
        "error": "Training would stop. Add them to the charset (--charset FILE; `svtrv2 charset` writes it), or choose --unknown-characters drop_sample "
        "to skip these samples, or drop_character to remove the characters from the labels, which makes "
        f"{report.repairable:,} of the samples usable.",
        "drop_sample": "Training skips these samples. Add the characters to the charset (--charset FILE) to keep all of "
        f"them; --unknown-characters drop_character would keep {report.repairable:,}, without the characters.",
        "drop_character": f"Training removes the characters, which makes {report.repairable:,} of the samples usable. Add "
        "them to the charset (--charset FILE) to train the model on them.",
    }
    names = {problem: f" ({first([name for name, _ in report.examples[problem]])})" for problem in Rejection}
    long = encoder.max_length or max(report.label_lengths, default=0)  # without a limit, none is too long
    longer = _sufficient("--max-label-length", report.label_lengths, long)
    wide, wider = processor.max_ratio, _sufficient("--max-ratio", report.aspect_ratios, processor.max_ratio)
    frames = (
        f"more CTC frames than their images have (one per {processor.pixels_per_frame} pixels of the resized width)"
    )
    narrow = f"correct their labels or crops, or raise --max-ratio if the image is wider than {wide} times its height"
    errors = [error for _, error in sorted(report.unreadable)[:MAX_EXAMPLES]]
    if (more := len(report.unreadable) - len(errors)) > 0:
        errors.append(f"and {more:,} more; --output FOLDER writes all their names.")
    characters = f", {_most_frequent(report.unknown_characters)}"
    problems = [
        Problem(counts[unknown], "Characters outside the charset", characters, policies[encoder.unknown_characters]),
        Problem(counts[empty], "Empty labels", names[empty], "Training skips them; correct or remove them."),
        Problem(
            counts[too_long],
            f"Labels of more than {long} characters",
            names[too_long],
            f"Training skips them; {longer}.",
        ),
        Problem(
            counts[unalignable], f"Labels that need {frames}", names[unalignable], f"Training skips them; {narrow}."
        ),
        Problem(counts[unreadable], "Unreadable images", "", "Replace or remove these files.", errors),
        Problem(
            report.compressed, f"Images wider than {wide} times their height", "", f"They are compressed; {wider}."
        ),
        Problem(
            report.vertical,
            f"Images taller than {VERTICAL_RATIO:g} times their width, of several characters",
            "",
            "If their text is vertical, rotate them by 90 degrees, because the model reads from left to right.",
        ),
    ]
    for remark, (title, advice) in _REMARKS.items():
        quote = ascii if remark == Remark.DECOMPOSED else repr  # ascii shows accents as separate characters
        labels = first([f"{quote(label)} ({name})" for name, label in report.examples[remark]])
        problems.append(Problem(counts[remark], f"Labels {title}", f", such as {labels}", advice))
    return [problem for problem in problems if problem.samples]


def _sufficient(option: str, counts: Counter[int], limit: int) -> str:
    """Return the value of an option that suffices for 90 % of the samples beyond the limit: outliers may be enormous."""
    beyond = sorted(item for item in counts.items() if item[0] > limit) or [(limit, 0)]
    values, numbers = zip(*beyond, strict=True)
    so_far = list(accumulate(numbers))
    enough = values[bisect_left(so_far, 0.9 * so_far[-1])]
    share = "all of them" if enough == values[-1] else f"90 % of them, {values[-1]} for all"
    return f"{option} {enough} suffices for {share}"


def _most_frequent(characters: Counter[str]) -> str:
    listed = [
        f"{c!r} ({'space, ' if unicodedata.category(c) == 'Zs' else ''}{code_point(c)}) {plural(count, 'time')}"
        for c, count in islice(characters.items(), 10)
    ]
    others = len(characters) - len(listed)
    return ", ".join(listed) + (f", and {others:,} others" if others else "")


def advise(report: AuditReport) -> list[str]:
    """Return a paragraph per problem: number of samples, examples, and advice."""
    return [problem.render() for problem in find_problems(report)] if report.samples else [NO_SAMPLES]


def render(reports: Sequence[AuditReport]) -> str:
    """Return rules, table, problems of each source and, once, the advice, in Markdown."""
    encoder, everything = reports[0].encoder, total(reports)
    length = "any length" if encoder.max_length is None else f"up to {encoder.max_length} of them"
    parts = [
        f"Rules: a charset of {plural(len(encoder.ids), 'character')}, labels of {length}, "
        f"images up to {reports[0].image_processor.max_ratio} times as wide as high.",
        render_table(reports),
        "Usable: without problems. Repairable: usable once the characters outside the charset are removed from the labels. "
        "A sample with several problems counts under each; training counts the first one. Compressed and vertical images are "
        "used for training.",
    ]
    advice = advise(everything)
    if len(reports) > 1:
        for report in reports:
            problems = [problem.render(advice=False) for problem in find_problems(report)]
            if problems or not report.samples:
                parts += [f"## {report.name}", *(problems or [NO_SAMPLES])]
        advice = [f"{problem.title}: {problem.advice}" for problem in find_problems(everything)]
    if everything.samples and (unused := everything.unused_characters):
        shown = unused if len(unused) <= 100 else unused[:100] + "..."
        advice.append(
            f"Characters of the charset that never occur: {len(unused):,} of {len(encoder.ids):,}. The model cannot learn "
            f"them from these data: {shown!r}"
        )
    if len(reports) > 1 and advice:
        parts.append("## All sources")
    return "\n\n".join(parts + advice)


def plot(reports: Sequence[AuditReport], path: str | Path) -> None:
    """Save a figure with a row per report: aspect ratios, label lengths, and problems."""
    height = 3.3 * len(reports)  # inches
    dpi = min(100, 60_000 / height)  # matplotlib renders at most 65,535 pixels
    figure = Figure(figsize=(17, height), dpi=dpi, layout="constrained")
    for part, report in zip(figure.subfigures(len(reports), 1, squeeze=False)[:, 0], reports, strict=True):
        title = f"{report.name}: {plural(report.samples, 'sample')}, {percent(report.usable, report.samples)} % usable"
        part.suptitle(_supported(title), x=0.01, ha="left", fontweight="bold", parse_math=False)
        ratios, lengths, bars = part.subplots(1, 3, width_ratios=(3, 4, 2))
        ratios.set_title("Images by aspect ratio, and size in training")
        ticks = _plot_histogram(ratios, report.aspect_ratios, range(1, report.image_processor.max_ratio + 1))
        sizes = [f"{tick}:  {' x '.join(map(str, report.size_of(tick)))}" for tick in ticks]
        ratios.set_xticks(ticks, sizes, rotation=90)
        lengths.set_title("Labels by number of characters")
        _plot_histogram(lengths, report.label_lengths, range((report.encoder.max_length or LONGEST_BAR) + 1))
        counts = {str(problem).replace("_", " "): report.counts[problem] for problem in Rejection}
        colors = [RED] * len(counts) + [GRAY] * 2
        counts |= {"compressed": report.compressed, "vertical": report.vertical}
        bars.set_title("Problems and (gray) unusual images")
        shares = [f"{n:,}  ({100 * n / report.samples:.2f} %)" if n else "0" for n in counts.values()]
        bars.bar_label(bars.barh(list(counts), list(counts.values()), color=colors), shares, padding=3)
        bars.invert_yaxis()
        bars.set_xlim(0, max(1, *counts.values()) * 1.5)
        bars.set_xticks([])
    figure.savefig(path)


def _plot_histogram(axes: Axes, counts: Counter[int], places: range) -> list[int]:
    """Plot counts with a last bar for all larger values, and return the ticks that fit below the others."""
    beyond = sum(count for value, count in counts.items() if value >= places.stop)
    axes.bar(places, [counts[place] for place in places], color=BLUE)
    axes.bar_label(axes.bar(places.stop, beyond, color=ORANGE), [f"> {places[-1]}:\n{beyond:,}"])
    axes.margins(y=0.2)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ticks = list(places[:: -(-len(places) // 13)])
    axes.set_xticks(ticks)
    return ticks


def _supported(text: str) -> str:
    """Replace characters that are not in the font with their code points."""
    font = get_font(findfont(FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else code_point(c) for c in text)
