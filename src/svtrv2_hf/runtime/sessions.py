# SPDX-License-Identifier: Apache-2.0
"""Exported models in the memory of a runtime: functions from images of one size to logits."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..extras import extra


Provider = str | tuple[str, dict[str, Any]]  # as in onnxruntime, also with options
Session = Callable[[np.ndarray], np.ndarray]  # from (batch_size, 3, height, width) to (batch_size, frames, vocab_size)

COMPILED_SIZES = 16  # each compiled model has a copy of the weights


def onnx_session(file: Path, providers: Sequence[Provider] | None = None, threads: int | None = None) -> Session:
    """Load an ONNX file.

    Raises:
        ValueError: onnxruntime is not installed or does not have a provider, or the file is damaged.
    """
    with extra("onnx", "The backend onnx"):
        import onnxruntime
    available = onnxruntime.get_available_providers()
    chosen: list[Provider] = [providers] if isinstance(providers, str) else list(providers or ["CPUExecutionProvider"])
    names = [provider if isinstance(provider, str) else provider[0] for provider in chosen]
    if unknown := [name for name in names if name not in available]:
        raise ValueError(
            f"This onnxruntime does not have the provider {', '.join(unknown)}; it has {', '.join(available)}."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(file, options, providers=chosen)
    except Exception as error:  # onnxruntime's classes have no common base
        raise ValueError(f"onnxruntime cannot load {file} ({_line(error)}): export it again.") from error
    return lambda images: session.run(["logits"], {"pixel_values": images})[0]


def openvino_session(file: Path, threads: int | None = None) -> Session:
    """Load the `.xml` file of an OpenVINO model, or an ONNX file, for the CPU.

    Raises:
        ValueError: openvino is not installed, or the file is damaged.
    """
    return _OpenVINOSession(file, threads)


class _OpenVINOSession:
    """Compiles a model for each of the first image sizes: with dynamic sizes, it is slower.

    These models predict one image at a time, which takes no longer for each image than a batch.
    """

    def __init__(self, file: Path, threads: int | None):
        with extra("openvino", "The backend openvino"):
            import openvino
        # By default, the precision depends on the processor, and with it the predictions.
        self._settings = {"INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = str(threads)
        self._core = openvino.Core()
        try:
            self._model = self._core.read_model(file)
        except RuntimeError as error:
            raise ValueError(f"openvino cannot load {file} ({_line(error)}): export it again.") from error
        self._compiled: dict[tuple[int, ...] | None, Any] = {}
        self._lock = threading.Lock()  # a compiled model serves one thread at a time

    def __call__(self, images: np.ndarray) -> np.ndarray:
        with self._lock:
            size = images.shape[2:]
            compiled = self._compiled.get(size)
            if compiled is None and len(images) and len(self._compiled) < COMPILED_SIZES:
                compiled = self._compile(size)
            if compiled is None or not len(images):
                dynamic = self._compiled.get(None) or self._compile(None)
                return np.array(dynamic(images)[0])
            return np.concatenate([compiled(images[row : row + 1])[0] for row in range(len(images))])

    def _compile(self, size: tuple[int, ...] | None) -> Any:
        model = self._model
        if size is not None:
            model = model.clone()
            model.reshape([1, 3, *size])
        self._compiled[size] = self._core.compile_model(model, "CPU", self._settings)
        return self._compiled[size]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
