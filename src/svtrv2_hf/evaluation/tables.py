# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as tables, beside what the authors of SVTRv2 published."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .benchmarks import BENCHMARKS, PUBLISHED, PublishedResult, wilson_interval
from .metrics import rounded


_OTHER = "Other sets"
_SHARES = {  # columns of the CSV file, and what they are called in Markdown
    "word_accuracy": "word accuracy",
    "case_sensitive_accuracy": "case counts",
    "accuracy_with_signs_and_spaces": "signs and spaces count",
    "one_minus_ned": "1-NED",
}
_OTHER_SHARES = ("accuracy_without_emptied_labels", "accuracy_as_published")  # for Markdown these are in the notes


def markdown(results: Mapping[str, Any]) -> str:
    """Results, as `svtrv2 evaluate` writes them, as Markdown tables: one for each group of benchmarks.

    Accuracies are in percent, with the 95 % interval of Wilson. Two columns are stricter than the protocol: in one, case must
    agree, too; in the other, every character but for its case, spaces and punctuation included.
    """
    model = [results["model"], f"{results['parameters'] / 1e6:.2f} M parameters", *_max_ratios(results["sets"])]
    parts = [f"{', '.join(model)}; {results['date']}, commit {results['commit'] or 'unknown'}, {results['machine']}."]
    tables = {group: list(_rows(results, group, names)) for group, names in _groups(results["sets"]).items()}
    training_data = list(dict.fromkeys(peer.training_data for peer in _peers([*chain.from_iterable(tables.values())])))
    for group, rows in tables.items():
        peers = _peers(rows)
        header = ["set", "samples", "word accuracy", "95 %", *list(_SHARES.values())[1:]]
        header += [f"{peer.system} [{1 + training_data.index(peer.training_data)}]" for peer in peers]
        compared = {"english": "letters and digits, case ignored", "chinese": "all but spaces, case ignored"}
        cells = [_cells(row, peers) for row in rows]
        parts.append(f"**{group}** ({compared[rows[0]['protocol']]})\n\n{_table(header, cells)}")
    notes = [
        f"[{number}] As published by the authors, trained on {name}." for number, name in enumerate(training_data, 1)
    ]
    if notes := [*notes, *_all_notes(results)]:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _max_ratios(sets: Mapping[str, Any]) -> list[str]:
    """In words, and of which sets if they differ."""
    names: dict[int, list[str]] = {}
    for name, one in sets.items():
        names.setdefault(one["max_ratio"], []).append(name)
    return [
        f"max ratio {ratio}" + (f" on {' and '.join(some)}" if len(names) > 1 else "") for ratio, some in names.items()
    ]


def csv_rows(results: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The same as rows for a CSV file, with all shares in 0..1; each row has the notes on its set."""
    rows = [row for group, names in _groups(results["sets"]).items() for row in _rows(results, group, names)]
    peers = _peers(rows)
    rows += [{"set": name, "published": {}, "notes": why} for name, why in _unfinished(results).items()]
    columns = ["set", "group", "protocol", "max_ratio", "labels", "samples", "correct"]
    columns += ["word_accuracy", "low_95", "high_95", *list(_SHARES)[1:], *_OTHER_SHARES]
    yield [*columns, *(f"{peer.system} ({peer.training_data})" for peer in peers), "notes"]
    for row in rows:
        figures = [row.get(column) for column in columns]
        figures += [None if peer not in row["published"] else row["published"][peer] / 100 for peer in peers]
        shown = [rounded(figure, 6) if isinstance(figure, float) else figure for figure in figures]
        yield ["" if figure is None else figure for figure in [*shown, row.get("notes")]]


def _groups(sets: Mapping[str, Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, one in sets.items():
        # Sets of one table are read by one protocol.
        other = _OTHER if one["protocol"] == "english" else f"{_OTHER}, {one['protocol']} protocol"
        groups.setdefault(BENCHMARKS[name].group if name in BENCHMARKS else other, []).append(name)
    return groups


def _rows(results: Mapping[str, Any], group: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one table: sets, their groups of lengths, and averages.

    Each has `set`, its name; `group` and `protocol`; where there are samples the counts and shares of `csv_rows`; and
    `published`, in percent by who published it.
    """
    sets = results["sets"]
    for name in names:
        one = sets[name]
        benchmark = BENCHMARKS.get(name)
        common = {"group": group, "protocol": one["protocol"], "max_ratio": one["max_ratio"]}
        with_signs = one["agreeing"]["but_for_case"] / one["samples"] if one["samples"] else None
        yield {
            "set": name,
            **common,
            "labels": one.get("labels"),
            **_figures(one),
            "case_sensitive_accuracy": one["case_sensitive_accuracy"],
            "accuracy_with_signs_and_spaces": with_signs,
            "accuracy_without_emptied_labels": one.get("emptied_labels", {}).get("word_accuracy_without"),
            "accuracy_as_published": one.get("as_published", {}).get("word_accuracy"),
            "published": _published(name, one),
            "notes": " ".join(_notes(name, one)),
        }
        for part in benchmark.length_groups if benchmark else ():
            found = [figures for length, figures in one["by_length"].items() if int(length) in part.lengths]
            if samples := sum(figures["samples"] for figures in found):
                similarity = sum(figures["one_minus_ned"] * figures["samples"] for figures in found) / samples
                correct = sum(figures["correct"] for figures in found)
                figures = _figures({"samples": samples, "correct": correct, "one_minus_ned": similarity})
                yield {"set": part.name, **common, **figures, "published": _published(part.name, one)}
    average = results["averages"].get(group)
    if average and len(average["sets"]) > 1:
        for kind in ("arithmetic", "weighted"):
            # What is published is the arithmetic one, over all sets of the group.
            comparable = kind == "arithmetic" and average["complete"]
            comparable = comparable and not any("unlike_published" in sets[name] for name in average["sets"])
            yield {
                "set": f"{kind} average" + ("" if average["complete"] else f" of {len(average['sets'])} sets"),
                "group": group,
                "protocol": sets[names[0]]["protocol"],
                "word_accuracy": average[kind],
                "published": {
                    peer: peer.averages[group] for peer in PUBLISHED if comparable and group in peer.averages
                },
            }


def _figures(one: Mapping[str, Any]) -> dict[str, Any]:
    samples, correct = one["samples"], one["correct"]
    low, high = wilson_interval(correct, samples) if samples else (None, None)
    return {
        "samples": samples,
        "correct": correct,
        "word_accuracy": correct / samples if samples else None,
        "low_95": low,
        "high_95": high,
        "one_minus_ned": one["one_minus_ned"],
    }


def _published(row: str, one: Mapping[str, Any]) -> dict[PublishedResult, float]:
    """What is published of a set, or a part of one, that was read as in the publication."""
    return {peer: peer.sets[row] for peer in PUBLISHED if row in peer.sets and "unlike_published" not in one}


def _peers(rows: Sequence[Mapping[str, Any]]) -> list[PublishedResult]:
    """Those who published something that stands beside one of the rows."""
    return [peer for peer in PUBLISHED if any(peer in row["published"] for row in rows)]


def _cells(row: Mapping[str, Any], peers: Sequence[PublishedResult]) -> list[str]:
    interval = f"{100 * row['low_95']:.1f} to {100 * row['high_95']:.1f}" if row.get("low_95") is not None else ""
    accuracy, *stricter = (_percent(row.get(column)) for column in _SHARES)
    return [
        row["set"],
        f"{row['samples']:,}" if "samples" in row else "",
        accuracy,
        interval,
        *stricter,
        *(str(row["published"].get(peer, "")) for peer in peers),
    ]


def _all_notes(results: Mapping[str, Any]) -> Iterator[str]:
    sets = results["sets"]
    if labels := results.get("labels"):
        by_list = [name for name, one in sets.items() if "labels" in one]
        others = [name for name in sets if name not in by_list]
        yield f"Labels of {labels}: {', '.join(by_list)}." + (
            f" Without that list, by their usual labels: {', '.join(others)}." if others else ""
        )
    for name, one in sets.items():
        yield from _notes(name, one)
    yield from _unfinished(results).values()


def _notes(name: str, one: Mapping[str, Any]) -> Iterator[str]:
    if unlike := one.get("unlike_published"):
        yield f"{name} was {unlike}: no published figure stands beside it."
    if emptied := one.get("emptied_labels"):
        without = _percent(emptied["word_accuracy_without"]) or "nothing"
        empty = f" (empty from the first: {one['empty_labels']:,})" if one.get("empty_labels") else ""
        yield (
            f"{name}: of {_labels(emptied['samples'])} the protocol leaves nothing{empty}, and {emptied['correct']} of them count as "
            f"read, as is usual; without them the accuracy is {without}."
        )
    if kept := one.get("as_published"):
        yield (
            f"{name}: the authors of SVTRv2 leave out {_labels(one['samples'] - kept['samples'])} as empty or longer than "
            f"{BENCHMARKS[name].max_label_length} characters; without them the accuracy is "
            f"{_percent(kept['word_accuracy']) or 'nothing'}."
        )
    if outside := one.get("outside_charset"):
        yield f"{name}: {_labels(outside)} {'has' if outside == 1 else 'have'} characters that the model does not know."
    if outside := one.get("uncompared_outside_charset"):
        has = "has" if outside == 1 else "have"
        yield f"{name}: {_labels(outside)} {has} characters that the model does not know and the protocol leaves out."
    yield from one.get("warnings", [])


def _unfinished(results: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{name} was not evaluated: {why}" for name, why in results.get("unfinished", {}).items()}


def _labels(number: int) -> str:
    return f"{number} label{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * rounded(share, 4):.2f}"


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
