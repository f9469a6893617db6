# SPDX-License-Identifier: Apache-2.0
"""Weights of ONNX exports of OpenOCR models, under the names that they have in checkpoints.

The exporters of torch keep the names of most tensors. They rename the weights of linear layers, which they transpose, and
fold batch norms into convolutions. The nodes that use these tensors name their modules: the older exporter in the name of
the node, the newer one in its metadata.
"""

import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch


BATCH_NORM_EPS = 1e-5


def read_onnx_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Load the weights of an ONNX export in float32.

    Tensors whose modules are unknown keep the names that they have in the file. Integers of 64 bits, which are shapes and
    indices, and single numbers are constants, not weights.

    Raises:
        ValueError: the package onnx is missing, the file is damaged, or two tensors are the same weight.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError(
            f"Reading the ONNX file {path} needs more packages ({error}): pip install 'svtrv2-hf[onnx]'."
        ) from error
    try:
        graph = onnx.load(str(path)).graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                tensors[node.output[0]] = node.attribute[0].t
        constants = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
        values = {
            name: _to_torch(onnx.numpy_helper.to_array(tensor))
            for name, tensor in tensors.items()
            if tensor.data_type not in constants and np.prod(tensor.dims) > 1
        }
    # protobuf, onnx and the file system raise different errors
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"{path} is cut off, is not an ONNX file, or the file with its data is missing ({line}): download or export it again."
        ) from error
    weights = {}
    for name, (key, transposed) in _names(graph.node, values).items():
        if key in weights:
            raise ValueError(f"{path} contains {key} twice: export it again.")
        weights[key] = values[name].T.contiguous() if transposed else values[name]
    _add_batch_norms(weights)
    return weights


def _to_torch(array: np.ndarray) -> torch.Tensor:
    # Integers of a quantized model remain, so that the check of the values reports them.
    return torch.from_numpy(np.array(array, dtype=None if array.dtype.kind in "iu" else np.float32))


def _names(nodes: Any, values: dict[str, torch.Tensor]) -> dict[str, tuple[str, bool]]:
    """Map the names of tensors to those in a checkpoint, and whether they are transposed."""
    names = {name: (name, False) for name in values}
    for node in nodes:
        inputs = [name if name in values else None for name in node.input]
        if node.op_type == "Conv" and inputs[1] is not None:
            # The newer exporter derives the name of the bias of a folded batch norm from the weight.
            module = inputs[1].removesuffix(".weight") if "." in inputs[1] else _module(node)
            names[inputs[1]] = f"{module}.weight", False
            if len(inputs) > 2 and inputs[2] is not None:
                names[inputs[2]] = f"{module}.bias", False
        elif node.op_type == "MatMul" and inputs[1] is not None and "." not in inputs[1]:
            names[inputs[1]] = f"{_module(node)}.weight", True
    return names


def _module(node: Any) -> str:
    """Return the name of the module that a node is part of."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":  # of all modules around the operator, and of the operator
            return str(["", *ast.literal_eval(entry.value)][-2])
    # Modules in a list have its name once more: /mixer/mixer.0/Conv.
    parts = node.name.strip("/").split("/")
    return ".".join(part for part, following in pairwise(parts) if not following.startswith(f"{part}."))


def _add_batch_norms(weights: dict[str, torch.Tensor]) -> None:
    """Add the tensors of folded batch norms, which then add the bias of their convolution and change nothing else."""
    for name in [name for name in weights if name.endswith(".conv.bias")]:
        norm = f"{name.removesuffix('conv.bias')}norm."
        if f"{norm}weight" in weights:
            continue
        weights[f"{norm}bias"] = bias = weights.pop(name)
        weights[f"{norm}weight"] = torch.ones_like(bias)
        weights[f"{norm}running_mean"] = torch.zeros_like(bias)
        weights[f"{norm}running_var"] = torch.full_like(bias, 1 - BATCH_NORM_EPS)
    for name in [name for name in weights if name.endswith(".running_var")]:
        weights[f"{name.removesuffix('running_var')}num_batches_tracked"] = torch.tensor(0)
