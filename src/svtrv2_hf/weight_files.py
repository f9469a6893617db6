# SPDX-License-Identifier: Apache-2.0
"""Files of weights: read without running code, and described if they are something else."""

import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open


_HTML = (b"<!doctype html", b"<html", b"<head")
_MAGIC = {
    b"version https://git-lfs": "a git-lfs pointer, not the file itself: run `git lfs pull` in its repository, or download it again",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"7z\xbc\xaf": "a 7-Zip archive: unpack it",
    b"Rar!": "a RAR archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x89HDF": "an HDF5 file (TensorFlow or Keras), not weights of PyTorch: download the PyTorch checkpoint",
    b"{": "a JSON file, not weights: download the checkpoint itself",
}
_SUFFIXES = {
    ".pdparams": "a checkpoint of PaddlePaddle, not of PyTorch: use the PyTorch checkpoint of OpenOCR",
    ".pdiparams": "a checkpoint of PaddlePaddle, not of PyTorch: use the PyTorch checkpoint of OpenOCR",
    ".onnx": "an ONNX graph, not a PyTorch checkpoint: use the .pth file that it was exported from",
}


class WeightFileError(ValueError):
    """A file that does not hold weights; the message names it and says what to do."""


def read_weights(path: str | Path, device: str = "cpu") -> Any:
    """The content of a `.safetensors` file or of a PyTorch checkpoint, running none of the code in it.

    Args:
        path: The file; its content decides, not its name.
        device: Where to put the tensors. On "meta", a file is checked without reading its values.

    Raises:
        WeightFileError: The file is something else, or damaged, or holds Python objects that could run code.
    """
    path = Path(path)
    if found := _description(path):
        raise WeightFileError(f"{path} is {found}.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                names = list(file.keys())
                return dict.fromkeys(names) if device == "meta" else {name: file.get_tensor(name) for name in names}
        with torch.serialization.safe_globals(_plain_numbers()):
            return torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_torch_zip(path) and not _starts_as_pickle(path):
            raise WeightFileError(f"{path} is not a PyTorch checkpoint: download it again.") from error
        raise WeightFileError(
            f"{path} holds Python objects that could run code, or is damaged, so it is not loaded. If you trust it, save its state dict alone "
            "where it was made: torch.save({'state_dict': checkpoint['state_dict']}, FILE)."
        ) from error
    except SafetensorError as error:
        raise WeightFileError(
            f"{path} is cut off, or is not a safetensors file ({_first_line(error)}): download or save it again."
        ) from error
    except (
        Exception
    ) as error:  # torch raises RuntimeError, EOFError, KeyError, AttributeError, UnicodeDecodeError, ...
        raise WeightFileError(
            f"{path} is cut off, or is not a PyTorch checkpoint ({_first_line(error)}): download or save it again."
        ) from error


def check_values(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuses weights that a model cannot compute with.

    Args:
        tensors: Weights by their names.
        what: The beginning of the message, such as "The weights in FOLDER".

    Raises:
        ValueError: Values are NaN or infinite, or a variance is negative; the message names the tensors.
    """
    # counters, of batches and averages, are single numbers
    whole = [name for name, tensor in tensors.items() if not tensor.is_floating_point() and tensor.ndim > 0]
    if whole:
        raise ValueError(
            f"{what} are stored as integers ({_first(whole)}): they are of a quantized model, or damaged. Save the model in float32."
        )
    numbers = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.is_meta}
    if broken := [name for name, tensor in numbers.items() if not tensor.isfinite().all()]:
        raise ValueError(
            f"{what} are NaN or infinite in {len(broken)} of {len(tensors)} tensors ({_first(broken)}): the training diverged, a "
            "value exceeds the precision, or the file is damaged. Use an earlier checkpoint, or save it in float32."
        )
    if broken := [name for name, tensor in numbers.items() if name.endswith("running_var") and (tensor < 0).any()]:
        raise ValueError(
            f"{what} have negative variances ({_first(broken)}): the file is damaged. Use another checkpoint."
        )


def _description(path: Path) -> str | None:
    """In words, a file that cannot hold weights, and what to do; `None` if it may hold some."""
    if path.is_dir():
        return "a folder, not a file of weights: name the file in it"
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "empty: download or save it again"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_HTML):
        return (
            "an HTML page, saved instead of the file: download the file itself, in a browser if the page asks for it"
        )
    for magic, words in _MAGIC.items():
        if start.startswith(magic):
            return words
    if path.suffix != ".safetensors" and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return "a safetensors file: rename it to .safetensors"
    if start.startswith(b"PK") and (path.suffix == ".safetensors" or not _is_torch_zip(path)):
        if _is_torch_zip(path):
            return "a PyTorch checkpoint: rename it to .pth"
        return "a zip archive that is cut off, or not of PyTorch: download it again, or unpack it"
    return _SUFFIXES.get(path.suffix) or (_SUFFIXES[".pdparams"] if b"StructuredToParameterName@@" in start else None)


def _is_torch_zip(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _starts_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(2)
    return start[:1] == b"\x80" and start[1:] <= b"\x05"


def _plain_numbers() -> list[Any]:
    """What published checkpoints keep their metrics in: numpy's numbers, which are as plain as Python's."""
    # numpy 2 has moved the function that makes them, and files name it as it was called where they were written.
    scalar = np.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        type(np.dtype("float64")),
        type(np.dtype("float32")),
    ]


def _first(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
