#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Measures our model beside the reference implementation and beside other recognisers, in one process.

    python scripts/benchmark.py [--size tiny | --model DIR|default] [--reference PATH/TO/OpenOCR] \
        [--images SOURCE] [--accuracy SOURCE ...] [--output results.json]

First the forward pass alone, beside the reference's (--reference): same weights, images and threads. Both get the reference's
own fresh weights, in eval mode. Then, with --images, other recognisers, from PIL images in memory to texts: one image at a
time, and 32 together where a recogniser can. A round times each once, in turn, so that whatever else the machine does
falls on all of them; ratios are medians over rounds of the paired times. With --accuracy, those with trained weights also
read whole data sets, one image at a time.

Other recognisers need packages of their own; those that cannot run are named with how to get them.
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
from svtrv2_hf.data.sources import open_source
from svtrv2_hf.evaluation.provenance import check_output, provenance
from svtrv2_hf.evaluation.speed import (
    compile_for_reading,
    fresh,
    image_files,
    paired_ratio,
    summary,
    time_in_turn,
)


sys.path.insert(0, str(Path(__file__).parent))  # also where the script is imported

from peers import PEERS, Ours, Peer, Settings, UnavailableError
from peers.reference import reference_model


BATCH = 32  # images read together
SINGLE = 8  # images read one at a time in a round


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(PRESETS), default="tiny", help="ours, with random weights")
    parser.add_argument(
        "--model", metavar="DIR", help="ours, a saved recogniser instead; default is the package's own"
    )
    parser.add_argument("--reference", type=Path, help="a checkout of Topdu/OpenOCR")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30, help="of the forward pass")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 32], help="of the forward pass")
    parser.add_argument("--image-size", type=int, nargs=2, default=[32, 128], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", metavar="SOURCE", help="labelled images to time other recognisers on")
    parser.add_argument("--peer-rounds", type=int, default=12, help="of other recognisers")
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="NAME", help=f"of {names}")
    parser.add_argument("--accuracy", metavar="SOURCE", nargs="+", default=[], help="labelled images to read")
    parser.add_argument("--limit", type=int, help="images to read of each source, its first ones")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file, too")
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
                files = image_files(arguments.images, Path(folder))
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
    """The name of a size, or what tells it from those that have one."""
    return config.preset_name or f"with hidden sizes {', '.join(map(str, config.hidden_sizes))}"


def forward_passes(config: SVTRv2Config, checkout: Path | None) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """What takes pixel values to logits: the reference with weights of its own, ours with the same, ours compiled."""
    implementations: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
    if checkout is None:
        ours = SVTRv2ForCTC(config).eval()
    else:
        reference = reference_model(checkout, config)
        implementations["reference"] = reference
        state_dict = reference.state_dict()
        config = infer_config(state_dict)
        ours = SVTRv2ForCTC(config).eval()
        ours.load_state_dict(convert_state_dict(state_dict, config))
    compiled = compile_for_reading(ours)
    implementations["ours"] = lambda pixel_values: ours(pixel_values).logits
    implementations["ours compiled"] = lambda pixel_values: compiled(pixel_values).logits
    return implementations


@torch.no_grad()
def forward(implementations: Mapping[str, Callable], pixel_values: torch.Tensor, rounds: int) -> dict[str, Any]:
    """Milliseconds of each implementation, and how many times the reference's speed it has."""
    outputs = {name: run(pixel_values) for name, run in implementations.items()}  # also compiles and warms up
    for name, logits in outputs.items():
        expected = outputs["ours"].softmax(-1)
        found = logits if name == "reference" else logits.softmax(-1)  # its eval mode returns probabilities
        if not torch.allclose(found, expected, atol=1e-4):
            raise RuntimeError(f"{name} and ours disagree by {float((found - expected).abs().max()):.2g}.")
    runs = {name: (lambda run=run: run(pixel_values)) for name, run in implementations.items()}
    time_in_turn(runs, 3, dict.fromkeys(runs, 1), title="warm-up")
    times = time_in_turn(runs, rounds, dict.fromkeys(runs, 1), title=f"batch {len(pixel_values)}")
    result = {
        "batch_size": len(pixel_values),
        "milliseconds": {name: 1000 * float(np.median(seconds)) for name, seconds in times.items()},
    }
    if "reference" in times:
        result["times_the_reference"] = {
            name: paired_ratio(times["reference"], seconds) for name, seconds in times.items()
        }
    return result


def preprocessing(rounds: int = 20) -> dict[str, float]:
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


def gather(classes: Sequence[type[Peer]], settings: Settings) -> tuple[list[Peer], list[dict[str, str]]]:
    """The peers that can run here, and of the others name and reason."""
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
    """A row for each peer and number of images read together, with the time it takes an image and times that of ours."""
    cases: dict[tuple[str, int], Callable[[], object]] = {}
    for peer in tqdm(peers, desc="warm-up", disable=None):
        turns = cycle(images)  # every peer reads the same image in the same turn
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
        title="other recognisers",
    )
    rows = []
    for (name, count), seconds in times.items():
        of_ours = times.get((Ours.name, count))
        rows.append(
            {
                "name": name,
                "images": count,
                **summary(seconds, count),
                "times_the_time_of_ours": None if of_ours is None else paired_ratio(seconds, of_ours),
            }
        )
    return rows


def accuracy(peers: Sequence[Peer], place: str, limit: int | None = None) -> list[dict[str, Any]]:
    """Word accuracy in letters and digits, case ignored, of the peers that have trained weights; an image at a time."""
    from svtrv2_hf.evaluation.metrics import compare  # which speed does without: it needs the train extra

    source = open_source(place)
    samples = list(islice(source.read(), limit))
    rows = []
    for peer in [peer for peer in peers if peer.trained]:
        progress = tqdm(samples, desc=f"{peer.name} on {source.name}", unit="image", disable=None)
        readings = [peer.read([load_rgb(sample.image, name=sample.name)])[0] for sample in progress]
        score = compare(readings, [sample.text for sample in samples], "english")
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
    """The figures as Markdown."""
    height, width = results["image_size"]
    lines = [
        f"SVTRv2 {results['size']}, {height} x {width} pixels, {results['threads']} threads, {results['machine']}, "
        f"torch {results['versions']['torch']}; medians of {results['rounds']} rounds.",
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
    if "peers" in results:
        lines += ["", peer_table(results)]
    return "\n".join(lines)


def peer_table(results: Mapping[str, Any]) -> str:
    """What other recognisers were measured to do, as Markdown; and which were not, and why."""
    speed = {(row["name"], row["images"] > 1): row for row in results.get("peer_speed", [])}
    right = {(row["name"], row["set"]): row["word_accuracy"] for row in results.get("accuracy", [])}
    sets = list(dict.fromkeys(row["set"] for row in results.get("accuracy", [])))
    lines = []
    if speed:
        together = max(row["images"] for row in results["peer_speed"])
        lines += [
            f"From images in memory to texts: {results['peer_images']['images']} images of {results['peer_images']['source']}, "
            f"{results['threads']} threads, {results['machine']}, torch {results['versions']['torch']}, transformers "
            f"{results['versions']['transformers']}; medians of {results['peer_rounds']} rounds.",
            "",
        ]
    else:
        together = BATCH
    lines += [
        "| recogniser | M parameters | ms, one at a time | times ours | "
        f"ms an image, {together} together | times ours |" + "".join(f" {name} |" for name in sets),
        "|---" * (6 + len(sets)) + "|",
    ]
    for peer in results["peers"]:
        cells = [peer["name"], "" if peer["parameters"] is None else f"{peer['parameters'] / 1e6:.1f}"]
        for batched in (False, True):
            row = speed.get((peer["name"], batched))
            ratio = None if row is None else row["times_the_time_of_ours"]
            cells.append("" if row is None else f"{row['median_ms'] / row['images']:.1f}")
            cells.append("" if ratio is None else f"{ratio:.2f}")
        found = [right.get((peer["name"], name)) for name in sets]
        cells += ["" if share is None else f"{100 * share:.1f}" for share in found]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {peer['name']}: {peer['note']}." for peer in results["peers"])]
    lines += [f"- {peer['name']} was not measured: {peer['reason']}." for peer in results["unavailable"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
