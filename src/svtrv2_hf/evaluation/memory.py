# SPDX-License-Identifier: Apache-2.0
"""Memory that a call needs, and memory that the machine has left."""

import ctypes
import math
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Measure the peak memory of a call in bytes, in addition to the memory in use before; `None` if not possible.

    On CUDA, memory of torch's allocator. Otherwise the growth of the process's resident memory, which only Linux reports,
    after memory that earlier calls left to the allocator is returned; other threads of the process count, too.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        resident = _resident("VmRSS")
    except (AttributeError, OSError, TypeError):
        return None
    run()
    return max(0, _resident("VmHWM") - resident)


def available_memory() -> float:
    """Return the bytes that the machine can provide without swapping; infinity if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), math.inf)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
