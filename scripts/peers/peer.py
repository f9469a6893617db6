# SPDX-License-Identifier: Apache-2.0
"""What a recogniser must be able to do to be measured, and what several of them need."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image


@dataclass
class Settings:
    """What peers are made with.

    Attributes:
        model: ours.
        processor: ours.
        trained: whether our model's weights are trained.
        threads: that a recogniser may use.
        reference: a checkout of Topdu/OpenOCR, if there is one.
    """

    model: Any
    processor: Any
    trained: bool
    threads: int
    reference: Path | None = None


class UnavailableError(Exception):
    """A peer that cannot run here; the message says why, and how to get it."""


class Peer(ABC):
    """A recogniser of cropped words.

    Attributes:
        name: in tables.
        note: what exactly is measured: weights, preparation, anything that bears on its speed.
        trained: whether it has weights that read text. Else only its speed is measured, which does not depend on them.
        batches: whether it computes several images together.
        parameters: of its networks; `None` where they cannot be told.
        versions: of the programs that it runs by, beside those that are recorded anyway.

    Raises:
        UnavailableError: when made, if it cannot run here.
    """

    name: str
    note: str
    trained: bool = False
    batches: bool = True
    parameters: int | None = None
    versions: Mapping[str, str] = MappingProxyType({})

    @abstractmethod
    def __init__(self, settings: Settings): ...

    @abstractmethod
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        """The texts of RGB images, from preparation to text; without trained weights any texts."""


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def collapse(paths: torch.Tensor, characters: Sequence[str] | None = None) -> list[str]:
    """The texts of CTC's best paths, of shape (images, frames); without a charset, in characters of no meaning."""
    readings = []
    for path in paths:
        ids: Iterable[int] = (i for i in path.unique_consecutive().tolist() if i)
        readings.append("".join(chr(i) if characters is None else characters[i - 1] for i in ids))
    return readings
