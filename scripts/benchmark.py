#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Compare the speed and accuracy of this model with the reference implementation and with other models, in one process.

    python scripts/benchmark.py [--size tiny | --model DIR|default] [--reference PATH/TO/OpenOCR] \
        [--images SOURCE] [--accuracy SOURCE ...] [--output results.json]

First, the forward pass is compared with the reference (--reference): same random weights, images and threads, in eval mode.
Then, with --images, other models are timed from PIL images in memory to texts: one image at a time, and 32 together if a
model supports batches. Each round times every case once, in turn, so that other load on the machine affects all of them;
ratios are medians over rounds of the paired times. With --accuracy, models with trained weights are also evaluated on whole
datasets, one image at a time.

Other models need additional packages; the report lists those that cannot run and how to install them.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers.utils import logging

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2ImageProcessor, load_rgb
from svtrv2_hf.checkpoint import load_model_and_processor
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.conversion import convert_state_dict, infer_config
from svtrv2_hf.evaluation.metrics import compare
from svtrv2_hf.evaluation.provenance import check_output, provenance
from svtrv2_hf.evaluation.speed import fresh, image_files, summary, time_in_turn
from svtrv2_hf.reporting import markdown_table
from svtrv2_hf.sources import open_source


sys.path.insert(0, str(Path(__file__).parent))  # needed if the script is imported

from peers import PEERS, Ours, Peer, Settings, UnavailableError
from peers.reference import reference_model
from timing import paired_ratio


BATCH = 32  # images in a batch
SINGLE = 8  # images that are processed one at a time in each round


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(PRESETS), default="tiny", help="model size, with random weights")
    parser.add_argument("--model", metavar="DIR", help="a checkpoint instead of a size; 'default' is the bundled one")
    parser.add_argument("--reference", type=Path, help="checkout of Topdu/OpenOCR")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30, help="timing rounds of the forward pass")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], help="batch sizes of the forward pass")
    parser.add_argument("--image-size", type=int, nargs=2, default=[32, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", metavar="SOURCE", help="labeled images for timing other models")
    parser.add_argument("--peer-rounds", type=int, default=12, help="timing rounds of other models")
    names = [peer.name for peer in PEERS]
    parser.add_argument(
        "--peers", nargs="+", choices=names, default=names, metavar="NAME", help=f"models to compare, from {names}"
    )
    parser.add_argument("--accuracy", metavar="SOURCE", nargs="+", default=[], help="labeled datasets to evaluate")
    parser.add_argument("--limit", type=int, help="maximum number of images of each dataset")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args(argv)
    if arguments.output:
        check_output(arguments.output)
    torch.set_num_threads(arguments.threads)
    logging.set_verbosity_error()

    if arguments.model:
        model, processor = load_model_and_processor(arguments.model)
    else:
        model, processor = fresh(arguments.size)
    results: dict[str, Any] = {
        **provenance(),
        "size": size_of(model.config),
        "image_size": arguments.image_size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "forward": [],
        "preprocessing": preprocessing(),
    }
    implementations = forward_passes(model.config, arguments.reference)
    for batch_size in arguments.batch_sizes:
        pixel_values = torch.rand(batch_size, 3, *arguments.image_size) * 2 - 1
        results["forward"].append(forward(implementations, pixel_values, arguments.rounds))
    if arguments.images or arguments.accuracy:
        settings = Settings(model, processor, bool(arguments.model), arguments.threads, arguments.reference)
        peers, results["unavailable"] = gather([peer for peer in PEERS if peer.name in arguments.peers], settings)
        results["versions"] |= {name: version for peer in peers for name, version in peer.versions.items()}
        results["peers"] = [{key: getattr(peer, key) for key in ("name", "note", "parameters")} for peer in peers]
        if arguments.images:
            with tempfile.TemporaryDirectory() as folder:
                files = image_files(arguments.images, Path(folder), limit=3000)
                files = files[:: max(1, len(files) // BATCH)][:BATCH]  # from all over the source
                images = [load_rgb(file) for file in files]
            results["peer_images"] = {"source": Path(arguments.images).name, "images": len(images)}
            results["peer_rounds"] = arguments.peer_rounds
            results["peer_speed"] = peer_speed(peers, images, arguments.peer_rounds)
        results["accuracy"] = [row for place in arguments.accuracy for row in accuracy(peers, place, arguments.limit)]
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def size_of(config: SVTRv2Config) -> str:
    """Return the name of a preset size, or a description of another size."""
    return config.preset_name or f"with hidden sizes {', '.join(map(str, config.hidden_sizes))}"


def forward_passes(config: SVTRv2Config, checkout: Path | None) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Return functions from pixel values to logits: the reference with random weights, and this model with the same weights."""
    implementations: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    if checkout is None:
        model = SVTRv2ForCTC(config).eval()
    else:
        reference = reference_model(checkout, config)
        implementations["reference"] = reference
        state_dict = reference.state_dict()
        config = infer_config(state_dict)
        model = SVTRv2ForCTC(config).eval()
        model.load_state_dict(convert_state_dict(state_dict, config))
    implementations[Ours.name] = lambda pixel_values: model(pixel_values).logits
    return implementations


@torch.no_grad()
def forward(implementations: Mapping[str, Callable], pixel_values: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Measure the milliseconds of each implementation, and its speedup over the reference."""
    outputs = {name: run(pixel_values) for name, run in implementations.items()}  # warm-up
    for name, logits in outputs.items():
        expected = outputs[Ours.name].softmax(-1)
        found = logits if name == "reference" else logits.softmax(-1)  # in eval mode, it returns probabilities
        if not torch.allclose(found, expected, atol=1e-4):
            difference = float((found - expected).abs().max())
            raise RuntimeError(f"{name} and {Ours.name} differ by {difference:.2g} in probability.")
    runs = {name: (lambda run=run: run(pixel_values)) for name, run in implementations.items()}
    time_in_turn(runs, 3, dict.fromkeys(runs, 1), title="warm-up")
    times = time_in_turn(runs, rounds, dict.fromkeys(runs, 1), title=f"batch {len(pixel_values)}")
    result = {
        "batch_size": len(pixel_values),
        "milliseconds": {name: 1000 * float(np.median(seconds)) for name, seconds in times.items()},
    }
    if "reference" in times:
        result["speedup"] = {name: paired_ratio(times["reference"], seconds) for name, seconds in times.items()}
    return result


def preprocessing(rounds: int = 20) -> dict[str, float]:
    """Measure the milliseconds to decode a PNG crop of 100 x 40 pixels, and to prepare it beyond decoding; one thread."""
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


def gather(classes: Sequence[type[Peer]], settings: Settings) -> tuple[list[Peer], list[dict[str, str]]]:
    """Return the models that can run on this machine, and the name and reason of the others."""
    peers, unavailable = [], []
    for peer in classes:
        try:
            peers.append(peer(settings))
        except UnavailableError as error:
            unavailable.append({"name": peer.name, "reason": str(error)})
    return peers, unavailable


def peer_speed(
    peers: Sequence[Peer],
    images: Sequence[Image.Image],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[dict[str, Any]]:
    """Return a row for each model and batch size, with its times and their ratio to those of this model."""
    cases: dict[tuple[str, int], Callable[[], object]] = {}
    for peer in tqdm(peers, desc="warm-up", disable=None):
        turns = cycle(images)  # all models get the same image in the same turn
        cases[peer.name, 1] = lambda peer=peer, turns=turns: peer.read([next(turns)])
        if peer.batches and len(images) > 1:
            cases[peer.name, len(images)] = lambda peer=peer: peer.read(images)
            peer.read(images)
        else:
            for image in images:
                peer.read([image])
        peer.read(images[:1])
    times = time_in_turn(
        cases,
        rounds,
        {case: SINGLE if case[1] == 1 else 1 for case in cases},
        clock=clock,
        title="other models",
    )
    rows = []
    for (name, count), seconds in times.items():
        baseline = times.get((Ours.name, count))
        rows.append(
            {
                "name": name,
                "images": count,
                **summary(seconds, count),
                "relative_time": None if baseline is None else paired_ratio(seconds, baseline),
            }
        )
    return rows


def accuracy(peers: Sequence[Peer], place: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Measure the word accuracy of models with trained weights in letters and digits, case ignored, one image at a time."""
    source = open_source(place)
    samples = list(islice(source.read(), limit))
    rows = []
    for peer in [peer for peer in peers if peer.trained]:
        progress = tqdm(samples, desc=f"{peer.name} on {source.name}", unit="image", disable=None)
        predictions = [peer.read([load_rgb(sample.image, name=sample.name)])[0] for sample in progress]
        score = compare(predictions, [sample.text for sample in samples], "alphanumeric")
        rows.append(
            {
                "name": peer.name,
                "set": source.name,
                "images": len(samples),
                "word_accuracy": score.word_accuracy,
                "one_minus_ned": score.one_minus_ned,
            }
        )
    return rows


def table(results: Mapping[str, Any]) -> str:
    """Render the results as Markdown."""
    height, width = results["image_size"]
    rows = []
    for row in results["forward"]:
        for name, milliseconds in row["milliseconds"].items():
            speedup = row.get("speedup", {}).get(name)
            rows.append(
                [row["batch_size"], name, f"{milliseconds:.2f}", None if speedup is None else f"{speedup:.2f}"]
            )
    timing = results["preprocessing"]
    parts = [
        f"SVTRv2 {results['size']}, {height} x {width} pixels, {results['threads']} threads, {results['machine']}, "
        f"torch {results['versions']['torch']}; medians of {results['rounds']} rounds.",
        markdown_table(["batch", "implementation", "ms", "speedup over the reference"], rows, align="rlr"),
        f"Preparing a PNG crop of 100 x 40 pixels takes {timing['beyond_decoding_ms']:.3f} ms in addition to "
        f"{timing['decode_ms']:.3f} ms of decoding.",
    ]
    return "\n\n".join([*parts, peer_table(results)] if "peers" in results else parts)


def peer_table(results: Mapping[str, Any], short: bool = False) -> str:
    """Render the results of all models as Markdown, with notes; or only parameters and times."""
    speed = {(row["name"], row["images"] > 1): row for row in results.get("peer_speed", [])}
    accuracies = {(row["name"], row["set"]): row["word_accuracy"] for row in results.get("accuracy", [])}
    datasets = [] if short else list(dict.fromkeys(row["set"] for row in results.get("accuracy", [])))
    parts = []
    batch = BATCH
    if speed:
        batch = max(row["images"] for row in results["peer_speed"])
        parts.append(
            f"From images in memory to texts: {results['peer_images']['images']} images of {results['peer_images']['source']}, "
            f"{results['threads']} threads, {results['machine']}, torch {results['versions']['torch']}, transformers "
            f"{results['versions']['transformers']}; medians of {results['peer_rounds']} rounds."
        )
    rows = []
    for peer in results["peers"]:
        name = f"**SVTRv2 {results['size']}, svtrv2-hf**" if short and peer["name"] == Ours.name else peer["name"]
        cells = [name, None if peer["parameters"] is None else f"{peer['parameters'] / 1e6:.1f}"]
        for batched in (False, True):
            row = speed.get((peer["name"], batched))
            cells.append(None if row is None else f"{row['median_ms'] / row['images']:.1f}")
            if not short:
                ratio = None if row is None else row["relative_time"]
                cells.append(None if ratio is None else f"{ratio:.2f}")
        shares = [accuracies.get((peer["name"], dataset)) for dataset in datasets]
        rows.append([*cells, *(None if share is None else f"{100 * share:.1f}" for share in shares)])
    ratio_header = [] if short else ["relative time"]
    header = ["model", "M parameters", "ms, single image", *ratio_header]
    header += [f"ms per image, batch of {batch}", *ratio_header, *datasets]
    if short:
        trained = [peer["name"] for peer in results["peers"] if "trained weights" in peer["note"]]
        notes = [
            f"Trained weights: {' and '.join(trained) or 'none'}; other weights are random, which does not affect the speed."
        ]
    else:
        notes = [f"- {peer['name']}: {peer['note']}." for peer in results["peers"]]
        notes += [f"- {peer['name']} was not measured: {peer['reason']}." for peer in results["unavailable"]]
    return "\n\n".join([*parts, markdown_table(header, rows), "\n".join(notes)])


if __name__ == "__main__":
    main()
