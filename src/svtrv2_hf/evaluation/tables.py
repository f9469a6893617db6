# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as tables, beside what the authors of SVTRv2 published."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .benchmarks import BENCHMARKS, LENGTH_GROUPS, PublishedResult, published, wilson_interval


_OTHER = "Other sets"


def markdown(results: Mapping[str, Any]) -> str:
    """Results, as `svtrv2 evaluate` writes them, as Markdown tables: one for each group of benchmarks.

    Accuracies are in percent, with the 95 % interval of Wilson. Two columns are stricter than the protocol: in one, case must
    agree, too; in the other, every character but for its case, spaces and punctuation included.
    """
    parts = [
        f"{results['model']}, {results['parameters'] / 1e6:.2f} M parameters, max ratio {results['max_ratio']}; "
        f"{results['date']}, commit {results['commit'] or 'unknown'}, {results['machine']}."
    ]
    sets = results["sets"]
    training_data = list(dict.fromkeys(peer.training_data for peer in published(sets)))
    for group, names in _groups(sets).items():
        peers = published(names)
        header = ["set", "samples", "word accuracy", "95 %", "case counts", "signs and spaces count", "1-NED"]
        header += [f"{peer.system} [{1 + training_data.index(peer.training_data)}]" for peer in peers]
        rows = []
        for name in names:
            rows.append(_row(name, sets[name], peers))
            rows += [row + [""] * len(peers) for row in _by_length(name, sets[name])]
        average = results["averages"].get(group)
        if average and len(average["sets"]) > 1:
            for kind in ("arithmetic", "weighted"):
                label = f"{kind} average" + ("" if average["complete"] else f" of {len(average['sets'])} sets")
                row = [label, "", _percent(average[kind]), "", "", "", ""]
                # what is published is the arithmetic one, over all sets of the group
                known = [f"{peer.averages[group]:.2f}" if group in peer.averages else "" for peer in peers]
                rows.append(row + (known if kind == "arithmetic" and average["complete"] else [""] * len(peers)))
        protocol = sets[names[0]]["protocol"]
        compared = {"english": "letters and digits, case ignored", "chinese": "all but spaces, case ignored"}[protocol]
        parts.append(f"**{group}** ({compared})\n\n{_table(header, rows)}")
    notes = [
        f"[{number}] As published by the authors, trained on {name}." for number, name in enumerate(training_data, 1)
    ]
    if notes := [*notes, *_notes(sets)]:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def csv_rows(results: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The same as rows for a CSV file, with all figures in 0..1."""
    yield [
        *("set", "group", "protocol", "samples", "correct", "word_accuracy", "low_95", "high_95"),
        *("case_sensitive_accuracy", "one_minus_ned"),
    ]
    for group, names in _groups(results["sets"]).items():
        for name in names:
            one = results["sets"][name]
            interval = (
                [round(bound, 6) for bound in wilson_interval(one["correct"], one["samples"])]
                if one["samples"]
                else ["", ""]
            )
            yield [
                *(name, group, one["protocol"], one["samples"], one["correct"], one["word_accuracy"], *interval),
                *(one["case_sensitive_accuracy"], one["one_minus_ned"]),
            ]
    for group, average in results["averages"].items():
        for kind in ("arithmetic", "weighted"):
            yield [f"{group}: {kind} average of {len(average['sets'])}", group, "", "", "", round(average[kind], 6)]


def _groups(sets: Mapping[str, Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, one in sets.items():
        # Sets of one table are read by one protocol.
        other = _OTHER if one["protocol"] == "english" else f"{_OTHER}, {one['protocol']} protocol"
        groups.setdefault(BENCHMARKS[name].group if name in BENCHMARKS else other, []).append(name)
    return groups


def _row(name: str, one: Mapping[str, Any], peers: Sequence[PublishedResult]) -> list[str]:
    row = [
        name,
        f"{one['samples']:,}",
        _percent(one["word_accuracy"]),
        _interval(one),
        _percent(one["case_sensitive_accuracy"]),
        _percent(one["agreeing"]["but_for_case"] / one["samples"] if one["samples"] else None),
        _percent(one["one_minus_ned"]),
    ]
    return row + [f"{peer.sets[name]:.1f}" if name in peer.sets else "" for peer in peers]


def _by_length(name: str, one: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows for the groups of lengths, of the benchmark that is of long texts."""
    if name != "LTB":
        return
    for label, lengths in LENGTH_GROUPS.items():
        parts = [part for length, part in one["by_length"].items() if int(length) in lengths]
        if samples := sum(part["samples"] for part in parts):
            correct = sum(part["correct"] for part in parts)
            similarity = sum(part["one_minus_ned"] * part["samples"] for part in parts) / samples
            group = {"samples": samples, "correct": correct}
            yield [
                f"{name}, {label} characters",
                f"{samples:,}",
                _percent(correct / samples),
                _interval(group),
                "",
                "",
                _percent(similarity),
            ]


def _notes(sets: Mapping[str, Any]) -> Iterator[str]:
    for name, one in sets.items():
        if emptied := one.get("emptied_labels"):
            without = _percent(emptied["word_accuracy_without"]) or "nothing"
            yield (
                f"{name}: of {emptied['samples']} labels the protocol leaves nothing, and {emptied['correct']} of them count as "
                f"read, as is usual; without them the accuracy is {without}."
            )
        if outside := one.get("outside_charset"):
            yield f"{name}: {outside} labels have characters that the model does not know."
        yield from one.get("warnings", [])


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def _interval(one: Mapping[str, Any]) -> str:
    if not one["samples"]:
        return ""
    low, high = wilson_interval(one["correct"], one["samples"])
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in cells
    ]
    rule = (
        "|"
        + "|".join(
            "-" * (width + 2) if number == 0 else "-" * (width + 1) + ":" for number, width in enumerate(widths)
        )
        + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])
