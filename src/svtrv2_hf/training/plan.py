# SPDX-License-Identifier: Apache-2.0
"""The plan of a training run, printed before its first step: data, steps, evaluations and output folder."""

import math
from collections.abc import Sequence
from itertools import islice

from transformers import TrainingArguments

from ..data.batches import TrainingBatches
from ..data.sample import Source
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..reporting import markdown_table, plural
from .arguments import DataAndModelArguments
from .probe import SourceCheck


MIN_STEPS = 100  # fewer steps need --max_steps, if an epoch has fewer than MIN_STEPS_PER_EPOCH
MIN_STEPS_PER_EPOCH = 8
COMPARED = 1_000  # labels that decide whether two sources are the same


def images_per_step(arguments: TrainingArguments) -> int:
    """Return the number of images of all processes in a step, if none is wider than 128 pixels."""
    batches = arguments.world_size * arguments.gradient_accumulation_steps
    return arguments.per_device_train_batch_size * batches


def steps_per_epoch(arguments: TrainingArguments, batches: TrainingBatches) -> float:
    """Return the number of steps in an epoch, estimated from the sizes of up to 10,000 images.

    Raises:
        ValueError: the number of samples is unknown, or none of them can be trained on.
    """
    return batches.batches_per_epoch() / (arguments.world_size * arguments.gradient_accumulation_steps)


def number_of_steps(
    chosen: DataAndModelArguments, arguments: TrainingArguments, batches: TrainingBatches, in_epoch: float
) -> int:
    """Return the number of steps that `--num_train_epochs` and `--min_steps` need, with `in_epoch` steps per epoch.

    Raises:
        ValueError: the batches are so large for the data that there would be few steps.
    """
    epochs = arguments.num_train_epochs
    steps = max(chosen.min_steps, math.ceil(epochs * in_epoch))
    if steps < MIN_STEPS and in_epoch < MIN_STEPS_PER_EPOCH:
        raise ValueError(
            f"{plural(batches.num_samples or 0, 'sample')} for {_epochs(epochs)} are only {plural(steps, 'step')} of "
            f"{plural(images_per_step(arguments), 'image')}: lower --per_device_train_batch_size, set --max_steps, or fine-tune a "
            "checkpoint (--model default)."
        )
    return steps


def describe(
    chosen: DataAndModelArguments,
    arguments: TrainingArguments,
    model: SVTRv2ForCTC,
    batches: TrainingBatches,
    checks: Sequence[SourceCheck],
    eval_sources: Sequence[Source],
    in_epoch: float | None,
) -> str:
    """Return a table of what data and settings amount to; `in_epoch` is the number of steps in an epoch, if known."""
    steps, images = arguments.max_steps, images_per_step(arguments)
    trained, total = (model.num_parameters(only_trainable=only) / 1e6 for only in (True, False))
    parameters = f"{total:.2f} M parameters" + (f", {trained:.2f} M of them trained" if trained < total else "")
    rows = [("model", f"{chosen.model}, {parameters}, {plural(len(batches.encoder.ids), 'character')}")]
    rows += [(f"train: {check.source.name}", _describe_source(check)) for check in checks]
    for source in eval_sources:
        same = next((check.source.name for check in checks if _are_same(source, check.source)), None)
        remark = f", the same as {same}: accuracy on training samples" if same else ""
        rows.append((f"eval: {source.name}", f"{_samples(source)}{remark}"))
    epochs = "" if in_epoch is None else f", about {_epochs(steps / in_epoch)}"
    rows.append(("steps", f"{steps:,} of {plural(images, 'image')}{epochs}"))
    if arguments.eval_strategy != "no":
        every = arguments.eval_steps or arguments.logging_steps
        every = every if every >= 1 else math.ceil(steps * every)
        rows.append(("evaluations", f"{math.ceil(steps / every):,}, every {plural(int(every), 'step')}"))
    else:
        once = "1, at the end" if eval_sources else "none without --eval_data; the model of the last step is saved"
        rows.append(("evaluations", once))
    rows += [
        ("learning rate", f"{arguments.learning_rate:g} at its peak"),
        ("device", f"{arguments.device}" + (f" x {arguments.world_size}" if arguments.world_size > 1 else "")),
        ("output folder", arguments.output_dir),
    ]
    return markdown_table(["training", ""], rows, align="l")


def _epochs(number: float) -> str:
    return f"{number:{',.0f' if number >= 100 else '.3g'}} epoch{'' if number == 1 else 's'}"


def _samples(source: Source) -> str:
    return "unknown number of samples" if source.num_samples is None else plural(source.num_samples, "sample")


def _describe_source(check: SourceCheck) -> str:
    parts = [plural(check.labels, "sample") if check.is_complete else _samples(check.source)]
    if check.is_complete:
        parts.append("all usable" if check.usable == check.labels else f"{check.usable:,} usable")
    else:
        parts.append(f"{check.usable:,} of the first {check.labels:,} usable")
    if check.skipped:
        parts.append(f"skipped: {check.describe_skipped()}")
    if check.invalid and check.encoder.unknown_characters == "drop_character":
        parts.append(f"{check.invalid:,} lose characters outside the charset")
    return "; ".join([", ".join(parts[:2]), *parts[2:]])


def _are_same(one: Source, other: Source) -> bool:
    """Whether two local sources have the same number of samples and the same first labels."""
    if not (one.local and other.local and one.num_samples == other.num_samples):
        return False
    return list(islice(one.texts(), COMPARED)) == list(islice(other.texts(), COMPARED))
