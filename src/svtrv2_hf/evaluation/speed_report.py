# SPDX-License-Identifier: Apache-2.0
"""The figures of `svtrv2 benchmark` as Markdown."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from ..reporting import markdown_table
from .benchmarks import PUBLISHED


PUBLISHED_DEVICE = "one NVIDIA 1080Ti"


def render(results: Mapping[str, Any]) -> str:
    """Convert the results of [`svtrv2_hf.evaluation.speed.benchmark`] to Markdown."""
    parts = [
        f"SVTRv2 with hidden sizes {', '.join(map(str, results['hidden_sizes']))} and {results['classes']} classes: "
        f"{results['parameters'] / 1e6:.3f} M parameters{_file(results)}. {_place(results)}, {results['machine']}, "
        f"torch {results['versions']['torch']}; medians over {results['rounds']} rounds.",
        "Forward pass only. One multiply-add is two FLOPs. MiB: peak memory in addition to the weights.",
        _forward_table(results),
    ]
    if results["search"]:
        parts.append(_search_note(results))
    if "latency_of_set" not in results:
        return "\n\n".join([*parts, "The pipeline was not measured: no images were given."])
    latency = results["latency_of_set"]
    return "\n\n".join(
        [
            *parts,
            f"Latency as in the paper: mean over {latency['images']:,} prepared images, one at a time. The published figures "
            "are from another device and cannot be compared with this one:",
            markdown_table(
                ["model", "device", "ms per image"],
                [["this model", _place(results), f"{latency['mean_ms']:.2f}"], *_published_latency()],
                align="llr",
            ),
            "From image files to texts, with the pipeline:",
            _pipeline_table(results),
        ]
    )


def _forward_table(results: Mapping[str, Any]) -> str:
    counted = {(height, width): number for height, width, number in results["multiply_adds"]}
    batch_sizes = results["batch_sizes"]
    by_size: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in results["forward"]:
        by_size[row["height"], row["width"]][row["batch_size"]] = row
    cells = []
    for (height, width), rows in by_size.items():
        first, last = rows[batch_sizes[0]], rows[batch_sizes[-1]]
        best = max(rows.values(), key=lambda row: row["images_per_second"])
        cells.append(
            [
                f"{height} x {width}",
                f"{counted[height, width] / 1e9:.3f}",
                f"{first['median_ms']:.2f}",
                f"{first['p90_ms']:.2f}",
                *(f"{rows[batch_size]['images_per_second']:,.0f}" for batch_size in batch_sizes),
                _mebibytes(last),
                best["batch_size"],
                f"{best['images_per_second']:,.0f}",
                _mebibytes(best),
            ]
        )
    header = ["image", "G multiply-adds", f"ms at batch {batch_sizes[0]}", "90th percentile"]
    header += [f"images/s at {batch_size}" for batch_size in batch_sizes]
    header += [f"MiB at {batch_sizes[-1]}", "best batch", "images/s", "MiB"]
    return markdown_table(header, cells)


def _pipeline_table(results: Mapping[str, Any]) -> str:
    cells = [
        [
            row["batch_size"],
            f"{row['images_per_second']:,.0f}",
            f"{1000 / row['images_per_second']:.2f}",
            *(f"{row['shares'][step]:.0%}" for step in ("prepare", "forward", "decode", "rest")),
        ]
        for row in results["pipeline"]
    ]
    header = ["batch", "images/s", "ms per image", "open and resize", "forward pass", "decode", "pipeline overhead"]
    return markdown_table(header, cells, align="r")


def _place(results: Mapping[str, Any]) -> str:
    precision = results["dtype"] + (" with convolutions in TF32" if results["tf32"] else "")
    return f"{precision} on {results['device']}, {results['threads']} threads"


def _file(results: Mapping[str, Any]) -> str:
    return f", exported to {results['file']}" if "file" in results else ""


def _mebibytes(row: Mapping[str, Any]) -> str | None:
    return None if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"


def _search_note(results: Mapping[str, Any]) -> str:
    """Describe how the best batch sizes were found, and which of them may not be the best."""
    text = "The best batch size was found by doubling it from 1 until two doublings in a row brought no improvement."
    for reason, words in (("memory", "Memory ran out"), ("limit", "The limit was reached")):
        ended = [search for search in results["search"] if search["ended"] == reason]
        if ended:
            sizes = ", ".join(f"{search['of']} (after {search['images_per_second'][-1][0]})" for search in ended)
            text += f" {words} before that: {sizes}."
    return text


def _published_latency() -> Iterator[list[str]]:
    latencies = {peer.system: peer.latency_ms for peer in PUBLISHED if peer.latency_ms is not None}
    for system, milliseconds in latencies.items():
        yield [f"{system}, published", PUBLISHED_DEVICE, f"{milliseconds:.1f}"]
