# SPDX-License-Identifier: Apache-2.0
"""Export of a model to ONNX and OpenVINO, in the layout of folders that tools of the Hub expect.

`onnx/model.onnx`, `openvino/openvino_model.xml` and, quantized, `onnx/model_quantized.onnx` and
`openvino/openvino_model_qint8_quantized.xml` are next to `config.json`, the processor and the tokenizer.
"""

import logging
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..checkpoint import JSON_FILES, checkpoint_folder, default_checkpoint, load_model_and_processor
from ..extras import extra
from ..image_processing_svtrv2 import SVTRv2ImageProcessor
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..paths import user_path
from ..processing_svtrv2 import SVTRv2Processor
from .model import FILES, Backend, SVTRv2ForCTCRuntime
from .quantization import quantize_onnx, quantize_openvino


TOLERANCE = 1e-3  # largest difference of logits; their rounding errors are about 1e-5
MAX_COMPARED = 24  # image sizes
READER = Path(__file__).with_name("read.py")


class Exported(NamedTuple):
    """The result of an export.

    Attributes:
        files: the written files.
        sizes: number of compared image sizes; 0 if the model is quantized.
        difference: largest difference of logits.
        changed: number of calibration images whose text differs from that of the float32 model.
        images: number of calibration images.
        without_reader: why `onnx/read.py` is not among the files, or `None`.
    """

    files: list[Path]
    sizes: int = 0
    difference: float = 0.0
    changed: int = 0
    images: int = 0
    without_reader: str | None = None


class _Logits(nn.Module):
    def __init__(self, model: SVTRv2ForCTC):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values).logits


def export(
    folder: str | Path,
    backend: Backend = "onnx",
    output: str | Path | None = None,
    calibration: Callable[[SVTRv2ImageProcessor], Sequence[np.ndarray]] | None = None,
) -> Exported:
    """Export a saved model and compare the file with it.

    Args:
        folder: folder of a saved model, or "default".
        backend: "onnx" or "openvino".
        output: folder to write to, with the configuration and the processor of the model; defaults to the folder of the
            model.
        calibration: returns prepared images of shape `(3, height, width)`; with it, the file is quantized to int8.

    Raises:
        ValueError: a package is not installed, the folder is not valid, or the logits differ from those of torch.
        FileExistsError: a file exists already.
    """
    with extra(backend, f"Export to {backend}"):
        _find_packages(backend, calibration is not None)
    place = Path(checkpoint_folder(folder))
    if not place.is_dir() or (output is None and place.resolve() == Path(default_checkpoint()).resolve()):
        raise ValueError(
            f"Choose a folder for the export of {folder}: --output FOLDER."
            if place.is_dir()
            else f"{folder} is not a folder: download it with hf download {folder} --local-dir FOLDER, and export that."
        )
    target = place if output is None else user_path(output)
    quantized = calibration is not None
    file = target / backend / FILES[backend][quantized]
    written = [file, file.with_suffix(".bin")] if backend == "openvino" else [file]
    for path in written:
        if path.exists():
            raise FileExistsError(f"{path} already exists: choose another folder with --output, or remove it.")
    settings = {} if target.resolve() == place.resolve() else _settings(place, target)
    model, processor = load_model_and_processor(folder, use_guidance=False)
    model.eval()
    with tempfile.TemporaryDirectory() as temporary:
        graph = Path(temporary) / "model.onnx"
        export_onnx(model, graph)
        staged = Path(temporary) / file.name
        if calibration is not None:
            images = calibration(processor.image_processor)
            quantize = quantize_onnx if backend == "onnx" else quantize_openvino
            quantize(graph, staged, images)
        elif backend == "openvino":
            _convert_to_openvino(graph, staged)
        runtime = SVTRv2ForCTCRuntime(model.config, staged, backend)
        if calibration is not None:
            changed = _changed_texts(model, runtime, processor, images)
            result = Exported(written, changed=changed, images=len(images))
        else:
            sizes = _compared_sizes(processor.image_processor)
            difference = _largest_difference(model, runtime, sizes)
            if not difference <= TOLERANCE:
                raise ValueError(
                    f"The logits of the exported model differ from those of torch by up to {difference:.2g}, more than "
                    f"{TOLERANCE:g}: report the versions of torch, onnx and {backend}."
                )
            result = Exported(written, len(sizes), difference)
        file.parent.mkdir(parents=True, exist_ok=True)
        for path in written:
            shutil.copyfile(staged.with_suffix(path.suffix), path)
    for source, copy in settings.items():
        shutil.copyfile(source, copy)
    if backend == "onnx":
        reason = _without_reader(processor.image_processor)
        reader = file.with_name(READER.name)
        if reason is None and not reader.exists():
            shutil.copyfile(READER, reader)
            written.append(reader)
        result = result._replace(without_reader=reason)
    return result


def export_onnx(model: SVTRv2ForCTC, file: Path) -> None:
    """Write a model as ONNX with inputs of any batch size, height and width, without names of files and functions."""
    import onnx

    dynamic = torch.export.Dim.DYNAMIC
    # torch.export assumes that a size of 1 is constant.
    example = torch.zeros(2, 3, 32, 128, dtype=model.dtype, device=model.device)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            _Logits(model).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"pixel_values": {0: dynamic, 2: dynamic, 3: dynamic}},
            input_names=["pixel_values"],
            output_names=["logits"],
        )
    assert program is not None
    proto = program.model_proto
    graph = proto.graph
    del graph.value_info[:]  # shapes of intermediate results
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value, names in (
        (graph.input[0], ("batch", "", "height", "width")),
        (graph.output[0], ("batch", "frames", "")),
    ):
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
            if name:
                dimension.dim_param = name
    onnx.save(proto, file)


def _find_packages(backend: Backend, quantize: bool) -> None:
    packages = ["onnx", "onnxscript", "onnxruntime" if backend == "onnx" else "openvino"]
    packages += ["nncf"] if quantize and backend == "openvino" else []
    if missing := [name for name in packages if find_spec(name) is None]:
        raise ImportError(", ".join(missing))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of the exporter about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _convert_to_openvino(graph: Path, file: Path) -> None:
    import openvino

    # Not convert_model, which sends usage statistics.
    openvino.save_model(openvino.Core().read_model(graph), file, compress_to_fp16=False)


def _compared_sizes(processor: SVTRv2ImageProcessor) -> list[tuple[int, int]]:
    """Return the sizes of resized images, at most about `MAX_COMPARED`, and an odd one."""
    step = math.ceil(processor.max_ratio / MAX_COMPARED)
    ratios = [*range(1, processor.max_ratio, step), processor.max_ratio]
    sizes = dict.fromkeys(processor.target_size(64 * ratio, 64) for ratio in ratios)
    height, width = processor.base_size
    return [*sizes, (height + 1, width + 3)]


@torch.no_grad()
def _largest_difference(model: SVTRv2ForCTC, runtime: SVTRv2ForCTCRuntime, sizes: Sequence[tuple[int, int]]) -> float:
    generator = torch.Generator().manual_seed(0)
    differences = []
    for number, size in enumerate(sizes):
        images = torch.rand(1 + number % 2, 3, *size, generator=generator) * 2 - 1
        expected, logits = model(images).logits, runtime(images).logits
        differences.append(float((logits - expected).abs().max()) if logits.shape == expected.shape else math.inf)
    return max(differences) if all(map(math.isfinite, differences)) else math.nan


@torch.no_grad()
def _changed_texts(
    model: SVTRv2ForCTC, runtime: SVTRv2ForCTCRuntime, processor: SVTRv2Processor, images: Sequence[np.ndarray]
) -> int:
    changed = 0
    for image in images:
        pixel_values = torch.from_numpy(image)[None]
        texts = [
            processor.post_process_text_recognition(network(pixel_values))[0]["text"] for network in (model, runtime)
        ]
        changed += texts[0] != texts[1]
    return changed


def _without_reader(processor: Any) -> str | None:
    """Return why `read.py` does not support an image processor, or `None`."""
    if type(processor) is not SVTRv2ImageProcessor:
        return f"it does not support images of {type(processor).__name__}"
    usual = processor.do_resize and processor.size is None and processor.resample == Image.Resampling.BICUBIC
    if not (usual and processor.has_default_pixels):
        return "it supports only the default resizing and scaling of images"
    return None


def _settings(place: Path, target: Path) -> dict[Path, Path]:
    """Return the files of configuration, processor and tokenizer with their copies, which must not replace other files."""
    names = [name for name in JSON_FILES if (place / name).is_file() and name != "model.safetensors.index.json"]
    for name in names:
        if (target / name).exists() and (target / name).read_bytes() != (place / name).read_bytes():
            raise FileExistsError(f"{target / name} is of another model: choose another folder with --output.")
    return {place / name: target / name for name in names}
