#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Measures the forward pass beside the reference implementation's: same weights, images and threads, in one process.

    python scripts/benchmark.py --reference PATH/TO/OpenOCR [--size tiny] [--output results.json]

Both get the reference's own fresh weights, in eval mode. A round times each once, in turn, so that whatever else the
machine does falls on all of them; ratios are medians over rounds of the paired times. Without --reference only ours is
measured. Also measured: what preparing an image costs beyond decoding it.
"""

import argparse
import io
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2ImageProcessor
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.conversion import convert_state_dict, infer_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="a checkout of Topdu/OpenOCR")
    parser.add_argument("--size", choices=list(PRESETS), default="tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--image-size", type=int, nargs=2, default=[32, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file, too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()

    implementations: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    if arguments.reference:
        reference, ours = reference_and_ours(arguments.reference, arguments.size)
        implementations["reference"] = reference
    else:
        ours = SVTRv2ForCTC(SVTRv2Config.preset(arguments.size)).eval()
    implementations["ours"] = lambda pixel_values: ours(pixel_values).logits
    compiled = torch.compile(ours, fullgraph=True, options={"freezing": True})
    implementations["ours compiled"] = lambda pixel_values: compiled(pixel_values).logits

    results = {
        "size": arguments.size,
        "image_size": arguments.image_size,
        "threads": arguments.threads,
        "machine": f"{platform.machine()}, {cpu_name()}",
        "torch": torch.__version__,
        "rounds": arguments.rounds,
        "forward": [],
        "preprocessing": preprocessing(),
    }
    for batch_size in arguments.batch_sizes:
        pixel_values = torch.rand(batch_size, 3, *arguments.image_size) * 2 - 1
        results["forward"].append(forward(implementations, pixel_values, arguments.rounds))
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


@torch.no_grad()
def forward(implementations: dict, pixel_values: torch.Tensor, rounds: int) -> dict:
    """Milliseconds of each implementation, and how many times the reference's speed it has."""
    outputs = {name: run(pixel_values) for name, run in implementations.items()}  # also compiles and warms up
    for name, logits in outputs.items():
        expected = outputs["ours"].softmax(-1)
        found = logits if name == "reference" else logits.softmax(-1)  # its eval mode returns probabilities
        if not torch.allclose(found, expected, atol=1e-4):
            raise RuntimeError(f"{name} and ours disagree by {float((found - expected).abs().max()):.2g}.")
    for run in implementations.values():
        for _ in range(3):
            run(pixel_values)
    times: dict[str, list[float]] = {name: [] for name in implementations}
    for number in tqdm(range(rounds), desc=f"batch {len(pixel_values)}", disable=None):
        names = list(implementations)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            implementations[name](pixel_values)
            times[name].append((time.perf_counter() - start) * 1000)
    result = {"batch_size": len(pixel_values), "milliseconds": {n: statistics.median(t) for n, t in times.items()}}
    if "reference" in times:
        result["times_the_reference"] = {
            name: statistics.median(r / t for r, t in zip(times["reference"], own, strict=True))
            for name, own in times.items()
        }
    return result


def preprocessing(rounds: int = 20) -> dict:
    """Milliseconds to prepare a PNG crop of 100 x 40 pixels, and to decode it alone; one thread."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (10, 25, 3), dtype=np.uint8)).resize(
        (100, 40), Image.Resampling.BICUBIC
    )
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    data, processor = buffer.getvalue(), SVTRv2ImageProcessor()
    decoding, whole = [], []
    for _ in range(rounds):
        for times, work in ((decoding, lambda: Image.open(io.BytesIO(data)).load()), (whole, lambda: processor(data))):
            start = time.perf_counter()
            for _ in range(50):
                work()
            times.append((time.perf_counter() - start) * 1000 / 50)
    return {
        "decode_ms": statistics.median(decoding),
        "beyond_decoding_ms": statistics.median(w - d for w, d in zip(whole, decoding, strict=True)),
    }


def reference_and_ours(checkout: Path, size: str) -> tuple[Callable, SVTRv2ForCTC]:
    """The reference with weights of its own, and ours with the same, converted."""
    sys.path.insert(0, str(checkout))
    from openrec.modeling.base_recognizer import BaseRecognizer

    preset = PRESETS[size]
    mixers = []
    for depth, convolutions in zip(preset["depths"], preset["num_convolution_blocks"], strict=True):
        mixer = ["Conv"] * convolutions + ["Global"] * (depth - convolutions)
        if 0 < convolutions < depth:
            mixer[convolutions] = "FGlobal"
        mixers.append(mixer)
    torch.manual_seed(0)
    reference = BaseRecognizer(
        {
            "in_channels": 3,
            "Transform": None,
            "Encoder": {
                "name": "SVTRv2LNConvTwo33",
                "use_pos_embed": False,
                "dims": preset["hidden_sizes"],
                "depths": preset["depths"],
                "num_heads": preset["num_attention_heads"],
                "mixer": mixers,
                "sub_k": [[1, 1], [2, 1], [-1, -1]],
                "last_stage": False,
                "feat2d": True,
            },
            "Decoder": {"name": "RCTCDecoder", "out_channels": 95},
        }
    ).eval()
    state_dict = reference.state_dict()
    config = infer_config(state_dict)
    ours = SVTRv2ForCTC(config)
    ours.load_state_dict(convert_state_dict(state_dict, config))
    return reference, ours.eval()


def cpu_name() -> str:
    """As Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def table(results: dict) -> str:
    """The figures as Markdown."""
    height, width = results["image_size"]
    lines = [
        f"SVTRv2 {results['size']}, {height} x {width} pixels, {results['threads']} threads, {results['machine']}, "
        f"torch {results['torch']}; medians of {results['rounds']} rounds.",
        "",
        "| batch | implementation | ms | times the reference |",
        "|---|---|---|---|",
    ]
    for row in results["forward"]:
        for name, milliseconds in row["milliseconds"].items():
            ratio = row.get("times_the_reference", {}).get(name)
            lines.append(
                f"| {row['batch_size']} | {name} | {milliseconds:.2f} | {'' if ratio is None else f'{ratio:.2f}'} |"
            )
    timing = results["preprocessing"]
    lines += [
        "",
        f"Preparing a PNG crop of 100 x 40: {timing['beyond_decoding_ms']:.3f} ms beyond {timing['decode_ms']:.3f} ms of decoding.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
