# SPDX-License-Identifier: Apache-2.0
"""The learning curve as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_learning_curve(history: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draws losses and word accuracies over the steps of a Trainer's log history; nothing, if nothing is logged yet."""
    losses = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    rates = [(entry["step"], entry["learning_rate"]) for entry in history if "learning_rate" in entry]
    evaluations = [entry for entry in history if "eval_word_accuracy" in entry]
    if not losses and not evaluations:
        return
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        left.plot(*zip(*losses, strict=True), color="tab:blue", label="training")
    if evaluations:
        left.plot(
            *zip(*((e["step"], e["eval_loss"]) for e in evaluations), strict=True),
            color="tab:orange",
            label="evaluation (CTC)",
        )
    left.set(title="Loss a sample", xlabel="step", yscale="log")
    left.legend(loc="lower left")
    if rates:
        schedule = left.twinx()
        schedule.plot(*zip(*rates, strict=True), color="lightgrey", linewidth=1)
        schedule.set_ylabel("learning rate", color="grey")
        schedule.tick_params(axis="y", colors="grey")
        left.set_zorder(schedule.get_zorder() + 1)  # the loss lies over the schedule
        left.patch.set_visible(False)
    mean = "eval_word_accuracy"
    names = {name: name[5:-14] for entry in evaluations for name in entry if name.endswith("_word_accuracy")}
    lines = {name: label for name, label in names.items() if name != mean}
    if len(lines) != 1:
        lines[mean] = "mean"
    for name, label in lines.items():
        points = [(entry["step"], 100 * entry[name]) for entry in evaluations if name in entry]
        if points:
            width = 2.5 if name == mean or len(lines) == 1 else 1
            right.plot(*zip(*points, strict=True), label=f"{label}  {points[-1][1]:.1f}", linewidth=width)
    right.set(title="Word accuracy, %", xlabel="step", ylim=(0, 100))
    if evaluations:
        right.legend(loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
