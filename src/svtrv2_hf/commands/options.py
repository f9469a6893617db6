# SPDX-License-Identifier: Apache-2.0
"""Options and checks that several commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import typer


# Copies of types and names in modules that import torch; a test compares them.
Normalization = Literal["none", "nfc", "nfkc"]
Size = Literal["nano", "tiny", "small", "base"]
UnknownCharacters = Literal["error", "drop_sample", "drop_character"]


def option(metavar: str | None, help: str, default: str | bool = True, *names: str, **settings: Any) -> Any:
    """Return an option; `default` describes the default value if the value itself would not be clear."""
    return typer.Option(*names, metavar=metavar, help=help, show_default=default, **settings)


def number(help: str, default: str | bool = True, *names: str, minimum: int = 1) -> Any:
    """Return an option that takes an integer."""
    return option("N", help, default, *names, min=minimum)


Model = Annotated[str, option("MODEL", "Folder or Hub id of a model.", "the bundled checkpoint")]
Workers = Annotated[int, number("Number of data-loading worker processes.", minimum=0)]
BatchSize = Annotated[int, number("Batch size.")]
SyntheticCharset = Annotated[
    str | None, option("FILE", "File with one character per line.", "the printable ASCII characters with the space")
]


@contextmanager
def extra(name: str, task: str) -> Iterator[None]:
    """Name the extra to install if an import within this context fails."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{task} needs more packages ({error}): pip install 'svtrv2-hf[{name}]'.") from error


def check_device(name: str) -> None:
    """Raise ValueError if torch cannot compute on a device."""
    import torch

    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise ValueError(f"--device {name}: torch cannot compute on such a device here.") from error
