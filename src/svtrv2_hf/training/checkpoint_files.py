# SPDX-License-Identifier: Apache-2.0
"""Validation of checkpoint files; errors name the file that is missing or damaged, and the solution."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.optim.lr_scheduler import OneCycleLR
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from ..reporting import first
from ..weight_files import check_values


DATA_STATE = "data_state.json"
AVERAGED_WEIGHTS = "averaged_weights.safetensors"


class DivergedError(ValueError):
    """Training has diverged: the loss or the weights are NaN or infinite."""


class _InvalidValueError(ValueError):
    """A value that this trainer never writes; [`reading`] adds the file and the solution to the message."""


def non_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors with NaN or infinity; waits for their device only once."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not floating:
        return []
    finite = torch.stack([tensor.isfinite().all() for tensor in floating.values()]).tolist()
    return [name for name, is_finite in zip(floating, finite, strict=True) if not is_finite]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Report errors while a file of a checkpoint is read.

    Raises:
        ValueError: the file is missing or damaged.
    """
    try:
        if not path.is_file():
            raise ValueError(
                f"{path} is missing: this is not a complete checkpoint of this trainer. {_solution(path)}"
            )
        yield
    except (DivergedError, MemoryError):
        raise
    except _InvalidValueError as error:
        raise ValueError(f"{path} is damaged: {error}. {_solution(path)}") from error
    except Exception as error:
        if str(error).startswith(str(path)):  # a message of this module
            raise
        raise ValueError(f"{path} is damaged, or not a file of this trainer. {_solution(path)}") from error


def _solution(path: Path) -> str:
    checkpoint = path.parent
    previous = _previous_checkpoint(checkpoint)
    ways = [f"resume from the previous checkpoint (--resume_from_checkpoint {previous})"] if previous else []
    if path.name != "model.safetensors":
        ways.append(f"start a new run from its weights (--model {checkpoint} and another --output_dir)")
    sentence = " or ".join(ways) or "start a new run"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _previous_checkpoint(checkpoint: Path) -> Path | None:
    steps = {_step(path): path for path in checkpoint.absolute().parent.glob("checkpoint-*")}
    previous = max((step for step in steps if 0 <= step < _step(checkpoint)), default=None)
    return None if previous is None else checkpoint.parent / steps[previous].name


def _step(checkpoint: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else -1


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _InvalidValueError(problem)


def _check(values: Mapping[str, Any], **checks: Callable[[Any], bool]) -> None:
    for name, check in checks.items():
        _require(check(values[name]), f"its {name} is {values[name]!r}")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def read_states(checkpoint: Path) -> tuple[dict[str, Any], TrainerState]:
    """Read the states of data and trainer.

    Raises:
        ValueError: a file is missing or damaged.
    """
    path = checkpoint / DATA_STATE
    with reading(path):
        states = json.loads(path.read_text(encoding="utf-8"))
        _check_data_state(states)
    path = checkpoint / "trainer_state.json"
    with reading(path):
        _check_trainer_state(json.loads(path.read_text(encoding="utf-8")), _step(checkpoint), states["settings"])
        state = TrainerState.load_from_json(str(path))
    return states, state


def _check_data_state(states: Mapping[str, Any]) -> None:
    settings, ranks = states["settings"], states["ranks"]
    _check(settings, processes=_is_count, max_steps=_is_count)
    _check(states, seed_shift=_is_count, seconds=lambda value: _is_number(value) and 0 <= value < math.inf)
    _check(states, evaluations_from=_is_count, evaluation_pending=lambda value: isinstance(value, bool))
    _check(states, comparison=lambda value: isinstance(value, dict))
    processes = settings["processes"]
    _require(isinstance(ranks, list) and len(ranks) == processes, f"it lacks the states of {processes} processes")
    for rank in ranks:
        _check(rank, taken=_is_count)
        _require(len(rank["workers"]) == max(1, settings["dataloader_num_workers"]), "its workers are incomplete")
        for formed, read, waiting in rank["workers"]:
            _require(all(map(_is_count, [formed, read, *waiting])), "the progress of a worker is not in counts")
        for number, name, count in rank["counts"]:
            _require(_is_count(number) and isinstance(name, str) and _is_count(count), "its counts are not counts")


def _check_trainer_state(state: Mapping[str, Any], folder_step: int, settings: Mapping[str, Any]) -> None:
    step, last = state["global_step"], settings["max_steps"]
    _check(state, global_step=_is_count, best_metric=lambda value: value is None or _is_number(value))
    _require(step <= last, f"its global_step is {step}, but the run has {last} steps")
    _require(folder_step in (-1, step), f"its global_step is {step}, but the folder is of step {folder_step}")
    _check(state, best_global_step=lambda value: value is None or (_is_count(value) and value <= step))
    _check(state, log_history=lambda value: isinstance(value, list))
    for entry in state["log_history"]:
        valid = isinstance(entry, dict) and _is_count(entry.get("step")) and entry["step"] <= step
        _require(valid, f"its log_history has an entry without a step up to {step}")
        for name, value in entry.items():
            numeric = name == "loss" or name.startswith("eval_")
            valid = not numeric or type(value) in (int, float)
            _require(valid, f"{name} of step {entry['step']} in its log_history is {value!r}")


def read_finite_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read weights from a safetensors file of a checkpoint.

    Raises:
        ValueError: the file is missing or damaged.
        DivergedError: weights are NaN or infinite.
    """
    with reading(path):
        weights = safetensors.torch.load_file(path)
        if names := non_finite(weights):
            previous = _previous_checkpoint(path.parent)
            raise DivergedError(
                f"{path}: {len(names)} of {len(weights)} tensors contain NaN or infinity ({first(names)}), "
                "because training diverged before it was saved. "
                + (f"Resume from an earlier checkpoint: {previous}." if previous else "Start a new run.")
            )
        check_values(weights, "The weights")
    return weights


def check_optimizer_files(
    checkpoint: Path, names: Sequence[str], shapes: Sequence[Sequence[torch.Size]] | None, step: int, exact: bool
) -> None:
    """Check the states of optimizer, schedule and random numbers, without running code in them.

    Args:
        checkpoint: folder of the checkpoint.
        names: names of the files; the optimizer precedes the scheduler.
        shapes: shapes of the parameters in each group of AdamW; `None` for another optimizer.
        step: step of the checkpoint.
        exact: whether no step was skipped; the float16 scaler skips steps that overflow.

    Raises:
        ValueError: a file is missing or damaged, or does not match the parameters or the step.
    """
    updates = None
    for name in names:
        with reading(checkpoint / name), safe_globals():
            state = torch.load(checkpoint / name, map_location="cpu", weights_only=True)
            if name == "optimizer.pt" and shapes is not None:
                updates = _check_adamw(state, shapes, step, exact)
            elif name == "scheduler.pt":
                _check_scheduler(state, step, exact, updates)
            elif name.startswith("rng_state"):
                _require({"python", "numpy", "cpu"} <= state.keys(), "it lacks states")
            elif name == "scaler.pt" and state:  # empty if the scaler is disabled
                _check(state, scale=lambda value: _is_number(value) and 0 < value < math.inf)


def _check_adamw(state: Mapping[str, Any], shapes: Sequence[Sequence[torch.Size]], step: int, exact: bool) -> int:
    """Check the state of each parameter, and return the number of updates."""
    flat, numbers = [shape for group in shapes for shape in group], itertools.count()
    expected = [[next(numbers) for _ in group] for group in shapes]
    matching = [group["params"] for group in state["param_groups"]] == expected
    _require(matching, f"its groups are not those of the {len(flat)} parameters")
    entries = state["state"]
    if not entries and not exact:  # all steps were skipped
        return 0
    complete = entries.keys() == set(range(len(flat)))
    _require(complete, f"it contains the states of {len(entries)} of {len(flat)} parameters")
    for index, shape in enumerate(flat):
        for name in ("exp_avg", "exp_avg_sq"):
            value, where = entries[index][name], f"{name} of parameter {index}"
            _require(value.shape == shape, f"{where} has the shape {list(value.shape)} instead of {list(shape)}")
            _require(value.is_floating_point() and bool(value.isfinite().all()), f"{where} is NaN or infinite")
        _require(bool((entries[index]["exp_avg_sq"] >= 0).all()), f"exp_avg_sq of parameter {index} is negative")
    updates = sorted({float(entry["step"]) for entry in entries.values()})
    valid = len(updates) == 1 and updates[0].is_integer() and updates[0] in ([step] if exact else range(step + 1))
    _require(valid, f"its parameters were updated {', '.join(f'{count:g}' for count in updates)} times by step {step}")
    return int(updates[0])


def _check_scheduler(state: Mapping[str, Any], step: int, exact: bool, updates: int | None) -> None:
    _check(state, last_epoch=_is_count, _step_count=_is_count)
    last = state["last_epoch"]
    valid = (last == step if exact else last <= step) and updates in (None, last)
    _require(valid, f"its last_epoch is {last} at step {step}")
    methods = [name for name in state if not isinstance(name, str) or callable(getattr(OneCycleLR, name, None))]
    _require(not methods, f"it contains {methods[:3]}, which schedulers do not save")
