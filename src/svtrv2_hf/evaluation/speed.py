# SPDX-License-Identifier: Apache-2.0
"""How fast a model reads, how much it computes and how much memory it takes; for `svtrv2 benchmark`.

Times are wall-clock times of whole calls, the device idle before and after. What is compared is timed in turn, round by
round, so that whatever else the machine does falls on all of it.
"""

import ctypes
import json
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
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
from ..configuration_svtrv2 import SVTRv2Config
from ..data.file_source import FileSource
from ..data.sources import open_source
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, load_rgb
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..pipeline_svtrv2 import SVTRv2TextRecognitionPipeline
from ..processing_svtrv2 import SVTRv2Processor
from .provenance import provenance


BATCH_SIZES = (1, 32)
LARGEST_BATCH = 1024
SEARCHED_FILES = 512  # that the best batch for reading files is searched for with
WIDE_RATIOS = (2, 5)  # widths of lines, in units of those of words
COMPILING = 'torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})'
GRAPHS = 256  # that torch may keep, where its own limit is 8: three for each size of images
PUBLISHED_DEVICE = "one NVIDIA 1080Ti"

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


def image_files(place: str, folder: Path, limit: int = 3000) -> list[Path]:
    """The image files in a folder, or else those of a source, as [`open_source`] takes it.

    Args:
        place: the folder, or the source.
        folder: where the images of a source that has no files of its own (LMDB, parquet, ...) are written, as they are.
        limit: how many to take; the paper's latency is that of the 3,000 test images of IIIT5k.

    Raises:
        FileNotFoundError, ValueError: there are none.
    """
    extensions = set(Image.registered_extensions())
    images = Path(place).expanduser()
    if images.is_dir():
        files = sorted(file for file in images.iterdir() if file.suffix.lower() in extensions)
        if files:
            return files[:limit]
    source = open_source(place)
    files = []
    for number, sample in enumerate(islice(source.read(), limit)):
        file = Path(sample.name) if isinstance(source, FileSource) else folder / f"{number:06}"
        if not isinstance(source, FileSource):
            file.write_bytes(sample.image)
        files.append(file)
    return files


@torch._dynamo.config.patch(cache_size_limit=GRAPHS)
def benchmark(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    files: Sequence[Path] = (),
    rounds: int = 10,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    largest_batch: int = LARGEST_BATCH,
    compiled: bool = False,
) -> dict[str, Any]:
    """Measures a model where it is, in the precision it is in, with the threads that torch has been given.

    Args:
        model: in evaluation mode.
        processor: tells the sizes that images are resized to.
        files: images to read from end to end; none for the model alone.
        rounds: how often everything is timed.
        batch_sizes: images computed together; 1 gives the latency. The best one is searched for besides.
        largest_batch: where that search ends.
        compiled: measure the compiled model, too. Each image size is compiled three times (see [`compile_for_reading`]),
            which takes about half a minute together.

    Returns:
        Figures that JSON can hold and [`render`] makes tables of: where they are from, `parameters` (those of the guidance branch
        left out, since reading has no use for them), `multiply_adds` of each size, `forward` (a row for each mode, size and
        batch size, the best one among them: milliseconds of a call, images a second, and the bytes it needs at its peak beside
        the weights), `search` (what the best one was found among), `compile_seconds`, and of files `reading` and `latency_of_set`.

    Raises:
        RuntimeError: the compiled model computes something else.
        UnreadableImageError: an image cannot be read.
    """
    sizes, batch_sizes = _sizes(processor), sorted(set(batch_sizes))
    modes: dict[str, Callable[..., Any]] = {"eager": model}
    if compiled:
        modes["compiled"] = compile_for_reading(model)
    on_gpu = model.device.type == "cuda"
    results: dict[str, Any] = {
        **provenance(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(model.device) if on_gpu else model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tf32": on_gpu and model.dtype == torch.float32 and torch.backends.cudnn.allow_tf32,
        "parameters": sum(p.numel() for name, p in model.named_parameters() if not name.startswith("guidance.")),
        "hidden_sizes": model.config.hidden_sizes,
        "classes": model.config.vocab_size,
        "rounds": rounds,
        "batch_sizes": batch_sizes,
        "multiply_adds": [[*size, multiply_adds(model, size)] for size in sizes],
        "compiling": COMPILING if compiled else None,
        **_forward(model, modes, sizes, batch_sizes, rounds, largest_batch),
    }
    if files:
        results["latency_of_set"] = latency_of_set(model, processor, files)
        results["reading"], searches = _reading(model, processor, modes, files, batch_sizes, largest_batch)
        results["search"] += searches
    return results


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
    return (lambda: None) if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)


def search_batch_size(rate: Callable[[int], float], largest: int) -> tuple[dict[int, float], str]:
    """Doubles the batch from 1 until two doublings in a row have brought no more.

    Args:
        rate: images a second at a batch size. It raises an error of too little memory where the batch does not fit.
        largest: batch size that is not exceeded.

    Returns:
        What `rate` said of each batch size, and what ended the search: "slower", "memory" or "limit".
    """
    rates = {1: rate(1)}
    batch_size = best = 1
    while 2 * batch_size <= largest:
        batch_size *= 2
        try:
            rates[batch_size] = rate(batch_size)
        except (MemoryError, RuntimeError) as error:
            if not _of_memory(error):
                raise
            return rates, "memory"
        if rates[batch_size] > rates[best]:
            best = batch_size
        elif batch_size == 4 * best:
            return rates, "slower"
    return rates, "limit"


def _of_memory(error: Exception) -> bool:
    # For CPUs, and for some libraries on GPUs, torch has no class of error but this.
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


@torch.no_grad()
def latency_of_set(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    files: Sequence[Path],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """The paper's latency: the mean time of a forward pass over all images of a set, one at a time, eager.

    As in Topdu/OpenOCR at ae934e5, `tools/infer_rec.py`, the time is that of bringing a prepared image to the device and
    of the forward pass; opening, resizing and decoding are left out. Unlike there, the clock stops when the device is done,
    not when it has been told what to do, and the first image of each size is passed once before. The script there tells
    two means, over images and over lengths of readings; this is the first.
    """
    tensors = [torch.from_numpy(processor.image_processor.prepare(load_rgb(file)))[None] for file in files]
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


class CompiledPipeline(TimedPipeline):
    """The same by a compiled model, which takes images of one size at a time."""

    def __init__(self, compiled: Callable[..., Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.compiled = compiled

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        return self._timed("forward", self._size_by_size, model_inputs)

    def _size_by_size(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        samples = model_inputs["sample"]
        batch = samples if isinstance(samples, list) else [samples]
        frames = logits_by_size(
            self.compiled, [sample["images"][0] for sample in batch], self.model.device, self.model.dtype
        )
        read = [{**sample, "images": [], "logits": [row]} for sample, row in zip(batch, frames, strict=True)]
        return {"sample": read if isinstance(samples, list) else read[0]}


def logits_by_size(
    compiled: Callable[..., Any], images: Sequence[np.ndarray], device: torch.device, dtype: torch.dtype
) -> list[np.ndarray]:
    """The logits of prepared images, each of shape (frames, classes), by a model that takes images of one size at a time."""
    rows = defaultdict(list)
    for row, image in enumerate(images):
        rows[image.shape].append(row)
    logits: dict[int, np.ndarray] = {}
    for of_size in rows.values():
        pixel_values = torch.from_numpy(np.stack([images[row] for row in of_size])).to(device, dtype)
        logits.update(zip(of_size, compiled(pixel_values).logits.float().cpu().numpy(), strict=True))
    return [logits[row] for row in range(len(images))]


@torch.no_grad()
def _reading(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    modes: Mapping[str, Callable[..., Any]],
    files: Sequence[Path],
    batch_sizes: Sequence[int],
    largest_batch: int,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images a second from files to texts, by the pipeline; part by part of the files, in turn by mode and batch size.

    Second, what the best batch sizes were found among.

    Everything has been read once before: files are in the memory that the system keeps of its disk.
    """
    paths = [str(file) for file in files]
    parts = {"model": model, "processor": processor, "device": model.device}

    def pipeline(mode: str) -> TimedPipeline:
        return TimedPipeline(**parts) if mode == "eager" else CompiledPipeline(modes[mode], **parts)

    cases, searches = [], []
    for mode in modes:
        some, read = paths[:SEARCHED_FILES], pipeline(mode)

        def rate(batch_size: int, read: TimedPipeline = read, some: list[str] = some) -> float:
            read(some, batch_size=batch_size)
            return len(some) / _quickest(lambda: read(some, batch_size=batch_size), times=2)

        rates, ended = search_batch_size(rate, min(largest_batch, len(some)))
        searches.append(_search(mode, "files", rates, ended))
        cases += [(mode, batch_size) for batch_size in sorted({*batch_sizes, max(rates, key=rates.__getitem__)})]
    pipelines = {case: pipeline(case[0]) for case in cases}
    for (_, batch_size), read in pipelines.items():
        read(paths, batch_size=batch_size)
        read.seconds.clear()
    part = max(128, *(batch_size for _, batch_size in cases))
    seconds: dict[tuple[str, int], float] = defaultdict(float)
    for start in tqdm(range(0, len(paths), part), desc="reading files", unit="part", disable=None):
        for case, read in pipelines.items():
            began = time.perf_counter()
            read(paths[start : start + part], batch_size=case[1])
            seconds[case] += time.perf_counter() - began
    rows = []
    for case, read in pipelines.items():
        shares = {step: of_step / seconds[case] for step, of_step in read.seconds.items()}
        rows.append(
            {
                "mode": case[0],
                "batch_size": case[1],
                "images": len(paths),
                "images_per_second": len(paths) / seconds[case],
                "shares": {**shares, "rest": 1 - sum(shares.values())},
            }
        )
    return rows, searches


def _search(mode: str, what: str, rates: Mapping[int, float], ended: str) -> dict[str, Any]:
    return {"mode": mode, "of": what, "images_per_second": [list(tried) for tried in rates.items()], "ended": ended}


@torch.no_grad()
def _forward(
    model: SVTRv2ForCTC,
    modes: Mapping[str, Callable[..., Any]],
    sizes: Sequence[Size],
    batch_sizes: Sequence[int],
    rounds: int,
    largest_batch: int,
) -> dict[str, Any]:
    """`forward`, `search` and `compile_seconds` of [`benchmark`]: everything is timed in turn, once the best batches are known."""
    synchronize = synchronizer(model.device)
    peaks: dict[tuple[str, Shape], int | None] = {}
    searches = []
    compile_seconds = 0.0

    def prepared(mode: str, shape: Shape) -> Callable[[], torch.Tensor]:
        """A call that has been made before, so that nothing is set up for the first time."""
        nonlocal compile_seconds
        pixel_values = _random(model, shape.batch_size, (shape.height, shape.width))
        run = _call(modes[mode], pixel_values)
        if mode == "compiled":
            compile_seconds += _compile(modes[mode], model, pixel_values)
        else:
            run()
        peaks[mode, shape] = peak_memory(run, model.device)
        return run

    def rate(mode: str, size: Size, batch_size: int) -> float:
        half = peaks.get((mode, Shape(*size, batch_size // 2)))
        if model.device.type == "cpu" and half is not None and 2 * half > available_memory():
            raise MemoryError  # before the system ends the process
        return batch_size / _quickest(prepared(mode, Shape(*size, batch_size)), synchronize)

    runs = {}
    for mode in modes:
        for size in tqdm(sizes, desc=f"best batch, {mode}", disable=None):
            rates, ended = search_batch_size(partial(rate, mode, size), largest_batch)
            if model.device.type == "cuda":
                torch.cuda.empty_cache()  # of the largest batch, or of what did not fit
            searches.append(_search(mode, f"{size[0]} x {size[1]}", rates, ended))
            for batch_size in sorted({*batch_sizes, max(rates, key=rates.__getitem__)}):
                runs[mode, Shape(*size, batch_size)] = prepared(mode, Shape(*size, batch_size))
    calls = {case: max(1, max(batch_sizes) // case[1].batch_size) for case in runs}
    seconds = time_in_turn(runs, rounds, calls, synchronize, title="forward pass")
    forward = [
        {
            "mode": case[0],
            **case[1]._asdict(),
            **summary(seconds[case], case[1].batch_size),
            "peak_bytes": peaks[case],
        }
        for case in runs
    ]
    return {"forward": forward, "search": searches, "compile_seconds": compile_seconds}


def _quickest(run: Callable[[], object], synchronize: Callable[[], object] = lambda: None, times: int = 3) -> float:
    """Seconds of the quickest call: what else the machine does only ever adds to them."""
    seconds = []
    for _ in range(times):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def compile_for_reading(model: SVTRv2ForCTC) -> Callable[..., Any]:
    """The model, to be compiled as it is called; `COMPILING` says how.

    Returns:
        a function of `pixel_values` of shape `(batch_size, 3, height, width)`. Each height and width gets graphs of its own:
        one for a single image, and for more of them one that takes any number, which torch makes twice for CPUs (up to 15 images, and
        from 16 on).
    """
    compiled: Callable[..., Any] = torch.compile(model, fullgraph=True, dynamic=False, options={"freezing": True})

    def compute(pixel_values: torch.Tensor) -> Any:
        if len(pixel_values) > 1:
            torch._dynamo.maybe_mark_dynamic(pixel_values, 0)
        return compiled(pixel_values)

    return compute


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
    # GPUs round the factors of float32 convolutions to 11 bits, unless they are told not to.
    precise = model.dtype == torch.float32 and model.device.type == "cpu"
    if not difference <= (1e-3 if precise else 0.1):
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


def available_memory() -> float:
    """Bytes that this machine can give without swapping; infinity where that cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


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
    batch_sizes = results["batch_sizes"]
    lines = [
        f"SVTRv2 with hidden sizes {', '.join(map(str, results['hidden_sizes']))} and {results['classes']} classes: "
        f"{results['parameters'] / 1e6:.3f} M parameters. {_place(results)}, {results['machine']}, "
        f"torch {results['versions']['torch']}; medians over {results['rounds']} rounds.",
        "",
        "Forward pass alone. A multiply-add is two FLOPs. MiB: peak beside the weights.",
        "",
        f"| image | G multiply-adds | mode | ms at batch {batch_sizes[0]} | 90 % within | "
        + " | ".join(f"images/s at {batch_size}" for batch_size in batch_sizes)
        + f" | MiB at {batch_sizes[-1]} | best batch | images/s | MiB |",
        "|---" * (9 + len(batch_sizes)) + "|",
    ]
    groups: dict[tuple[str, int, int], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for row in results["forward"]:
        groups[row["mode"], row["height"], row["width"]][row["batch_size"]] = row
    for (mode, height, width), rows in groups.items():
        first, last = rows[batch_sizes[0]], rows[batch_sizes[-1]]
        best = max(rows.values(), key=lambda row: row["images_per_second"])
        cells = [f"{height} x {width}", f"{counted[height, width] / 1e9:.3f}", mode]
        cells += [f"{first['median_ms']:.2f}", f"{first['p90_ms']:.2f}"]
        cells += [f"{rows[batch_size]['images_per_second']:,.0f}" for batch_size in batch_sizes]
        cells += [_mebibytes(last), str(best["batch_size"]), f"{best['images_per_second']:,.0f}", _mebibytes(best)]
        lines.append(f"| {' | '.join(cells)} |")
    if results["search"]:
        lines += ["", _search_told(results)]
    if results["compiling"]:
        lines += [
            "",
            f"Compiled by `{results['compiling']}`, graphs for each size: {results['compile_seconds']:.0f} s in all. MiB are beside "
            "its own copy of the weights.",
        ]
    if "latency_of_set" not in results:
        return "\n".join([*lines, "", "Reading image files was not measured: no images were given."])
    latency = results["latency_of_set"]
    lines += [
        "",
        f"Latency as the paper measures it, the mean over {latency['images']:,} images one at a time, prepared before, eager. The published "
        "figures are of another device, and tell nothing about this one:",
        "",
        "| model | device | ms an image |",
        "|---|---|---:|",
        f"| this one | {_place(results)} | {latency['mean_ms']:.2f} |",
        *(
            f"| {system}, as published | {PUBLISHED_DEVICE} | {ms:.1f} |"
            for system, ms in _published_latency().items()
        ),
        "",
        "From image files to texts, by the pipeline:",
        "",
        "| mode | batch | images/s | ms an image | open and resize | forward pass | CTC reading | the pipeline's own |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in results["reading"]:
        shares = [f"{row['shares'][step]:.0%}" for step in ("prepare", "forward", "decode", "rest")]
        lines.append(
            f"| {row['mode']} | {row['batch_size']} | {row['images_per_second']:,.0f} | "
            f"{1000 / row['images_per_second']:.2f} | {' | '.join(shares)} |"
        )
    return "\n".join(lines)


def _place(results: Mapping[str, Any]) -> str:
    precision = results["dtype"] + (" with convolutions in TF32" if results["tf32"] else "")
    return f"{precision} on {results['device']}, {results['threads']} threads"


def _mebibytes(row: Mapping[str, Any]) -> str:
    return "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**20:.0f}"


def _search_told(results: Mapping[str, Any]) -> str:
    """How the best batches were found, and which may not be the best of all."""
    text = "The best batch was searched for by doubling it from 1 on until two doublings in a row had brought no more images a second."
    for reason, words in (
        ("memory", "Memory ran out"),
        ("limit", "The limit was reached"),
    ):
        ended = [search for search in results["search"] if search["ended"] == reason]
        if ended:
            where = ", ".join(
                f"{search['of']} {search['mode']} (after {search['images_per_second'][-1][0]})" for search in ended
            )
            text += f" {words} before that: {where}."
    return text


def _published_latency() -> dict[str, float]:
    """Milliseconds of the paper's systems, by name."""
    published = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return {one["system"]: one["latency_ms"] for one in published if one["latency_ms"] is not None}
