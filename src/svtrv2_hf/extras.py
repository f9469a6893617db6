# SPDX-License-Identifier: Apache-2.0
"""Optional packages."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, task: str) -> Iterator[None]:
    """Name the extra to install if an import within this context fails."""
    try:
        yield
    except ImportError as error:
        raise ValueError(f"{task} needs more packages ({error}): pip install 'svtrv2-hf[{name}]'.") from error
