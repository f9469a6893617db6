# SPDX-License-Identifier: Apache-2.0
"""Weight files: loading without running code, descriptions of other files, and checks of the values."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .onnx_weights import read_onnx_weights
from .reporting import first


_HTML = (b"<!doctype html", b"<html", b"<head")
_MAGIC = {
    b"version https://git-lfs": "a git-lfs pointer: run `git lfs pull` in its repository, or download the file again",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x89HDF": "an HDF5 file (TensorFlow or Keras): download the PyTorch checkpoint",
    b"{": "a JSON file: download the checkpoint itself",
}
_PADDLE = "a PaddlePaddle checkpoint: use the PyTorch checkpoint of OpenOCR"
_SUFFIXES = {".pdparams": _PADDLE, ".pdiparams": _PADDLE}


def read_weights(path: str | Path, device: str = "cpu") -> Any:
    """Load a `.safetensors` file, a PyTorch checkpoint or an ONNX export without running code that it contains.

    Args:
        path: the file.
        device: device of the tensors. "meta" checks a file without reading its values.

    Raises:
        ValueError: the file is of another kind, is damaged, or contains Python objects that could run code.
    """
    path = Path(path)
    if kind := _other_kind(path):
        raise ValueError(f"{path} is {kind}.")
    if path.suffix == ".onnx":
        return read_onnx_weights(path)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return dict.fromkeys(names) if device == "meta" else {name: file.get_tensor(name) for name in names}
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} contains Python objects that could run code, or is damaged, so it is not loaded. If you trust it, save its state dict "
            "where it was created: torch.save({'state_dict': checkpoint['state_dict']}, FILE)."
        ) from error
    # torch raises RuntimeError, EOFError, KeyError, AttributeError, UnicodeDecodeError, ...
    except Exception as error:
        kind = "safetensors file" if isinstance(error, SafetensorError) else "PyTorch checkpoint"
        line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ValueError(f"{path} is cut off, or is not a {kind} ({line}): download or save it again.") from error


def check_values(tensors: Mapping[str, torch.Tensor], subject: str) -> None:
    """Check that a model can compute with weights.

    Args:
        tensors: weights by name.
        subject: the beginning of the message, such as "The weights in FOLDER".

    Raises:
        ValueError: values are NaN or infinite, a variance is negative, or tensors are integers; the message lists the
            tensors.
    """
    # scalar integers are counters of batches or averages
    if integers := [name for name, tensor in tensors.items() if not tensor.is_floating_point() and tensor.ndim > 0]:
        raise ValueError(
            f"{subject} are stored as integers ({first(sorted(integers), 5)}): the model is quantized, or the file is damaged. Save the model in float32."
        )
    values = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.is_meta}
    if names := [name for name, tensor in values.items() if not tensor.isfinite().all()]:
        raise ValueError(
            f"{subject} are NaN or infinite in {len(names)} of {len(tensors)} tensors ({first(sorted(names), 5)}): the training diverged, a "
            "value exceeds the precision, or the file is damaged. Use an earlier checkpoint, or save it in float32."
        )
    if names := [name for name, tensor in values.items() if name.endswith("running_var") and (tensor < 0).any()]:
        raise ValueError(
            f"{subject} have negative variances ({first(sorted(names), 5)}): the file is damaged. Use another checkpoint."
        )


def _other_kind(path: Path) -> str | None:
    """Describe a file that cannot contain weights and the solution; `None` if it may contain weights."""
    if path.is_dir():
        return "a folder: specify the file in it"
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty: download or save it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        return "an HTML page: download the file itself, in a browser if the page asks for it"
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if start.startswith(b"PK") and not _is_torch_zip(path):
        return "a zip archive that is cut off, or not of PyTorch: download it again, or unpack it"
    if path.suffix == ".safetensors":
        return "a PyTorch checkpoint: rename it to .pth" if start.startswith(b"PK") else None
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "a safetensors file: rename it to .safetensors"
    if path.suffix in _SUFFIXES or b"StructuredToParameterName@@" in start:
        return _SUFFIXES.get(path.suffix, _PADDLE)
    if path.suffix == ".onnx":  # without characteristic first bytes
        return None
    return None if start.startswith((b"PK", b"\x80")) else "not a PyTorch checkpoint: download it again"


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _numpy_scalars() -> list[Any]:
    """Return the classes of the metrics in published checkpoints, which are as safe as Python numbers."""
    # numpy 2 moved the function that creates them; files contain its name at the time of writing.
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype("float64")),
        type(np.dtype("float32")),
    ]
