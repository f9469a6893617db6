# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 benchmark`."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from .options import Backend, FileName, Model, Size, check_device, extra, number, option


def benchmark(
    model: Model = "default",
    size: Annotated[Size | None, option(None, "Size of a model with random weights to measure instead.")] = None,
    images: Annotated[
        str | None, option("SOURCE", "Folder of images, or a source as in --train_data of svtrv2 train.")
    ] = None,
    limit: Annotated[int, number("Maximum number of images to read.")] = 3000,
    device: Annotated[str, option("DEVICE", "cpu, cuda, cuda:1, ...")] = "cpu",
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], option(None, "Precision.")] = "float32",
    threads: Annotated[int | None, number("Number of CPU threads.", "chosen by torch")] = None,
    batch_sizes: Annotated[
        list[int],
        number("Batch size to measure in addition to the best one; can be repeated.", True, "--batch-size"),
    ] = [1, 32],  # noqa: B006
    largest_batch: Annotated[int, number("Upper limit of the search for the best batch size.")] = 1024,
    backend: Backend = "torch",
    file_name: FileName = None,
    rounds: Annotated[int, number("Number of times each case is timed.")] = 10,
    output: Annotated[str | None, option("FILE.json", "Also write the results to this file.")] = None,
) -> int:
    """Measure the speed of a model on this machine.

    Reports the latency and throughput of the forward pass for the usual image sizes, at the given batch sizes and at
    the best one, multiply-adds and memory. With --images, also of the whole pipeline from files to text, and the
    latency as defined in the paper.
    """
    if size is not None and model != "default":
        raise typer.BadParameter("--size and --model exclude each other.")
    if backend != "torch" and (size is not None or dtype != "float32"):
        raise typer.BadParameter(f"--size and --dtype need --backend torch: {backend} runs an exported file.")
    import torch
    from transformers.utils import logging

    from ..evaluation import speed, speed_report
    from ..evaluation.provenance import check_output
    from ..runtime.model import load_for_backend
    from ..weight_files import check_values

    check_device(device, backend)
    if output:
        check_output(output)
    if threads:
        torch.set_num_threads(threads)
    logging.disable_progress_bar()
    threads = torch.get_num_threads() if backend != "torch" else None
    network, processor = speed.fresh(size) if size else load_for_backend(model, backend, file_name, threads)
    network = network.eval().to(device, getattr(torch, dtype))
    check_values(network.state_dict(), f"The weights in {dtype}")
    with tempfile.TemporaryDirectory() as folder:
        with extra("eval", "Reading --images"):
            files = speed.image_files(images, Path(folder), limit) if images else []
        results = speed.benchmark(network, processor, files, rounds, batch_sizes, largest_batch)
    print(speed_report.render(results))
    if output:
        Path(output).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0
