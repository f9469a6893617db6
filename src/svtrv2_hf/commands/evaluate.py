# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 evaluate`."""

from typing import Annotated

import typer

from ..evaluation.protocols import SUMMARY, EvaluationProtocol
from .options import (
    Backend,
    BatchSize,
    FileName,
    Model,
    Normalization,
    Workers,
    check_device,
    extra,
    number,
    option,
)


SETS = (
    "Datasets: with --data, names of its folders; sources as in --train_data of svtrv2 train, also as NAME=SOURCE. If a dataset of "
    "the Hub has several splits, its test split is used."
)
LABELS = "Name of another label file, such as labels_official.tsv, for the datasets that have it in their folder."
PROTOCOL = f"Characters to compare with the labels. {SUMMARY}."
USUAL = "that of the benchmark; exact for other datasets"
NORMALIZE = "Unicode normalization form in which predictions and labels are compared. Use the form of the training."
OUTPUT = "Write the results to this file after each dataset, and tables next to it (.csv, .md)."
ERRORS = "Write an error analysis (errors.html, errors.png) and all predictions (predictions.jsonl) to this folder."


def evaluate(
    sets: Annotated[
        list[str] | None, typer.Argument(metavar="DATASET", help=SETS, show_default="all folders in --data")
    ] = None,
    model: Model = "default",
    data: Annotated[str | None, option("FOLDER", "Folder with one subfolder per dataset.")] = None,
    labels: Annotated[str | None, option("FILE", LABELS, "labels.tsv")] = None,
    protocol: Annotated[EvaluationProtocol | None, option("PROTOCOL", PROTOCOL, USUAL)] = None,
    max_ratio: Annotated[
        int | None, number("Maximum aspect ratio (width / height).", "the model's; 20 for LTB")
    ] = None,
    normalize: Annotated[Normalization, option(None, NORMALIZE)] = "none",
    output: Annotated[str | None, option("FILE.json", OUTPUT)] = None,
    errors: Annotated[str | None, option("FOLDER", ERRORS)] = None,
    batch_size: BatchSize = 32,
    workers: Workers = 0,
    device: Annotated[str | None, option("DEVICE", "cpu, cuda, cuda:1, ...", "a GPU if available")] = None,
    backend: Backend = "torch",
    file_name: FileName = None,
) -> int:
    """Measure the accuracy of a model on labeled images.

    Prints the results next to those published by the authors of SVTRv2. Benchmarks are recognized by the names of
    their folders, and have known protocols and sizes.

    The exit status is 1 if a dataset or an image cannot be read, a benchmark has an unexpected number of samples, or
    the protocol ignores letters in most labels of a dataset, or most labels are empty.
    """
    with extra("eval", "Evaluation"):
        from ..evaluation.provenance import check_output
        from ..evaluation.runner import evaluate_sets
    if device is not None:
        check_device(device, backend)
    if output is not None:
        check_output(output)
    return evaluate_sets(
        model=model,
        data=data,
        sets=sets,
        labels=labels,
        protocol=protocol,
        max_ratio=max_ratio,
        batch_size=batch_size,
        workers=workers,
        device=device,
        output=output,
        errors=errors,
        normalize=normalize,
        backend=backend,
        file_name=file_name,
    )
