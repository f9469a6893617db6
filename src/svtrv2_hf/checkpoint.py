# SPDX-License-Identifier: Apache-2.0
"""The recogniser that comes with the package."""

import re
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
    """What a command's `--model` names: "default" is the package's own, all else is a folder or a name on the Hub.

    Raises:
        ValueError: there is no such folder, and it cannot be a name on the Hub; or it is a folder without a recogniser's parts.
    """
    if name == "default":
        return default_checkpoint()
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [file for file in ("config.json", "processor_config.json") if not (folder / file).is_file()]
        if missing:
            raise ValueError(
                f"The folder {name} has no {' and no '.join(missing)}: a recogniser is saved by save_pretrained of its model and of "
                "its processor."
            )
        return str(folder)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(f"There is no folder {name}, and it is no name on the Hub, which is written OWNER/NAME.")
    return name


__all__ = ["checkpoint_folder", "default_checkpoint"]
