# SPDX-License-Identifier: Apache-2.0
"""Reads the files of a checkpoint, and reports one that is missing or damaged by its name and with what to do."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch.optim.lr_scheduler import OneCycleLR
from transformers import TrainerState
from transformers.trainer_pt_utils import safe_globals

from ..weight_files import check_values
from .divergence import DivergedError, non_finite


DATA_STATE = "data_state.json"
AVERAGED_WEIGHTS = "averaged_weights.safetensors"
KEYS = {"optimizer.pt": {"state", "param_groups"}, "scheduler.pt": {"last_epoch"}, "rng": {"python", "numpy", "cpu"}}


class _InvalidValueError(ValueError):
    """A value that this trainer never writes; the message says which, and [`reading`] adds the file and what to do."""


def check_resume_value(value: object) -> None:
    """Refuses an empty value of `resume_from_checkpoint`, which must not begin a run in the place of an earlier one.

    Raises:
        ValueError: it is empty.
    """
    if not value or not str(value).strip():
        raise ValueError(
            f"--resume_from_checkpoint {str(value)!r} is empty (an unset variable?): pass True, the folder of a checkpoint, or "
            "leave the option out to begin a new run."
        )


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
    except _InvalidValueError as error:
        raise ValueError(f"{path} is damaged: {error}. {what_to_do(path)}") from error
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
        _check_data_state(states)
    path = checkpoint / "trainer_state.json"
    with reading(path):
        written = json.loads(path.read_text(encoding="utf-8"))
        _check_trainer_state(written, _step(checkpoint), states["settings"]["max_steps"])
        state = TrainerState.load_from_json(str(path))
    return states, state


def _check_data_state(states: Mapping[str, Any]) -> None:
    settings, ranks = states["settings"], states["ranks"]
    for name in ("processes", "max_steps"):  # older checkpoints hold fewer of the other settings
        _require(_is_count(settings[name]) and settings[name] > 0, f"its setting {name} is {settings[name]!r}")
    _require(_is_count(states["seed_shift"]), f"its seed_shift is {states['seed_shift']!r}")
    seconds = states.get("seconds", 0.0)
    _require(_is_number(seconds) and 0 <= seconds < math.inf, f"its seconds are {seconds!r}")
    _require(_is_count(states.get("evaluations_from", 0)), "its evaluations_from is not a count")
    _require(isinstance(states.get("evaluation_due", False), bool), "its evaluation_due is not true or false")
    _require(
        isinstance(ranks, list) and len(ranks) == settings["processes"],
        f"it does not hold the states of {settings['processes']} processes",
    )
    for rank in ranks:
        _require(_is_count(rank["taken"]), f"the number of batches taken is {rank['taken']!r}")
        workers = rank.get("workers") or [[formed] for formed in rank["formed"]]
        _require(
            len(workers) == max(1, settings.get("dataloader_num_workers", len(workers))), "its workers are incomplete"
        )
        for formed, *rest in workers:
            read, waiting = rest or (0, [])
            _require(all(map(_is_count, [formed, read, *waiting])), "the progress of a worker is not in counts")
        for number, name, count in rank["counts"]:
            _require(_is_count(number) and isinstance(name, str) and _is_count(count), "its counts are not counts")


def _check_trainer_state(state: Mapping[str, Any], folder_step: int, max_steps: int) -> None:
    step: Any = state.get("global_step")
    best, best_step = state.get("best_metric"), state.get("best_global_step")
    _require(_is_count(step), f"its global_step is {step!r}")
    _require(step <= max_steps, f"its global_step is {step}, but the run has {max_steps} steps")
    _require(folder_step in (-1, step), f"its global_step is {step}, but the folder is of step {folder_step}")
    _require(best is None or (_is_number(best) and not math.isnan(best)), f"its best_metric is {best!r}")
    _require(
        best_step is None or (_is_count(best_step) and best_step <= step), f"its best_global_step is {best_step!r}"
    )
    _require(isinstance(state["log_history"], list), "its log_history is not a list")
    for entry in state["log_history"]:
        _require(
            isinstance(entry, dict) and _is_count(entry.get("step")) and entry["step"] <= step,
            f"its log_history has an entry without a step up to {step}",
        )
        for name, value in entry.items():
            numeric = name == "loss" or name.startswith("eval_")
            _require(
                not numeric or _is_number(value), f"{name} of step {entry['step']} in its log_history is {value!r}"
            )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise _InvalidValueError(problem)


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
        check_values(weights, "The weights")
    return weights


def check_optimizer_files(
    checkpoint: Path, names: Sequence[str], shapes: Sequence[Sequence[torch.Size]] | None, step: int, exact: bool
) -> None:
    """Reads the states of optimizer, schedule and random numbers once, as tensors and plain values and never as code.

    Args:
        checkpoint: its folder.
        names: of the files, the optimizer's before the scheduler's.
        shapes: of the parameters in each group of AdamW; `None` if the optimizer is another one.
        step: of the checkpoint.
        exact: no step was skipped, as the scaler of float16 does after an overflow.

    Raises:
        ValueError: a file is missing or damaged, or does not fit the parameters or the step.
    """
    updates = None
    for name in names:
        with reading(checkpoint / name), safe_globals():
            state = torch.load(checkpoint / name, map_location="cpu", weights_only=True)
            if not isinstance(state, dict):
                raise TypeError(name)
            if missing := KEYS.get(name.partition("_")[0], set()) - state.keys():
                raise KeyError(missing)
            if name == "optimizer.pt" and shapes is not None:
                updates = _check_adamw(state, shapes, step, exact)
            elif name == "scheduler.pt":
                _check_scheduler(state, step, exact, updates)
            elif name == "scaler.pt" and state:  # a scaler that is off has no state
                scale = state["scale"]
                _require(_is_number(scale) and 0 < scale < math.inf, f"its scale is {scale!r}")


def _check_adamw(state: Mapping[str, Any], shapes: Sequence[Sequence[torch.Size]], step: int, exact: bool) -> int:
    """Checks the state of each parameter, and returns how many times they were updated."""
    indices = [group["params"] for group in state["param_groups"]]
    flat = [shape for group in shapes for shape in group]
    _require(
        [len(group) for group in indices] == [len(group) for group in shapes]
        and [index for group in indices for index in group] == list(range(len(flat))),
        f"its groups are not those of the {len(flat)} parameters",
    )
    entries = state["state"]
    if not entries and not exact:  # all steps were skipped
        return 0
    _require(
        entries.keys() == set(range(len(flat))), f"it holds the states of {len(entries)} of {len(flat)} parameters"
    )
    counts = set()
    for index, shape in enumerate(flat):
        for name in ("exp_avg", "exp_avg_sq"):
            value = entries[index][name]
            where = f"{name} of parameter {index}"
            _require(value.shape == shape, f"{where} has the shape {list(value.shape)} instead of {list(shape)}")
            _require(value.is_floating_point() and bool(value.isfinite().all()), f"{where} is NaN or infinite")
        _require(bool((entries[index]["exp_avg_sq"] >= 0).all()), f"exp_avg_sq of parameter {index} is negative")
        counts.add(float(entries[index]["step"]))
    [first, *others] = sorted(counts)
    _require(
        not others and first.is_integer() and (first == step if exact else 0 <= first <= step),
        f"its parameters were updated {', '.join(f'{count:g}' for count in (first, *others))} times by step {step}",
    )
    return int(first)


def _check_scheduler(state: Mapping[str, Any], step: int, exact: bool, updates: int | None) -> None:
    last, count = state["last_epoch"], state.get("_step_count", 1)
    _require(
        _is_count(last) and (last == step if exact else last <= step) and updates in (None, last),
        f"its last_epoch is {last!r} at step {step}",
    )
    _require(_is_count(count), f"its _step_count is {count!r}")
    methods = [name for name in state if not isinstance(name, str) or callable(getattr(OneCycleLR, name, None))]
    _require(not methods, f"it holds {methods[:3]}, which a scheduler does not save")
