# SPDX-License-Identifier: Apache-2.0
"""Quantization of an ONNX file to int8, with activations calibrated on images."""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def quantize_onnx(graph: Path, file: Path, images: Sequence[np.ndarray]) -> None:
    """Quantize to ONNX with onnxruntime: convolutions and matrix products, with one scale for each channel.

    Args:
        graph: ONNX file with float32 weights.
        file: ONNX file to write.
        images: prepared images of shape `(3, height, width)`.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"pixel_values": image[None]}

    optimized = file.with_name("optimized.onnx")
    quant_pre_process(graph, optimized, skip_symbolic_shape=True)
    quantize_static(
        optimized,
        file,
        Images(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def quantize_openvino(graph: Path, file: Path, images: Sequence[np.ndarray]) -> None:
    """Quantize to OpenVINO with NNCF; see [`quantize_onnx`]."""
    os.environ.setdefault("NNCF_CI", "1")  # or it sends usage statistics
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    calibration = nncf.Dataset(list(images), lambda image: {"pixel_values": image[None]})
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        quantized = nncf.quantize(
            openvino.Core().read_model(graph),
            calibration,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(images),
        )
    openvino.save_model(quantized, file, compress_to_fp16=False)
