#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Measure training: images per second, utilization of the device, and the speedup over the reference implementation.

    python scripts/benchmark_training.py [--sizes tiny base] [--device cuda] [--dtype bfloat16] [--batch-size 256] \
        [--reference PATH/TO/OpenOCR] [--output results.json]

A step is forward pass, CTC loss, backward pass and AdamW on one batch that is already on the device: with this model, with
the compiled model (--compile), and with the reference (--reference) and its loss. Each round times a few steps of each in
turn, so that other load on the machine affects all of them; ratios are medians over rounds of the paired times. Then
SVTRv2Trainer trains on batches in memory, which adds the overhead of the trainer and the transfer to the device. Utilization
compares the matrix products of the model, three times those of its forward pass, with the rate of a large matrix product in
the same precision.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import TrainerCallback
from transformers.utils import logging

from svtrv2_hf import (
    ENGLISH_94,
    SVTRv2Config,
    SVTRv2ForCTC,
    SVTRv2ImageProcessor,
    SVTRv2Processor,
    build_tokenizer,
)
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.data.batches import TrainingBatches
from svtrv2_hf.data.labels import LabelEncoder
from svtrv2_hf.evaluation.provenance import check_output, provenance
from svtrv2_hf.evaluation.speed import multiply_adds, synchronizer, time_in_turn
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments
from svtrv2_hf.training.trainer import SVTRv2Trainer


sys.path.insert(0, str(Path(__file__).parent))  # needed if the script is imported

from peers import Ours
from peers.reference import reference_model
from timing import paired_ratio


LETTERS = 8  # length of each label
WARM_UP = 3  # steps that are not timed


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(PRESETS), default=["tiny", "base"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16", help="dtype of autocast"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, nargs=2, default=[32, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, default=10, help="steps of each case in a round")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="also time the compiled model")
    parser.add_argument("--reference", type=Path, help="checkout of Topdu/OpenOCR")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args(argv)
    if arguments.output:
        check_output(arguments.output)
    logging.set_verbosity_error()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    results = {
        **provenance(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dtype": arguments.dtype,
        "batch_size": arguments.batch_size,
        "image_size": arguments.image_size,
        "peak_tflops": peak(device, dtype) / 1e12,
        "sizes": {name: measure(name, arguments, device, dtype) for name in arguments.sizes},
    }
    for name, rows in results["sizes"].items():
        shares = {case: 2 * 3 * rows["multiply_adds"] * rate for case, rate in rows["images_per_second"].items()}
        rows["share_of_peak"] = {case: flops / 1e12 / results["peak_tflops"] for case, flops in shares.items()}
        for case, rate in rows["images_per_second"].items():
            speedup = rows["speedup"].get(case)
            compared = "" if speedup is None else f", {speedup:.2f} x the reference"
            print(
                f"{name:6} {case:18} {rate:10,.0f} images/s, {rows['share_of_peak'][case]:6.1%} of the peak{compared}"
            )
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Measure the floating-point operations per second of a large matrix product, the best result within `seconds`."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    synchronize = synchronizer(device)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        synchronize()
        start = time.perf_counter()
        left @ right
        synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def measure(name: str, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Measure the images per second of a model size, by case."""
    config = SVTRv2Config.preset(name, vocab_size=len(ENGLISH_94) + 1)
    torch.manual_seed(0)
    pixel_values = torch.rand(arguments.batch_size, 3, *arguments.image_size, device=device) * 2 - 1
    labels = torch.randint(1, config.vocab_size, (arguments.batch_size, LETTERS), device=device)
    model = SVTRv2ForCTC(config)
    flops = multiply_adds(model.eval(), tuple(arguments.image_size))
    model = model.to(device, memory_format=torch.channels_last).train()
    losses: dict[str, tuple[torch.nn.Module, Callable[[], torch.Tensor]]] = {
        Ours.name: (model, lambda: model(pixel_values, labels=labels).loss)
    }
    if arguments.compile:
        compiled = torch.compile(model)
        losses[f"{Ours.name} compiled"] = (model, lambda: compiled(pixel_values, labels=labels).loss)
    if arguments.reference:
        reference = reference_model(arguments.reference, config).to(device).train()
        lengths = torch.full((arguments.batch_size,), LETTERS)
        losses["reference"] = (reference, lambda: reference_loss(reference(pixel_values), labels, lengths))
    steps = {case: step(module, loss, device, dtype) for case, (module, loss) in losses.items()}
    for run in steps.values():
        for _ in range(WARM_UP):
            run()
    calls = dict.fromkeys(steps, arguments.steps)
    seconds = time_in_turn(steps, arguments.rounds, calls, synchronizer(device), title=name)
    rates = {case: arguments.batch_size / float(np.median(times)) for case, times in seconds.items()}
    ratios = {}
    if "reference" in seconds:
        ratios = {case: paired_ratio(seconds["reference"], times) for case, times in seconds.items()}
    rates["SVTRv2Trainer"] = by_trainer(config, arguments, device, dtype)
    return {"multiply_adds": flops, "images_per_second": rates, "speedup": ratios}


def step(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], device: torch.device, dtype: torch.dtype
) -> Callable[[], None]:
    """Return a function that runs a training step; in float16 with loss scaling, as in both trainers."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def run() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            value = loss()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)

    return run


def reference_loss(logits: torch.Tensor, labels: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Compute the CTC loss of the reference (openrec/losses/ctc_loss.py at ae934e5)."""
    frames = torch.full((len(logits),), logits.shape[1], dtype=torch.long)
    log_probabilities = logits.float().log_softmax(2).transpose(0, 1)
    return F.ctc_loss(log_probabilities, labels, frames, lengths, reduction="none").mean()


class InMemory(TrainingBatches):
    """An endless stream of the same batch of noise."""

    def __init__(self, batch_size: int, image_size: Sequence[int]):
        super().__init__(["noise"], LabelEncoder(ENGLISH_94), SVTRv2ImageProcessor(), batch_size)
        rng = np.random.default_rng(0)
        self.batch = {
            "pixels": torch.from_numpy(rng.integers(0, 256, (batch_size, *image_size, 3), dtype=np.uint8)),
            "labels": torch.from_numpy(rng.integers(1, len(ENGLISH_94) + 1, (batch_size, LETTERS))),
            "counts": {(0, "samples"): batch_size},
            "worker": 0,
            "waiting": torch.zeros(0, dtype=torch.long),
        }

    def __iter__(self) -> Iterator[dict[str, Any]]:
        formed = 0
        while True:
            formed += 1
            yield {**self.batch, "formed": formed, "read": formed * self.batch_size}

    def samples(self, *_: Any) -> Iterator[None]:
        raise NotImplementedError

    def make_batch(self, *_: Any) -> None:
        raise NotImplementedError


class Clock(TrainerCallback):
    """Stopwatch of all steps after the warm-up."""

    def __init__(self, synchronize: Callable[[], object]):
        self.synchronize = synchronize
        self.start = self.seconds = 0.0

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step == WARM_UP:
            self.synchronize()
            self.start = time.perf_counter()
        elif state.global_step == state.max_steps:
            self.synchronize()
            self.seconds = time.perf_counter() - self.start


def by_trainer(config: SVTRv2Config, arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> float:
    """Measure the images per second of the whole trainer."""
    steps = arguments.steps * arguments.rounds
    clock = Clock(synchronizer(device))
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(io.StringIO()):
        args = SVTRv2TrainingArguments(
            output, max_steps=steps + WARM_UP, per_device_train_batch_size=arguments.batch_size, save_strategy="no",
            eval_strategy="no", disable_tqdm=True, use_cpu=device.type == "cpu", bf16=dtype == torch.bfloat16,
            fp16=dtype == torch.float16,
        )  # fmt: skip
        batches = InMemory(arguments.batch_size, arguments.image_size)
        processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(ENGLISH_94))
        SVTRv2Trainer(
            SVTRv2ForCTC(config), args, train_dataset=batches, processing_class=processor, callbacks=[clock]
        ).train()
    return steps * arguments.batch_size / clock.seconds


if __name__ == "__main__":
    main()
