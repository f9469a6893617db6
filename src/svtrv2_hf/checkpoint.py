# SPDX-License-Identifier: Apache-2.0
"""The recogniser that comes with the package."""

from pathlib import Path


_FOLDER = Path(__file__).parent / "default_checkpoint"


def default_checkpoint() -> str:
    """The folder of the recogniser that comes with the package, to hand to `from_pretrained` or `pipeline`.

    ```python
    >>> import svtrv2_hf
    >>> from transformers import pipeline

    >>> read = pipeline("text-recognition", svtrv2_hf.default_checkpoint())
    ```

    It reads English words and lines: the printable ASCII characters and the space. What it was trained on, its accuracy and
    its licence are in the `README.md` of the folder.
    """
    return str(_FOLDER)


def checkpoint_folder(name: str) -> str:
    """What a command's `--model` names: "default" is the package's own, all else is a folder or a name on the Hub."""
    return default_checkpoint() if name == "default" else name


__all__ = ["checkpoint_folder", "default_checkpoint"]
