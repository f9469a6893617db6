# SPDX-License-Identifier: Apache-2.0
"""Measurement of the speed, computation and memory of a model, for `svtrv2 benchmark`.

Times are wall-clock times of whole calls, with an idle device before and after. Cases that are compared are timed in turn,
round by round, so that other load on the machine affects all of them.
"""

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
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, load_rgb
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..paths import user_path
from ..pipeline_svtrv2 import WINDOW, SVTRv2TextRecognitionPipeline
from ..processing_svtrv2 import SVTRv2Processor
from ..runtime.model import SVTRv2ForCTCRuntime
from ..sources import open_source
from ..sources.file_source import FileSource
from .memory import available_memory, peak_memory
from .provenance import provenance


SEARCHED_FILES = 512  # files used to search for the best batch size of the pipeline
WIDE_RATIOS = (2, 5)  # widths of line images, as multiples of the base width

Case = TypeVar("Case", bound=Hashable)
Size = tuple[int, int]  # height and width in pixels
Model = SVTRv2ForCTC | SVTRv2ForCTCRuntime
Search = tuple[dict[int, float], str]  # rate of each batch size tried, and why the search ended


class Shape(NamedTuple):
    """Shape of a batch of images; height and width in pixels."""

    height: int
    width: int
    batch_size: int


def fresh(size: str) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """Create a model of a preset size with random weights, which are as fast as trained ones, and its processor."""
    model = SVTRv2ForCTC(SVTRv2Config.preset(size)).eval()
    return model, SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(ENGLISH_94))


def image_files(place: str, folder: Path, limit: int) -> list[Path]:
    """Return the image files in a folder, or the images of a source, as for [`open_source`].

    Args:
        place: a folder or a source.
        folder: where the images of a source without image files (LMDB, parquet, ...) are written, unchanged.
        limit: maximum number of images.

    Raises:
        FileNotFoundError, ValueError: no images were found.
    """
    extensions = set(Image.registered_extensions())
    images = user_path(place)
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


def benchmark(
    model: Model,
    processor: SVTRv2Processor,
    files: Sequence[Path],
    rounds: int,
    batch_sizes: Sequence[int],
    largest_batch: int,
) -> dict[str, Any]:
    """Measure a model on its device, in its dtype, with torch's current number of threads.

    Args:
        model: model in evaluation mode.
        processor: processor of the model, which defines the image sizes.
        files: image files for measuring the whole pipeline; if empty, only the model is measured.
        rounds: number of timing rounds.
        batch_sizes: batch sizes to measure in addition to the fastest one, which is searched for; 1 gives the latency.
        largest_batch: upper limit of that search.

    Returns:
        Figures for a JSON file and for [`svtrv2_hf.evaluation.speed_report.render`]: provenance, `parameters` (without the guidance branch, which
        is not used for inference), `multiply_adds` of each size, `forward` (a row for each image size and batch size:
        milliseconds of a call, images per second, and peak memory in bytes in addition to the weights), `search` (the batch
        sizes tried), and with files `pipeline` and `latency_of_set`.

    Raises:
        UnreadableImageError: an image is unreadable.
    """
    sizes, batch_sizes = _sizes(processor), sorted(set(batch_sizes))
    on_gpu = model.device.type == "cuda"
    # The operations and parameters of an exported model are those of the original.
    counted = SVTRv2ForCTC(model.config).eval() if isinstance(model, SVTRv2ForCTCRuntime) else model
    searches: dict[str, Search] = {}
    results: dict[str, Any] = {
        **provenance(),
        **({"file": f"{model.backend}/{model.file.name}"} if isinstance(model, SVTRv2ForCTCRuntime) else {}),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(model.device) if on_gpu else model.device.type,
        "dtype": str(model.dtype).removeprefix("torch."),
        "tf32": on_gpu and model.dtype == torch.float32 and torch.backends.cudnn.allow_tf32,
        "parameters": sum(p.numel() for name, p in counted.named_parameters() if not name.startswith("guidance.")),
        "hidden_sizes": model.config.hidden_sizes,
        "classes": model.config.vocab_size,
        "rounds": rounds,
        "batch_sizes": batch_sizes,
        "multiply_adds": [[*size, multiply_adds(counted, size)] for size in sizes],
        "forward": _forward(model, sizes, batch_sizes, rounds, largest_batch, searches),
    }
    if files:
        results["latency_of_set"] = latency_of_set(model, processor, files)
        results["pipeline"] = _pipeline(model, processor, files, batch_sizes, largest_batch, searches)
    results["search"] = [
        {"of": of, "images_per_second": [list(tried) for tried in rates.items()], "ended": ended}
        for of, (rates, ended) in searches.items()
    ]
    return results


@torch.no_grad()
def multiply_adds(model: SVTRv2ForCTC, size: Size) -> int:
    """Count the multiply-adds of one image in convolutions, linear layers and attention: half of torch's FLOPs.

    Published figures are slightly larger (0.922 G instead of 0.907 G for tiny at 32 x 128): they count the feature
    rearrangement as written in the paper, from which this implementation saves two linear layers over all positions.
    """
    # torch does not count the fused attention kernel of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(_random(model, Shape(*size, 1)))
    return counter.get_total_flops() // 2


def time_in_turn(
    cases: Mapping[Case, Callable[[], object]],
    rounds: int,
    calls: Mapping[Case, int],
    synchronize: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
    title: str | None = None,
) -> dict[Case, np.ndarray]:
    """Time every case once per round; each round starts with the next case.

    Args:
        cases: functions to time; each must have been called before, to exclude one-time setup.
        rounds: number of rounds.
        calls: consecutive calls of each case in a round.
        synchronize: waits until the device is idle.
        clock: returns seconds.
        title: title of the progress bar.

    Returns:
        Seconds of each call, of shape `(rounds, calls)`, for each case.
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


def synchronizer(device: torch.device) -> Callable[[], object]:
    """Return a function that waits until a device is idle; CPU calls are synchronous."""
    return (lambda: None) if device.type == "cpu" else lambda: torch.accelerator.synchronize(device)


def search_batch_size(rate: Callable[[int], float], largest: int) -> Search:
    """Double the batch size from 1 until two doublings in a row bring no improvement.

    Args:
        rate: returns images per second for a batch size, or raises an out-of-memory error.
        largest: upper limit of the batch size.

    Returns:
        The rate of each batch size tried, and why the search ended: "slower", "memory" or "limit".
    """
    rates = {1: rate(1)}
    batch_size = best = 1
    while 2 * batch_size <= largest:
        batch_size *= 2
        try:
            rates[batch_size] = rate(batch_size)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            return rates, "memory"
        if rates[batch_size] > rates[best]:
            best = batch_size
        elif batch_size == 4 * best:
            return rates, "slower"
    return rates, "limit"


def _out_of_memory(error: Exception) -> bool:
    # For CPUs, and for some GPU libraries, torch has no specific error class.
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


@torch.no_grad()
def latency_of_set(
    model: Model,
    processor: SVTRv2Processor,
    files: Sequence[Path],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Measure the latency of the paper: mean time of a forward pass over all images of a dataset, one at a time.

    As in Topdu/OpenOCR at ae934e5, `tools/infer_rec.py`, the time includes the transfer of a prepared image to the device
    and the forward pass, but not opening, resizing and decoding. Unlike there, the clock stops when the device is done, not
    when the work is queued, and the first image of each size is run once before. That script reports two means, over images
    and over lengths of texts; this is the first one.
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
    sizes = Counter(f"{tensor.shape[2]} x {tensor.shape[3]}" for tensor in tensors).most_common()
    return {"images": len(tensors), "mean_ms": 1000 * statistics.fmean(seconds), "sizes": dict(sizes)}


class TimedPipeline(SVTRv2TextRecognitionPipeline):
    """The pipeline with the total seconds of each step. The forward step ends with its logits on the CPU."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.seconds: dict[str, float] = defaultdict(float)
        for step, method in (("prepare", "preprocess"), ("forward", "_forward"), ("decode", "postprocess")):
            setattr(self, method, partial(self._timed, step, getattr(self, method)))

    def _timed(self, step: str, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = work(*arguments, **options)
        self.seconds[step] += time.perf_counter() - start
        return result


@torch.no_grad()
def _pipeline(
    model: Model,
    processor: SVTRv2Processor,
    files: Sequence[Path],
    batch_sizes: Sequence[int],
    largest_batch: int,
    searches: dict[str, Search],
) -> list[dict[str, Any]]:
    """Measure the pipeline from files to texts for each batch size.

    Batch sizes take turns on parts of the files. All files are read once before, so they are in the page cache.
    """
    paths = [str(file) for file in files]
    parts = {"model": model, "processor": processor, "device": model.device}
    some, read = paths[:SEARCHED_FILES], TimedPipeline(**parts)

    def rate(batch_size: int) -> float:
        read(some, batch_size=batch_size)
        return len(some) / _fastest(lambda: read(some, batch_size=batch_size), times=2)

    searches["files"] = search_batch_size(rate, min(largest_batch, len(some)))
    pipelines = {batch_size: TimedPipeline(**parts) for batch_size in _with_best(batch_sizes, searches["files"])}
    for batch_size, read_files in pipelines.items():
        read_files(paths, batch_size=batch_size)
        read_files.seconds.clear()
    part = WINDOW * max(pipelines)  # shorter ones would leave too few images of one size
    seconds: dict[int, float] = defaultdict(float)
    for start in tqdm(range(0, len(paths), part), desc="pipeline", unit="part", disable=None):
        for batch_size, read_files in pipelines.items():
            began = time.perf_counter()
            read_files(paths[start : start + part], batch_size=batch_size)
            seconds[batch_size] += time.perf_counter() - began
    rows = []
    for batch_size, read_files in pipelines.items():
        shares = {step: of_step / seconds[batch_size] for step, of_step in read_files.seconds.items()}
        row = {"batch_size": batch_size, "images": len(paths), "images_per_second": len(paths) / seconds[batch_size]}
        rows.append(row | {"shares": {**shares, "rest": 1 - sum(shares.values())}})
    return rows


def _with_best(batch_sizes: Sequence[int], search: Search) -> list[int]:
    rates, _ = search
    return sorted({*batch_sizes, max(rates, key=rates.__getitem__)})


@torch.no_grad()
def _forward(
    model: Model,
    sizes: Sequence[Size],
    batch_sizes: Sequence[int],
    rounds: int,
    largest_batch: int,
    searches: dict[str, Search],
) -> list[dict[str, Any]]:
    """Measure the forward pass of each size and batch size, timed in turn once the best batch sizes are known."""
    synchronize = synchronizer(model.device)
    peaks: dict[Shape, int | None] = {}

    def prepared(shape: Shape) -> Callable[[], torch.Tensor]:
        """Return a call after its first execution, to exclude one-time setup."""
        pixel_values = _random(model, shape)

        def run() -> torch.Tensor:
            return model(pixel_values).logits

        run()
        peaks[shape] = peak_memory(run, model.device)
        return run

    def rate(size: Size, batch_size: int) -> float:
        half = peaks.get(Shape(*size, batch_size // 2))
        if model.device.type == "cpu" and half is not None and 2 * half > available_memory():
            raise MemoryError  # before Linux kills the process
        return batch_size / _fastest(prepared(Shape(*size, batch_size)), synchronize)

    runs = {}
    for size in tqdm(sizes, desc="best batch", disable=None):
        search = searches[f"{size[0]} x {size[1]}"] = search_batch_size(partial(rate, size), largest_batch)
        if model.device.type == "cuda":
            torch.cuda.empty_cache()  # memory of the largest batch, or of a batch that did not fit
        for batch_size in _with_best(batch_sizes, search):
            runs[Shape(*size, batch_size)] = prepared(Shape(*size, batch_size))
    calls = {shape: max(1, max(batch_sizes) // shape.batch_size) for shape in runs}
    seconds = time_in_turn(runs, rounds, calls, synchronize, title="forward pass")
    return [
        {**shape._asdict(), **summary(seconds[shape], shape.batch_size), "peak_bytes": peaks[shape]} for shape in runs
    ]


def _fastest(run: Callable[[], object], synchronize: Callable[[], object] = lambda: None, times: int = 3) -> float:
    """Return the seconds of the fastest call: other load on the machine only adds time."""
    seconds = []
    for _ in range(times):
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def summary(seconds: np.ndarray, batch_size: int) -> dict[str, float]:
    """Return milliseconds of a call (median and 90th percentile), and images per second at the median."""
    median, slow = np.percentile(seconds, [50, 90]).tolist()
    return {"median_ms": 1000 * median, "p90_ms": 1000 * slow, "images_per_second": batch_size / median}


def _sizes(processor: SVTRv2Processor) -> list[Size]:
    """Return the image sizes of words, and two sizes of long lines."""
    height, width = processor.image_processor.base_size
    words = [(h, w) for h, w in processor.image_processor.bucket_sizes]
    return words + [(height, width * ratio) for ratio in WIDE_RATIOS]


def _random(model: Model, shape: Shape) -> torch.Tensor:
    noise = torch.rand(shape.batch_size, 3, shape.height, shape.width, generator=torch.Generator().manual_seed(0))
    return (noise * 2 - 1).to(model.device, model.dtype)
