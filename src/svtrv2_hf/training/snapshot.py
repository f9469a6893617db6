# SPDX-License-Identifier: Apache-2.0
"""What the next step changes before it updates the weights, so that the last complete step can be saved after an error."""

from collections import Counter
from typing import Any, NamedTuple

import torch

from ..data.buckets import Position


class Snapshot(NamedTuple):
    """The state between two steps beside weights, optimizer and schedule, which only the end of a step changes.

    Attributes:
        position: of the data stream.
        counts: samples read and skipped.
        random: states of torch's random number generators, on CPU and on the device.
        buffers: of the model, which batch normalization changes in the forward pass.
        best: metric and step of the best evaluation.
    """

    position: Position
    counts: Counter[tuple[int, str]]
    random: list[torch.Tensor]
    buffers: list[torch.Tensor]
    best: tuple[float | None, int | None]


def random_states(device: torch.device) -> list[torch.Tensor]:
    """States of torch's random number generators: the CPU's, and the device's if it is another."""
    states = [torch.get_rng_state()]
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state(device))
    return states


def set_random_states(states: list[torch.Tensor], device: torch.device) -> None:
    """Sets what [`random_states`] returned."""
    torch.set_rng_state(states[0])
    if device.type != "cpu":
        torch.get_device_module(device).set_rng_state(states[1], device)


@torch.no_grad()
def set_buffers(model: Any, buffers: list[torch.Tensor]) -> None:
    """Sets the model's buffers to copies made before."""
    for buffer, copy in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(copy)
