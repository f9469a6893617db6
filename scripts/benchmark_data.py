#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Measure the data loading of training: sources, augmentation, MSR buckets, and how long training steps wait for data.

    python scripts/benchmark_data.py [--folder DATA] [--output results.json]

Without --folder, it renders words in usual crop sizes. The images are written in each file format and loaded with the
trainer's data loader: decoded, augmented, resized, in batches. "plain" is a minimal loader for the same images in one size:
no buckets, no label rules, no counts. One thread per process; medians.
"""

import argparse
import contextlib
import io
import itertools
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm
from transformers.utils import logging

from svtrv2_hf import (
    ENGLISH_94,
    SVTRv2Config,
    SVTRv2ForCTC,
    SVTRv2ImageProcessor,
    SVTRv2Processor,
    build_tokenizer,
    load_rgb,
)
from svtrv2_hf.data.augmentation import OPERATIONS, Augmentation
from svtrv2_hf.data.batches import BucketBatches, Position, Progress
from svtrv2_hf.data.labels import LabelEncoder
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.provenance import check_output, provenance
from svtrv2_hf.processing_svtrv2 import pad_labels
from svtrv2_hf.reporting import markdown_table, plural
from svtrv2_hf.resizing_svtrv2 import resize
from svtrv2_hf.sources import open_source
from svtrv2_hf.synthetic.atlas import build_atlas
from svtrv2_hf.synthetic.batches import SyntheticBatches
from svtrv2_hf.synthetic.fonts import find_fonts
from svtrv2_hf.synthetic.source import SyntheticSource
from svtrv2_hf.synthetic.synthesize import write_folder, write_lmdb, write_parquet
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments
from svtrv2_hf.training.loader import make_loader
from svtrv2_hf.training.trainer import SVTRv2Trainer


SIZE = (32, 128)
CHARSET = ENGLISH_94 + " "


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="folder with labels.tsv to take crops from")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    arguments = parser.parse_args()
    if arguments.output:
        check_output(arguments.output)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    crops = list(
        itertools.islice(real_crops(arguments.folder) if arguments.folder else rendered_crops(), arguments.images)
    )
    with tempfile.TemporaryDirectory() as temporary:
        places = write_all(Path(temporary), crops)
        results = {
            **provenance(),
            "crops": "rendered" if arguments.folder is None else arguments.folder.name,
            "images": len(crops),
            "median_size": [
                statistics.median(Image.open(io.BytesIO(crop.image)).size[axis] for crop in crops) for axis in (0, 1)
            ],
            "rounds": arguments.rounds,
            "augmentation": augmentation(crops[:500], arguments.rounds),
            "sources": sources(places, arguments.workers, arguments.rounds),
            "rendering_images_per_second": rendering(places["synthetic text"], arguments.rounds),
            "resuming_images_per_second": resuming(places["LMDB"], len(crops)),
            "buckets": buckets(places["one size"], arguments.rounds),
            "training": training(places["one size"], arguments.rounds),
        }
    print(table(results))
    if arguments.output:
        arguments.output.write_text(json.dumps(results, indent=2) + "\n")


# Data


def rendered_crops() -> Iterator[Sample]:
    """Yield words on noise, three quarters as JPEG, the others as PNG."""
    rng = random.Random(0)
    noise = np.random.default_rng(0)
    while True:
        text = "".join(rng.choices(ENGLISH_94[:62], k=min(12, max(1, round(rng.gauss(6, 2.5))))))
        font = ImageFont.load_default(rng.randint(18, 40))
        left, top, right, bottom = font.getbbox(text)
        width, height = int(right - left) + 12, int(bottom - top) + 8
        image = encode(word(text, font, (width, height), noise), "PNG" if rng.random() < 0.25 else "JPEG")
        yield Sample(image, text, "word")


def word(text: str, font: Any, size: tuple[int, int], noise: np.random.Generator) -> Image.Image:
    """Render a word in the middle of a noisy image."""
    paper = noise.integers(120, 250, (max(1, size[1] // 4), max(1, size[0] // 4), 3), dtype=np.uint8)
    image = Image.fromarray(paper).resize(size, Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).text((size[0] / 2, size[1] / 2), text, font=font, fill=(20, 20, 60), anchor="mm")
    return image


def real_crops(folder: Path) -> Iterator[Sample]:
    """Yield the samples of a folder, repeatedly."""
    while True:
        yield from open_source(str(folder)).read()


def encode(image: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


def write_all(root: Path, crops: list[Sample]) -> dict[str, str]:
    """Write the crops in each format, and words of one size; return the paths by format."""
    places = {
        kind: root / kind.replace(" ", "_") for kind in ("labels.tsv", "LMDB", "parquet", "webdataset tar", "one size")
    }
    write_folder(crops, places["labels.tsv"])
    write_lmdb(crops, places["LMDB"])
    for kind in ("parquet", "webdataset tar"):
        places[kind].mkdir()
    for shard in range(4):
        part = crops[shard::4]
        write_parquet(part, places["parquet"] / f"{shard}.parquet")
        with tarfile.open(places["webdataset tar"] / f"{shard}.tar", "w") as archive:
            for number, crop in enumerate(part):
                for name, content in ((f"{number:06}.jpg", crop.image), (f"{number:06}.txt", crop.text.encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    noise, font = np.random.default_rng(1), ImageFont.load_default(26)
    texts = [crop.text[:8] for crop in crops[:2000]]
    words = (Sample(encode(word(text, font, (138, 36), noise), "JPEG"), text, "word") for text in texts)
    write_folder(words, places["one size"])
    fonts = find_fonts(
        packages=False, system=False
    ).fonts  # fonts that are always available; their number does not affect the speed
    atlas = root / "atlas.safetensors"
    build_atlas(fonts, CHARSET, progress=False).save(atlas)
    return {kind: str(place) for kind, place in places.items()} | {"synthetic text": f"synthetic:{atlas}?lines=0"}


# Measurements


def augmentation(crops: list[Sample], rounds: int) -> dict[str, Any]:
    """Measure the microseconds per image of each operation, and of decoding and resizing without and with augmentation."""
    images = [load_rgb(crop.image) for crop in crops]
    keys = [crc32(crop.image) for crop in crops]
    rng = random.Random(0)
    operations = {
        name: microseconds(
            lambda operation=operation: [operation(image, 0.5, rng) for image in images], len(images), rounds
        )
        for name, operation in OPERATIONS.items()
    }
    chains: dict[str, float] = {}
    for name, probability in (("none", None), ("each with probability 0.5", 0.5), ("all three", 1.0)):
        augment = None if probability is None else Augmentation(probability=probability)

        def run(augment: Augmentation | None = augment) -> None:
            for crop, key in zip(crops, keys, strict=True):
                image = load_rgb(crop.image)
                resize(image if augment is None else augment(image, SIZE, 0, key), SIZE)

        chains[name] = microseconds(run, len(crops), rounds)
    return {"operations_us": operations, "decode_augment_resize_us": chains}


def microseconds(run: Callable[[], Any], number: int, rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) / number * 1e6)
    return round(statistics.median(times), 1)


def stream(place: str, batch_size: int = 64) -> BucketBatches | SyntheticBatches:
    encoder = LabelEncoder(CHARSET, unknown_characters="drop_sample")
    if isinstance(source := open_source(place), SyntheticSource):
        return SyntheticBatches(source, encoder, SVTRv2ImageProcessor(), batch_size)
    return BucketBatches([source], encoder, SVTRv2ImageProcessor(), batch_size, augmentation=Augmentation())


def sources(places: dict[str, str], workers: list[int], rounds: int) -> list[dict[str, Any]]:
    """Measure the images per second of the data loader, for each format and number of workers."""
    rows = []
    cases = [(kind, number) for kind in places if kind != "one size" for number in workers]
    for kind, number in tqdm(cases, desc="sources", disable=None):
        rates = [rate(stream(places[kind]), number, images=2000) for _ in range(max(3, rounds // 2))]
        rows.append({"source": kind, "workers": number, "images_per_second": round(statistics.median(rates))})
    return rows


def rendering(place: str, rounds: int) -> int:
    """Measure the images of 32 x 128 pixels rendered per second, in batches of 128."""
    source = open_source(place)
    texts = [text for text in source.text_source.texts(0, 0, 1024) if 5 <= len(text) <= 8][:128]
    renderer = source.renderer()
    renderer.render(texts, SIZE, 0, 0)
    times = []
    for number in range(3 * rounds):
        start = time.perf_counter()
        renderer.render(texts, SIZE, 0, 128 * (number + 1))
        times.append(time.perf_counter() - start)
    return round(len(texts) / statistics.median(times))


def rate(batches: Any, workers: int, images: int, warm_up: int = 4) -> float:
    loader = iter(make_loader(batches, SVTRv2TrainingArguments(use_cpu=True, dataloader_num_workers=workers)))
    for _ in range(warm_up):  # start workers, open files
        next(loader)
    start, done = time.perf_counter(), 0
    while done < images:
        done += len(next(loader)["labels"])
    return done / (time.perf_counter() - start)


def resuming(place: str, images: int) -> int:
    """Measure the images per second that a resumed run skips."""
    batches = stream(place)
    batches.start = Position(0, [Progress(0, images)])
    start = time.perf_counter()
    next(iter(batches))
    return round(images / (time.perf_counter() - start))


class PlainBatches(BucketBatches):
    """Stream that does the same work on images of one size, without buckets, label rules and counts."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        formed = 0
        for epoch in itertools.count():
            samples = self.sources[0].read(0, 1, self.seed, epoch)
            while chunk := list(itertools.islice(samples, self.batch_size)):
                images = [self.augmentation(load_rgb(s.image), SIZE, epoch, crc32(s.image)) for s in chunk]
                formed += 1
                yield {
                    "pixels": torch.from_numpy(np.stack([resize(image, SIZE) for image in images])),
                    "labels": torch.from_numpy(pad_labels([self.encoder.encode(s.text) for s in chunk])),
                    "counts": {},
                    "worker": 0,
                    "formed": formed,
                    "read": formed * self.batch_size,
                    "waiting": torch.zeros(0, dtype=torch.long),
                }


def plain(place: str, batch_size: int = 64) -> PlainBatches:
    buckets = stream(place, batch_size)
    return PlainBatches(
        buckets.sources, buckets.encoder, buckets.image_processor, batch_size, augmentation=buckets.augmentation
    )


def buckets(place: str, rounds: int) -> dict[str, float]:
    """Measure the images per second of the data loader, with buckets and plain, in turn."""
    pairs = [
        (rate(stream(place), 0, 2000), rate(plain(place), 0, 2000))
        for _ in tqdm(range(rounds), "buckets", disable=None)
    ]
    return {
        "images_per_second": round(statistics.median(ours for ours, _ in pairs)),
        "plain_images_per_second": round(statistics.median(base for _, base in pairs)),
        "of_plain": round(statistics.median(ours / base for ours, base in pairs), 3),
    }


def training(place: str, rounds: int, steps: int = 40) -> dict[str, float]:
    """Train nano with one worker, and measure images per second with buckets and plain, and the share of time spent waiting."""
    rates: dict[str, list[float]] = {"buckets": [], "plain": []}
    waiting = []
    for _ in tqdm(range(max(3, rounds // 2)), "training", disable=None):
        for name, make in (("buckets", stream), ("plain", plain)):
            with tempfile.TemporaryDirectory() as output:
                args = SVTRv2TrainingArguments(
                    output, max_steps=steps, per_device_train_batch_size=32, use_cpu=True, disable_tqdm=True,
                    save_strategy="no", eval_strategy="no", logging_steps=steps // 2, dataloader_num_workers=1,
                )  # fmt: skip
                torch.manual_seed(0)
                model = SVTRv2ForCTC(SVTRv2Config.preset("nano", vocab_size=len(CHARSET) + 1))
                processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET))
                trainer = SVTRv2Trainer(model, args, train_dataset=make(place, 32), processing_class=processor)
                start = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()):
                    trainer.train()
                rates[name].append(steps * 32 / (time.perf_counter() - start))
            if name == "buckets":
                waiting.append([entry["data/waiting"] for entry in trainer.state.log_history if "loss" in entry][-1])
    pairs = zip(rates["buckets"], rates["plain"], strict=True)
    return {
        "images_per_second": round(statistics.median(rates["buckets"]), 1),
        "plain_images_per_second": round(statistics.median(rates["plain"]), 1),
        "of_plain": round(statistics.median(ours / base for ours, base in pairs), 3),
        "waiting": round(statistics.median(waiting), 4),
    }


def table(results: dict[str, Any]) -> str:
    """Render the results as Markdown."""
    workers = sorted({row["workers"] for row in results["sources"]})
    rates = {(row["source"], row["workers"]): row["images_per_second"] for row in results["sources"]}
    width, height = results["median_size"]
    chains = results["augmentation"]["decode_augment_resize_us"]
    training = results["training"]
    return "\n\n".join(
        [
            f"Images per second of the data loader (decoded, augmented, resized), crops of {width:.0f} x {height:.0f} pixels "
            f"(median), {results['machine']}:",
            markdown_table(
                ["source", *(plural(number, "worker") for number in workers)],
                [
                    [source, *(f"{rates[source, number]:,}" for number in workers)]
                    for source in dict.fromkeys(source for source, _ in rates)
                ],
            ),
            "Decoding, augmenting and resizing, milliseconds per image and core: "
            + ", ".join(f"{time / 1000:.2f} ({name})" for name, time in chains.items())
            + ".",
            f"Compared with plain batches of one size, the buckets reach {100 * results['buckets']['of_plain']:.1f} % of the "
            f"data loading rate, and nano trains at {100 * training['of_plain']:.1f} % of the rate "
            f"({training['images_per_second']:.0f} images per second on one core, waiting for data "
            f"{100 * training['waiting']:.1f} % of the time). A resumed run skips {results['resuming_images_per_second']:,} images "
            f"per second and worker. The renderer alone reaches {results['rendering_images_per_second']:,} words per second and "
            "core at 32 x 128 pixels.",
        ]
    )


if __name__ == "__main__":
    main()
