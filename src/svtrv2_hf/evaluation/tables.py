# SPDX-License-Identifier: Apache-2.0
"""Results of an evaluation as tables, next to the results that the authors of SVTRv2 published."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from ..reporting import markdown_table, plural
from .benchmarks import BENCHMARKS, PUBLISHED, PublishedResult, wilson_interval
from .metrics import rounded
from .protocols import PROTOCOLS, check_protocol


_OTHER = "Other datasets"
_SHARES = {  # columns of the CSV file, and their titles in Markdown
    "word_accuracy": "word accuracy",
    "case_sensitive_accuracy": "case-sensitive",
    "accuracy_with_punctuation": "with punctuation and spaces",
    "cer": "CER",
    "one_minus_ned": "1-NED",
}
_OTHER_SHARES = ("accuracy_without_emptied_labels", "accuracy_as_published")  # in the notes of the Markdown tables


def markdown(results: Mapping[str, Any]) -> str:
    """Convert the results of `svtrv2 evaluate` to Markdown tables, one for each group of benchmarks.

    Accuracies are in percent, with Wilson's 95 % interval. If the protocol ignores case, a column has the accuracy with case; if
    it ignores other characters, a column has the accuracy with all of them, except for case. The character error rate (CER) is
    shown if the results have it.

    Raises:
        ValueError: the results are of an unknown protocol.
    """
    for result in results["sets"].values():
        check_protocol(result["protocol"])
    model = [
        results["model"],
        *([results["file"]] if "file" in results else []),
        f"{results['parameters'] / 1e6:.2f} M parameters",
        *_max_ratios(results["sets"]),
    ]
    parts = [f"{', '.join(model)}; {results['date']}, commit {results['commit'] or 'unknown'}, {results['machine']}."]
    tables = [list(_rows(results, group, names)) for (group, _), names in _groups(results["sets"]).items()]
    training_data = list(dict.fromkeys(peer.training_data for peer in _peers([*chain.from_iterable(tables)])))
    for rows in tables:
        peers = _peers(rows)
        group, protocol = rows[0]["group"], rows[0]["protocol"]
        shares = _shown(rows, protocol)
        header = ["dataset", "samples", "word accuracy", "95 %", *(_SHARES[column] for column in shares)]
        header += [f"{peer.system} [{1 + training_data.index(peer.training_data)}]" for peer in peers]
        cells = [_cells(row, shares, peers) for row in rows]
        parts.append(f"**{group}** ({protocol}: {PROTOCOLS[protocol]})\n\n{markdown_table(header, cells)}")
    notes = [
        f"[{number}] Published by the authors, trained on {name}." for number, name in enumerate(training_data, 1)
    ]
    if notes := [*notes, *_all_notes(results)]:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _max_ratios(sets: Mapping[str, Any]) -> list[str]:
    """Describe the maximum aspect ratio, with the names of the datasets if it differs."""
    names: dict[int, list[str]] = {}
    for name, result in sets.items():
        names.setdefault(result["max_ratio"], []).append(name)
    return [
        f"max ratio {ratio}" + (f" on {' and '.join(some)}" if len(names) > 1 else "") for ratio, some in names.items()
    ]


def csv_rows(results: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Yield the same results as rows of a CSV file, with accuracies from 0 to 1; each row has the notes on its dataset."""
    rows = [row for (group, _), names in _groups(results["sets"]).items() for row in _rows(results, group, names)]
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


def _groups(sets: Mapping[str, Any]) -> dict[tuple[str, str], list[str]]:
    """Return the names of the datasets of each table, by group and protocol."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, result in sets.items():
        group = BENCHMARKS[name].group if name in BENCHMARKS else _OTHER
        groups.setdefault((group, result["protocol"]), []).append(name)
    return groups


def _shown(rows: Sequence[Mapping[str, Any]], protocol: str) -> list[str]:
    """Return the shares that a Markdown table shows in addition to the word accuracy."""
    hidden = {"word_accuracy"}
    if protocol == "exact":
        hidden.add("case_sensitive_accuracy")
    if protocol in ("exact", "case_insensitive"):
        hidden.add("accuracy_with_punctuation")
    if all(row.get("cer") is None for row in rows):  # results of earlier versions
        hidden.add("cer")
    return [column for column in _SHARES if column not in hidden]


def _rows(results: Mapping[str, Any], group: str, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one table: datasets, their groups of lengths, and averages.

    Each row has `set` (its name), `group`, `protocol`, the figures of `csv_rows` if it has samples, and `published`: the
    published accuracies in percent.
    """
    sets = results["sets"]
    for name in names:
        result = sets[name]
        benchmark = BENCHMARKS.get(name)
        common = {"group": group, "protocol": result["protocol"], "max_ratio": result["max_ratio"]}
        samples = result["samples"]
        with_punctuation = result["correct_by_protocol"]["case_insensitive"] / samples if samples else None
        yield {
            "set": name,
            **common,
            "labels": result.get("labels"),
            **_figures(result),
            "case_sensitive_accuracy": result["case_sensitive_accuracy"],
            "accuracy_with_punctuation": with_punctuation,
            "accuracy_without_emptied_labels": result.get("emptied_labels", {}).get("word_accuracy_without"),
            "accuracy_as_published": result.get("as_published", {}).get("word_accuracy"),
            "published": _published(name, result),
            "notes": " ".join(_notes(name, result)),
        }
        for part in benchmark.length_groups if benchmark else ():
            lengths = [figures for length, figures in result["by_length"].items() if int(length) in part.lengths]
            if samples := sum(figures["samples"] for figures in lengths):
                similarity = sum(figures["one_minus_ned"] * figures["samples"] for figures in lengths) / samples
                correct = sum(figures["correct"] for figures in lengths)
                merged = {"samples": samples, "correct": correct, "one_minus_ned": similarity}
                if all("edits" in figures for figures in lengths):
                    edits, characters = (sum(figures[name] for figures in lengths) for name in ("edits", "characters"))
                    merged["cer"] = edits / characters  # labels of these lengths have characters
                yield {"set": part.name, **common, **_figures(merged), "published": _published(part.name, result)}
    average = results["averages"].get(group)
    if average and len(average["sets"]) > 1:
        for kind in ("arithmetic", "weighted"):
            # Published averages are arithmetic means over all datasets of the group.
            comparable = kind == "arithmetic" and average["complete"]
            comparable = comparable and not any("unlike_published" in sets[name] for name in average["sets"])
            yield {
                "set": f"{kind} average" + ("" if average["complete"] else f" of {len(average['sets'])} datasets"),
                "group": group,
                "protocol": sets[names[0]]["protocol"],
                "word_accuracy": average[kind],
                "published": {
                    peer: peer.averages[group] for peer in PUBLISHED if comparable and group in peer.averages
                },
            }


def _figures(result: Mapping[str, Any]) -> dict[str, Any]:
    samples, correct = result["samples"], result["correct"]
    low, high = wilson_interval(correct, samples) if samples else (None, None)
    return {
        "samples": samples,
        "correct": correct,
        "word_accuracy": correct / samples if samples else None,
        "low_95": low,
        "high_95": high,
        "cer": result.get("cer"),
        "one_minus_ned": result["one_minus_ned"],
    }


def _published(row: str, result: Mapping[str, Any]) -> dict[PublishedResult, float]:
    """Return the published accuracies of a dataset or a part of it, if it was evaluated in the same way."""
    return {peer: peer.sets[row] for peer in PUBLISHED if row in peer.sets and "unlike_published" not in result}


def _peers(rows: Sequence[Mapping[str, Any]]) -> list[PublishedResult]:
    """Return the published systems that have a result in one of the rows."""
    return [peer for peer in PUBLISHED if any(peer in row["published"] for row in rows)]


def _cells(row: Mapping[str, Any], shares: Sequence[str], peers: Sequence[PublishedResult]) -> list[str]:
    interval = f"{100 * row['low_95']:.1f} to {100 * row['high_95']:.1f}" if row.get("low_95") is not None else ""
    return [
        row["set"],
        f"{row['samples']:,}" if "samples" in row else "",
        _percent(row.get("word_accuracy")),
        interval,
        *(_percent(row.get(column)) for column in shares),
        *(str(row["published"].get(peer, "")) for peer in peers),
    ]


def _all_notes(results: Mapping[str, Any]) -> Iterator[str]:
    sets = results["sets"]
    if labels := results.get("labels"):
        by_list = [name for name, result in sets.items() if "labels" in result]
        others = [name for name in sets if name not in by_list]
        yield f"Labels from {labels}: {', '.join(by_list)}." + (
            f" Datasets without that file, with their default labels: {', '.join(others)}." if others else ""
        )
    for name, result in sets.items():
        yield from _notes(name, result)
    yield from _unfinished(results).values()


def _notes(name: str, result: Mapping[str, Any]) -> Iterator[str]:
    if unlike := result.get("unlike_published"):
        yield f"{name} was {unlike}, so published results are not shown."
    if emptied := result.get("emptied_labels"):
        without = _percent(emptied["word_accuracy_without"]) or "undefined"
        empty = f" ({result['empty_labels']:,} without any character)" if result.get("empty_labels") else ""
        yield (
            f"{name}: {plural(emptied['samples'], 'label')} {'has' if emptied['samples'] == 1 else 'have'} no character that the "
            f"protocol compares{empty}; {emptied['correct']} of them count as correct, as in other evaluators; without them the "
            f"accuracy is {without}."
        )
    if kept := result.get("as_published"):
        yield (
            f"{name}: the authors of SVTRv2 exclude {plural(result['samples'] - kept['samples'], 'label')}, empty or longer than "
            f"{BENCHMARKS[name].max_label_length} characters; without them the accuracy is "
            f"{_percent(kept['word_accuracy']) or 'undefined'}."
        )
    if outside := result.get("outside_charset"):
        yield f"{name}: {plural(outside, 'label')} {'has' if outside == 1 else 'have'} characters outside the charset of the model."
    if outside := result.get("uncompared_outside_charset"):
        yield (
            f"{name}: {plural(outside, 'label')} {'has' if outside == 1 else 'have'} characters outside the charset of the model "
            "that the protocol ignores."
        )
    yield from result.get("warnings", [])


def _unfinished(results: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{name} was not evaluated: {why}" for name, why in results.get("unfinished", {}).items()}


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * rounded(share, 4):.2f}"
