# SPDX-License-Identifier: Apache-2.0
"""Reads the files of a checkpoint, and reports one that is missing or damaged by its name and with what to do."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from .divergence import DivergedError, non_finite


DATA_STATE = "data_state.json"
AVERAGED_WEIGHTS = "averaged_weights.safetensors"
KEYS = {"optimizer.pt": {"state", "param_groups"}, "scheduler.pt": {"last_epoch"}, "rng": {"python", "numpy", "cpu"}}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Reports what goes wrong with a file of a checkpoint.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: this is not a complete checkpoint of this trainer. {what_to_do(path)}"
            )
        yield
    except (DivergedError, MemoryError):
        raise
    except Exception as error:
        if str(error).startswith(str(path)):  # it is a message of this module
            raise
        raise ValueError(f"{path} is damaged, or not a file of this trainer. {what_to_do(path)}") from error


def what_to_do(path: Path) -> str:
    """How to go on without a file of a checkpoint."""
    checkpoint = path.parent
    before = previous_checkpoint(checkpoint)
    ways = [] if before is None else [f"resume from the checkpoint before it (--resume_from_checkpoint {before})"]
    if path.name != "model.safetensors":
        ways.append(f"begin a new run from its weights (--model {checkpoint} and another --output_dir)")
    sentence = " or ".join(ways) or "begin a new run"
    return f"{sentence[0].upper()}{sentence[1:]}."


def previous_checkpoint(checkpoint: Path) -> Path | None:
    """The last checkpoint of the same run before this one, if there is any."""
    steps = {_step(path): path for path in checkpoint.absolute().parent.glob("checkpoint-*")}
    before = max((step for step in steps if 0 <= step < _step(checkpoint)), default=None)
    return None if before is None else checkpoint.parent / steps[before].name


def _step(checkpoint: Path) -> int:
    found = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(found[1]) if found else -1


def read_states(checkpoint: Path) -> tuple[dict[str, Any], TrainerState]:
    """The states of data and trainer.

    Raises:
        ValueError: a file is missing or damaged.
    """
    path = checkpoint / DATA_STATE
    with reading(path):
        states = json.loads(path.read_text(encoding="utf-8"))
        for name, kind in (("settings", dict), ("ranks", list), ("seed_shift", int)):
            if not isinstance(states[name], kind):
                raise TypeError(name)
        for rank in states["ranks"]:
            if not (isinstance(rank["taken"], int) and isinstance(rank["counts"], list)):
                raise TypeError("ranks")
    path = checkpoint / "trainer_state.json"
    with reading(path):
        written = json.loads(path.read_text(encoding="utf-8"))
        if not (isinstance(written["global_step"], int) and isinstance(written["log_history"], list)):
            raise TypeError("global_step")
        state = TrainerState.load_from_json(str(path))
    return states, state


def check_weights(checkpoint: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights.

    Raises:
        ValueError: the file is missing or damaged.
        DivergedError: some of the weights are NaN or infinite.
    """
    return {name: tuple(tensor.shape) for name, tensor in _finite(checkpoint / "model.safetensors").items()}


def read_averaged_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The averaged weights.

    Raises:
        ValueError: the file is missing or damaged.
        DivergedError: some of the weights are NaN or infinite.
    """
    return _finite(checkpoint / AVERAGED_WEIGHTS)


def _finite(path: Path) -> dict[str, torch.Tensor]:
    with reading(path):
        weights = safetensors.torch.load_file(path)
        if names := non_finite(weights):
            before = previous_checkpoint(path.parent)
            raise DivergedError(
                f"{path}: {len(names)} of {len(weights)} tensors hold NaN or infinity ({', '.join(names[:3])}"
                f"{', ...' if len(names) > 3 else ''}), since training diverged before it was saved. "
                + (f"Resume from an earlier checkpoint: {before}." if before else "Begin a new run.")
            )
    return weights


def check_optimizer_files(checkpoint: Path, names: list[str]) -> None:
    """Reads the states of optimizer, schedule and random numbers once, as tensors and plain values and never as code.

    Raises:
        ValueError: a file is missing or damaged.
    """
    for name in names:
        with reading(checkpoint / name), safe_globals():
            state = torch.load(checkpoint / name, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(name)
            if missing := KEYS.get(name.partition("_")[0], set()) - state.keys():
                raise KeyError(missing)
