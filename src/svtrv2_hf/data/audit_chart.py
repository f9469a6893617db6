# SPDX-License-Identifier: Apache-2.0
"""Audits as a picture."""

import unicodedata
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from .audit import AuditReport, code_point
from .audit_report import is_space, percent, samples_told
from .labels import Rejection


BLUE, ORANGE, RED, GREY = "#4c78a8", "#f58518", "#d64f4f", "#a5a9ad"
CHARTS = ((0.9, 3.7), (5.5, 4.4), (11.1, 1.9), (14.3, 2.5))  # left edge and width in inches; labels stand before them
CHART_BOTTOM, CHART_HEIGHT, LINE_HEIGHT, LINE_WIDTH = 0.75, 1.95, 3.3, 17.0


def plot(reports: Sequence[AuditReport], path: str | Path) -> None:
    """Draws a line of charts for each report: aspect ratios, label lengths, characters outside the charset, faults."""
    height = LINE_HEIGHT * len(reports)
    figure = Figure(figsize=(LINE_WIDTH, height), dpi=min(100, 60_000 / height))  # Agg draws up to 65535 pixels
    for number, report in enumerate(reports):
        bottom = height - LINE_HEIGHT * (number + 1)
        title = f"{report.name}: {samples_told(report.samples)}, {percent(report.usable, report.samples)} % usable"
        place = (0.2 / LINE_WIDTH, (bottom + LINE_HEIGHT - 0.25) / height)
        figure.text(*place, _drawable(title), fontsize=12, fontweight="bold", va="center", parse_math=False)
        draws = (_plot_aspect_ratios, _plot_label_lengths, _plot_unknown_characters, _plot_faults)
        for (left, width), draw in zip(CHARTS, draws, strict=True):
            axes = figure.add_axes(
                (left / LINE_WIDTH, (bottom + CHART_BOTTOM) / height, width / LINE_WIDTH, CHART_HEIGHT / height)
            )
            draw(report, axes)
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
            axes.set_axisbelow(True)
    figure.savefig(path)


def _plot_aspect_ratios(report: AuditReport, axes: Axes) -> None:
    limit = report.image_processor.max_ratio
    axes.set_title("Images by aspect ratio, and size in training (height x width)", fontsize=9)
    counts = [report.aspect_ratios[ratio] for ratio in range(1, limit + 1)]
    _plot_histogram(axes, range(1, limit + 1), counts, report.clipped)
    sizes = {ratio: "x".join(map(str, report.size_of(ratio))) for ratio in axes.get_xticks()[:-1]}
    for place, size in [*sizes.items(), (limit + 1, "clipped")]:
        axes.annotate(
            size,
            (place, 0),
            xytext=(0, -18),
            textcoords="offset points",
            annotation_clip=False,
            rotation=90,
            ha="center",
            va="top",
            fontsize=7,
            color="#6b6f73",
        )


def _plot_label_lengths(report: AuditReport, axes: Axes) -> None:
    limit = report.encoder.max_length
    counts = [report.label_lengths[length] for length in range(limit + 1)]
    longer = sum(count for length, count in report.label_lengths.items() if length > limit)
    axes.set_title("Labels by number of characters", fontsize=9)
    _plot_histogram(axes, range(limit + 1), counts, longer)


def _plot_histogram(axes: Axes, places: range, counts: Sequence[int], beyond: int) -> None:
    axes.bar(places, counts, color=BLUE, width=0.85)
    bar = axes.bar(places.stop, beyond, color=ORANGE, width=0.85)
    axes.set_xlim(places.start - 0.7, places.stop + 0.7)
    axes.set_ylim(0, max(1, *counts, beyond) * 1.12)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    step = -(-len(places) // 13)  # no more labels than there is room for
    ticks = [place for place in places[::step] if step == 1 or place < places.stop - 1]
    axes.set_xticks([*ticks, places.stop], [*map(str, ticks), f">{places.stop - 1}"])
    axes.grid(axis="y", color="#e3e5e7", linewidth=0.7)
    if beyond:
        axes.bar_label(bar, [f"{beyond:,}"], padding=2, fontsize=8, color=ORANGE)


def _plot_unknown_characters(report: AuditReport, axes: Axes) -> None:
    most_frequent = list(islice(report.unknown_characters.items(), 12))
    others = len(report.unknown_characters) - len(most_frequent)
    axes.set_title("Characters outside the charset" + (f" (and {others:,} others)" if others else ""), fontsize=9)
    if most_frequent:
        labels = [_label(character) for character, _ in most_frequent]
        counts = [count for _, count in most_frequent]
        _plot_bars(axes, labels, counts, [f"{count:,}" for count in counts], [ORANGE] * len(labels))
    else:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=GREY)
        axes.set_xticks([])
        axes.set_yticks([])


def _plot_faults(report: AuditReport, axes: Axes) -> None:
    counts = {str(fault).replace("_", " "): report.faults[fault] for fault in Rejection}
    colors = [RED] * len(counts) + [GREY] * 2
    counts |= {"clipped": report.clipped, "vertical": report.vertical}
    axes.set_title("Faults, and (grey) what to look at", fontsize=9)
    shares = {name: 100 * count / max(1, report.samples) for name, count in counts.items()}
    told = [
        f"{count:,}  ({shares[name]:.{1 if shares[name] > 1 else 2}f} %)" if count else "0"
        for name, count in counts.items()
    ]
    _plot_bars(axes, list(counts), list(counts.values()), told, colors)


def _plot_bars(
    axes: Axes, labels: Sequence[str], counts: Sequence[int], told: Sequence[str], colors: Sequence[str]
) -> None:
    bars = axes.barh(range(len(labels)), counts, color=colors, height=0.75)
    axes.bar_label(bars, told, padding=3, fontsize=8)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(len(labels), 7) - 0.5, -0.5)  # a few bars need not fill the chart
    axes.set_xlim(0, max(1, *counts) * 1.65)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)


def _label(character: str) -> str:
    """A character with its code point; that alone where it cannot be seen by itself, or the font lacks it."""
    if is_space(character):
        return f"space  {code_point(character)}"
    visible = unicodedata.category(character)[0] in "LNPS" and _drawable(character) == character
    return f"{character}  {code_point(character)}" if visible else code_point(character)


def _drawable(text: str) -> str:
    """With code points for what the font lacks."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else code_point(c) for c in text)
