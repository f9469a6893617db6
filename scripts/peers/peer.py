# SPDX-License-Identifier: Apache-2.0
"""The interface of a measured model, and helpers that several of them share."""

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
    """Settings that all peers are created with.

    Attributes:
        model: this project's model.
        processor: its processor.
        trained: whether its weights are trained.
        threads: number of threads that a model may use.
        reference: checkout of Topdu/OpenOCR, if available.
    """

    model: Any
    processor: Any
    trained: bool
    threads: int
    reference: Path | None = None


class UnavailableError(Exception):
    """A peer cannot run on this machine; the message gives the reason and how to install it."""


class Peer(ABC):
    """A model that recognizes text in cropped words.

    Attributes:
        name: name in tables.
        note: details of the measurement: weights, preprocessing, anything that affects the speed.
        trained: whether its weights are trained. If not, only its speed is measured, which does not depend on them.
        batches: whether it processes several images together.
        parameters: number of parameters of its networks; `None` if unknown.
        versions: versions of the programs that it uses, in addition to those that are always recorded.

    Raises:
        UnavailableError: on construction, if it cannot run on this machine.
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
        """Recognize the texts of RGB images, preprocessing included; with random weights, texts are arbitrary."""


def count_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def collapse(paths: torch.Tensor, characters: Sequence[str] | None = None) -> list[str]:
    """Return the texts of CTC best paths, of shape (images, frames); without a charset, in arbitrary characters."""
    texts = []
    for path in paths:
        ids: Iterable[int] = (i for i in path.unique_consecutive().tolist() if i)
        texts.append("".join(chr(i) if characters is None else characters[i - 1] for i in ids))
    return texts
