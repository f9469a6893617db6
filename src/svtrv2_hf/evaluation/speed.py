# SPDX-License-Identifier: Apache-2.0
"""How fast a model reads, how much it computes and how much memory it takes; for `svtrv2 benchmark`.

Times are wall-clock times of whole calls, the device idle before and after. What is compared is timed in turn, round by
round, so that whatever else the machine does falls on all of it.
"""

import ctypes
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ..charsets import ENGLISH_94, build_tokenizer
from ..configuration_svtrv2 import PRESETS, SVTRv2Config
from ..data.sources import Sample, open_source
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, load_rgb
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
from ..processing_svtrv2 import SVTRv2Processor
from .provenance import provenance


BATCH_SIZES = (1, 8, 32)
MOST_TOGETHER = 1024  # images that the search for the best batch size tries at most
WIDE_RATIOS = (2, 5)  # widths of lines, in units of those of words
COMPILING = 'torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})'

Case = TypeVar("Case", bound=Hashable)
Size = tuple[int, int]  # height and width in pixels


class Shape(NamedTuple):
    """Of a batch of images; height and width in pixels."""

    height: int
    width: int
    batch_size: int


def fresh(size: str) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """A model of one of the four sizes with random weights, which take as long as trained ones, and its processor."""
    model = SVTRv2ForCTC(SVTRv2Config.preset(size)).eval()
    return model, SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(ENGLISH_94))


def read_images(place: str, limit: int = 3000) -> Iterator[Sample]:
    """Reads the image files in a folder, or else those of a source, as [`open_source`] takes it; they stay encoded.

    Args:
        place: the folder, or the source.
        limit: how many to take; the paper's latency is that of the 3,000 test images of IIIT5k.

    Raises:
        FileNotFoundError, ValueError: there are none.
    """
    extensions = set(Image.registered_extensions())
    folder = Path(place).expanduser()
    if folder.is_dir():
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in extensions)
        if files:
            return (Sample(file.read_bytes(), "", str(file)) for file in files[:limit])
    return islice(open_source(place).read(), limit)


def benchmark(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    images: str | None = None,
    limit: int = 3000,
    rounds: int = 10,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measures a model where it is, in the precision it is in, with the threads that torch has been given.

    Args:
        model: in evaluation mode.
        processor: tells the sizes that images are resized to.
        images: a place of files to read from end to end, as [`read_images`] takes it; `None` for the model alone.
        limit: how many of them to read.
        rounds: how often everything is timed.
        batch_sizes: images computed together; 1 gives the latency. For each image size, the best one is searched and added.
        compiled: measure the compiled model, too. Each image size and batch size is compiled on its own, which takes
            about half a minute each.

    Returns:
        Figures that JSON can hold and [`render`] makes tables of: where they are from, `parameters` (those of the guidance branch
        left out, since reading has no use for them), `multiply_adds` of each size, `best_batch` (for each size, and what ended
        the search), `forward` (a row for each size, batch size and mode: milliseconds of a call, images a second, and the bytes
        it needs at its peak beside the weights), and of images `reading` and `latency_of_set`.

    Raises:
        RuntimeError: the compiled model computes something else.
        FileNotFoundError, ValueError: there are no images.
        UnreadableImageError: an image cannot be read.
    """
    samples = list(read_images(images, limit)) if images is not None else []
    sizes, batch_sizes = _sizes(processor), sorted(set(batch_sizes))
    best = {size: best_batch_size(model, size) for size in tqdm(sizes, desc="best batch", disable=None)}
    shapes = [Shape(*size, number) for size in sizes for number in sorted({*batch_sizes, best[size][0]})]
    results: dict[str, Any] = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for name, p in model.named_parameters() if not name.startswith("guidance.")),
        "hidden_sizes": model.config.hidden_sizes,
        "classes": model.config.vocab_size,
        "rounds": rounds,
        "multiply_adds": [[*size, multiply_adds(model, size)] for size in sizes],
        "compiling": COMPILING if compiled else None,
        "best_batch": [[*size, *best[size]] for size in sizes],
        "forward": _forward(model, shapes, batch_sizes[-1], rounds, compiled),
    }
    if images is not None:
        results["latency_of_set"] = {
            **latency_of_set(model, processor, samples),
            "published": published_latency(model.config),
        }
        cases = [("eager", number) for number in sorted({batch_sizes[0], batch_sizes[-1]})]
        cases += [("compiled", 1)] if compiled else []
        results["reading"] = _reading(model, processor, images, samples, cases)
    return results


@torch.no_grad()
def best_batch_size(
    model: SVTRv2ForCTC, size: Size, clock: Callable[[], float] = time.perf_counter, most: int = MOST_TOGETHER
) -> tuple[int, str]:
    """The batch size at which most images a second of `size` go through the model; found by doubling.

    A batch counts as better if it gains 2 percent. The fastest of at least five calls and half a second decides, which other
    work of the machine disturbs least.

    Returns:
        the batch size, and what ended the search: "rate", after two doublings without gain from 32 on; "memory", if twice as
        many do not fit; or "limit", that of `most` images.
    """
    synchronize = synchronizer(model.device)
    best, best_rate, number = 1, 0.0, 1
    while number <= most and number <= max(4 * best, 32):
        try:
            run = _call(model, _random(model, number, size))
            run()
            seconds: list[float] = []
            while len(seconds) < 5 or sum(seconds) < 0.5:
                synchronize()
                start = clock()
                run()
                synchronize()
                seconds.append(clock() - start)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return best, "memory"
        if (rate := number / min(seconds)) > 1.02 * best_rate:
            best, best_rate = number, rate
        number *= 2
    return best, "rate" if number <= most else "limit"


def published_latency(config: SVTRv2Config) -> float | None:
    """Milliseconds that the authors published for a model of this size, on one NVIDIA 1080Ti; `None` if they have not."""
    sizes = {"SVTRv2-T": "tiny", "SVTRv2-S": "small", "SVTRv2-B": "base"}
    # not by `benchmarks.PUBLISHED`: scores need the train extra, and speed does not
    for result in json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8")):
        preset = PRESETS[sizes[result["system"]]]
        if result["latency_ms"] is not None and all(getattr(config, key) == value for key, value in preset.items()):
            return float(result["latency_ms"])
    return None


@torch.no_grad()
def multiply_adds(model: SVTRv2ForCTC, size: Size) -> int:
    """Multiply-adds for one image of `size`, in convolutions, linear layers and attention; half of torch's FLOPs.

    The published figures are a little larger (0.922 G, not 0.907 G, for tiny at 32 x 128): they are of the feature
    rearrangement as it is written in the paper, from which ours saves two linear layers over all positions.
    """
    # The fused attention of CPUs is a product that torch does not count.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(_random(model, 1, size))
    return counter.get_total_flops() // 2


def time_in_turn(
    cases: Mapping[Case, Callable[[], object]],
    rounds: int,
    calls: Mapping[Case, int],
    synchronize: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    title: str | None = None,
) -> dict[Case, np.ndarray]:
    """Times every case in each round, the first one of a round being the second of the round before.

    Args:
        cases: what is timed; everything must have been called before, so that nothing is set up for the first time.
        rounds: how many.
        calls: of each case in a round, one after the other.
        synchronize: waits until the device has nothing left to do.
        clock: tells seconds.
        title: of the progress bar.

    Returns:
        Seconds of each call, of shape `(rounds, calls)` for each case.
    """
    names = list(cases)
    seconds = {name: np.zeros((rounds, calls[name])) for name in names}
    with tqdm(total=rounds * len(names), desc=title, disable=None) as progress:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                for call in range(calls[name]):
                    synchronize()
                    start = clock()
                    cases[name]()
                    synchronize()
                    seconds[name][number, call] = clock() - start
                progress.update()
    return seconds


def paired_ratio(seconds: np.ndarray, others: np.ndarray) -> float:
    """How many times as long as `others` a case takes: the median over rounds of the ratio of their medians in the round."""
    return float(np.median(np.median(seconds, axis=1) / np.median(others, axis=1)))


def synchronizer(device: torch.device) -> Callable[[], object]:
    """What waits for a device; CPUs are never ahead of the program."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else lambda: None


@torch.no_grad()
def latency_of_set(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    images: Sequence[Sample],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The paper's latency: the mean time of a forward pass over all images of a set, one at a time.

    As in Topdu/OpenOCR at ae934e5, `tools/infer_rec.py`, the time is that of bringing a prepared image to the device and
    of the forward pass; opening, resizing and decoding are left out. Unlike there, the clock stops when the device is done,
    not when it has been told what to do, and the first image of each size is passed once before.
    """
    tensors = [
        torch.from_numpy(processor.image_processor.prepare(load_rgb(image.image, name=image.name)))[None]
        for image in images
    ]
    for tensor in {tensor.shape: tensor for tensor in tensors}.values():
        model(tensor.to(model.device, model.dtype))
    synchronize = synchronizer(model.device)
    seconds = []
    for tensor in tqdm(tensors, desc="latency", unit="image", disable=None):
        synchronize()
        start = clock()
        model(tensor.to(model.device, model.dtype))
        synchronize()
        seconds.append(clock() - start)
    sizes = Counter(f"{tensor.shape[2]} x {tensor.shape[3]}" for tensor in tensors)
    return {"images": len(tensors), "mean_ms": 1000 * statistics.fmean(seconds), "sizes": dict(sizes.most_common())}


class TimedPipeline(SVTRv2TextRecognitionPipeline):
    """The pipeline, and how long each of its steps has taken. The forward pass ends with its logits on the CPU."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.seconds: dict[str, float] = defaultdict(float)

    def preprocess(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return self._timed("prepare", super().preprocess, *arguments, **options)

    def _forward(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        return self._timed("forward", super()._forward, *arguments, **options)

    def postprocess(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        return self._timed("decode", super().postprocess, *arguments, **options)

    def _timed(self, step: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = work(*arguments, **options)
        self.seconds[step] += time.perf_counter() - start
        return result


class _OneImageCompiled:
    """A model in a pipeline that passes single images, compiled for the size of each; sizes beside them would break the graph."""

    def __init__(self, model: SVTRv2ForCTC):
        self.dtype = model.dtype
        self._fast = compile_for_reading(model)

    def __call__(self, pixel_values: torch.Tensor, **_: Any) -> Any:
        return self._fast(pixel_values)


def _reading(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    place: str,
    samples: Sequence[Sample],
    cases: Sequence[tuple[str, int]],
) -> list[dict[str, Any]]:
    """Images a second from files to texts, by the pipeline; part by part of the images, in turn by mode and batch size.

    Args:
        model, processor: of the pipeline.
        place: of the files, which are read again from there.
        samples: what lies there, to be ready for it all.
        cases: modes, "eager" or "compiled", and batch sizes.
    """
    pipelines = {case: TimedPipeline(model=model, processor=processor, device=model.device) for case in cases}
    part = 4 * max(number for _, number in cases)
    readers = {case: read_images(place, len(samples)) for case in cases}
    for (mode, number), pipeline in pipelines.items():
        if mode == "compiled":
            of_each_size = {processor.image_processor.prepare(load_rgb(one.image)).shape: one.image for one in samples}
            pipeline.model = _OneImageCompiled(model)
            with _graphs():
                pipeline(list(of_each_size.values()), batch_size=number)
        else:
            pipeline([one.image for one in samples[:part]], batch_size=number)
        pipeline.seconds.clear()
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for _ in tqdm(range(0, len(samples), part), desc="reading files", unit="part", disable=None):
        for case, pipeline in pipelines.items():
            began = time.perf_counter()
            files = [one.image for one in islice(readers[case], part)]
            pipeline.seconds["files"] += time.perf_counter() - began
            pipeline(files, batch_size=case[1])
            seconds[case] += time.perf_counter() - began
    rows = []
    for case, pipeline in pipelines.items():
        shares = {step: of_step / seconds[case] for step, of_step in pipeline.seconds.items()}
        rows.append(
            {
                "mode": case[0],
                "batch_size": case[1],
                "images": len(samples),
                "images_per_second": len(samples) / seconds[case],
                "shares": {**shares, "rest": 1 - sum(shares.values())},
            }
        )
    return rows


@torch.no_grad()
def _forward(
    model: SVTRv2ForCTC, shapes: Sequence[Shape], images: int, rounds: int, compiled: bool
) -> list[dict[str, Any]]:
    """A row for each shape and mode: all of them timed in turn, each on `images` in a round, or on one batch."""
    inputs = {shape: _random(model, shape.batch_size, (shape.height, shape.width)) for shape in shapes}
    runs = {("eager", shape): _call(model, inputs[shape]) for shape in shapes}
    peaks = {}
    for case, run in runs.items():
        run()  # sets up what torch sets up once
        peaks[case] = peak_memory(run, model.device)
    compile_seconds = {}
    if compiled:
        fast = compile_for_reading(model)
        for shape in tqdm(shapes, desc="compiling", disable=None):
            with _graphs():
                compile_seconds["compiled", shape] = _compile(fast, model, inputs[shape])
            runs["compiled", shape] = _call(fast, inputs[shape])
            peaks["compiled", shape] = peak_memory(runs["compiled", shape], model.device)
    calls = {case: max(1, images // case[1].batch_size) for case in runs}
    seconds = time_in_turn(runs, rounds, calls, synchronizer(model.device), title="forward pass")
    return [
        {
            "mode": case[0],
            **case[1]._asdict(),
            **summary(seconds[case], case[1].batch_size),
            "peak_bytes": peaks[case],
            "compile_seconds": compile_seconds.get(case),
        }
        for case in runs
    ]


def compile_for_reading(model: SVTRv2ForCTC) -> Callable[..., Any]:
    """The model, to be compiled for each shape of images that it is given; `COMPILING` says how."""
    compiled: Callable[..., Any] = torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})
    return compiled


def _graphs() -> AbstractContextManager:
    """Lets torch compile a graph for each shape that a run comes upon, where it would stop at 8 of them all together."""
    patch: AbstractContextManager = torch._dynamo.config.patch(cache_size_limit=256)
    return patch


def _compile(fast: Callable[..., Any], model: SVTRv2ForCTC, pixel_values: torch.Tensor) -> float:
    """Seconds of the first call of a compiled model, whose answer must be the model's."""
    synchronize = synchronizer(model.device)
    synchronize()
    start = time.perf_counter()
    found = fast(pixel_values).logits.softmax(-1)
    synchronize()
    seconds = time.perf_counter() - start
    expected = model(pixel_values).logits.softmax(-1)
    difference = float((found - expected).abs().max())
    if not difference <= (1e-3 if model.dtype == torch.float32 else 0.1):
        raise RuntimeError(
            f"The compiled model and the model itself disagree by {difference:.2g} in probability on images of shape "
            f"{tuple(pixel_values.shape)}, so its speed says nothing."
        )
    return seconds


def summary(seconds: np.ndarray, batch_size: int) -> dict[str, float]:
    """Milliseconds of a call, and images a second at its median."""
    median, slow = np.percentile(seconds, [50, 90])
    return {
        "median_ms": 1000 * float(median),
        "p90_ms": 1000 * float(slow),
        "images_per_second": batch_size / float(median),
    }


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call needs at its peak beyond what there was before it; `None` where they cannot be told.

    On CUDA, of torch's allocator. Else by how much the resident memory of the process grows, which Linux tells, once what
    earlier calls have left to the allocator is given back; threads of other work in the process would count, too.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        resident = _resident("VmRSS")
    except (AttributeError, OSError, TypeError):
        return None
    run()
    return max(0, _resident("VmHWM") - resident)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def _sizes(processor: SVTRv2Processor) -> list[Size]:
    """The sizes of short words, and two of long lines."""
    image_processor = processor.image_processor
    height, width = image_processor.base_size
    words = [(height, width)] if image_processor.fixed_height else [(h, w) for h, w in image_processor.bucket_sizes]
    return words + [(height, width * ratio) for ratio in WIDE_RATIOS]


def _random(model: SVTRv2ForCTC, batch_size: int, size: Size) -> torch.Tensor:
    pixel_values = torch.rand(batch_size, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return pixel_values.to(model.device, model.dtype)


def _call(model: Callable[..., Any], pixel_values: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: model(pixel_values).logits


def render(results: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    counted = {(height, width): number for height, width, number in results["multiply_adds"]}
    groups: dict[tuple[str, int, int], dict[int, Mapping[str, Any]]] = {}
    for row in results["forward"]:
        groups.setdefault((row["mode"], row["height"], row["width"]), {})[row["batch_size"]] = row
    asked = sorted(set.intersection(*(set(rows) for rows in groups.values())))
    lines = [
        f"SVTRv2 with hidden sizes {', '.join(map(str, results['hidden_sizes']))} and {results['classes']} classes: "
        f"{results['parameters'] / 1e6:.3f} M parameters. {results['dtype']} on {results['device']}, "
        f"{results['threads']} threads, {results['machine']}, torch {results['versions']['torch']}; medians over "
        f"{results['rounds']} rounds.",
        "",
        f"Forward pass alone. A multiply-add is two FLOPs. MiB: peak beside the weights, at batch {asked[-1]}. Best: of these batches and "
        "of the one that a search by doubling found.",
        "",
        "| image | G multiply-adds | mode | ms at batch "
        + f"{asked[0]} | 90 % within | "
        + " | ".join(f"images/s at {batch_size}" for batch_size in asked)
        + " | best images/s | at batch | MiB |",
        "|---" * (8 + len(asked)) + "|",
    ]
    for (mode, height, width), rows in groups.items():
        best = max(rows.values(), key=lambda row: row["images_per_second"])
        peak = rows[asked[-1]]["peak_bytes"]
        cells = [
            f"{height} x {width}",
            f"{counted[height, width] / 1e9:.3f}",
            mode,
            f"{rows[asked[0]]['median_ms']:.2f}",
            f"{rows[asked[0]]['p90_ms']:.2f}",
            *(f"{rows[batch_size]['images_per_second']:,.0f}" for batch_size in asked),
            f"{best['images_per_second']:,.0f}",
            str(best["batch_size"]),
            "" if peak is None else f"{peak / 2**20:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for height, width, batch_size, end in results["best_batch"]:
        if end == "memory":
            lines += [
                "",
                f"Of {height} x {width}, more than {batch_size} images together were not measured: twice as many do not fit into memory.",
            ]
    if results["compiling"]:
        seconds = [row["compile_seconds"] for row in results["forward"] if row["compile_seconds"] is not None]
        lines += [
            "",
            f"Compiled by `{results['compiling']}`, each shape on its own: {statistics.median(seconds):.0f} s in the median, "
            f"{sum(seconds):.0f} s in all.",
        ]
    if "latency_of_set" not in results:
        return "\n".join([*lines, "", "Reading image files was not measured: no images were given."])
    latency = results["latency_of_set"]
    published = latency["published"]
    lines += [
        "",
        f"Latency as the paper measures it, the mean over {latency['images']:,} images one at a time, prepared before: "
        f"{latency['mean_ms']:.2f} ms."
        + ("" if published is None else f" On another device, one NVIDIA 1080Ti, its authors had {published:.1f} ms."),
        "",
        "From image files to texts, by the pipeline; the files lie in the memory of the system, having been read before:",
        "",
        "| mode | batch | images/s | ms an image | read files | open and resize | forward pass | CTC reading | the pipeline's own |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["reading"]:
        shares = [f"{row['shares'][step]:.0%}" for step in ("files", "prepare", "forward", "decode", "rest")]
        lines.append(
            f"| {row['mode']} | {row['batch_size']} | {row['images_per_second']:,.0f} | {1000 / row['images_per_second']:.2f} | "
            f"{' | '.join(shares)} |"
        )
    return "\n".join(lines)
