# SPDX-License-Identifier: Apache-2.0
"""Saved checkpoints: the one that comes with the package, and loading any of them for a command."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging

from .charsets import charset_of
from .configuration_svtrv2 import SVTRv2Config
from .modeling_svtrv2 import SVTRv2ForCTC, SVTRv2WeightsError
from .paths import user_path
from .processing_svtrv2 import SVTRv2Processor
from .weight_files import check_values, read_weights


_JSON_OBJECTS = {
    "config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
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


def checkpoint_folder(name: str | Path) -> str:
    """What a command's `--model` names: "default" is the package's own, all else is a folder or a name on the Hub.

    Raises:
        ValueError: there is no such folder, and it cannot be a name on the Hub; or it is a folder without a recogniser's parts.
    """
    if name == "default":
        return default_checkpoint()
    folder = user_path(name)
    try:
        is_folder = folder.is_dir()
    except (OSError, ValueError):  # too long, or with a NUL: neither a folder nor a name on the Hub
        is_folder = False
    if is_folder:
        missing = [file for file in ("config.json", "processor_config.json") if not (folder / file).is_file()]
        if missing:
            raise ValueError(
                f"The folder {name} has no {' and no '.join(missing)}: a recogniser is saved by save_pretrained of its model and of "
                "its processor."
            )
        return str(folder)
    name = str(name)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(
            f"There is no folder {name[:200]}, and it is no name on the Hub, which is written OWNER/NAME."
        )
    return name


def load_model_and_processor(name: str | Path, **options: Any) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """The model and the processor that a command's `--model` names.

    Args:
        name: A folder, a name on the Hub, or "default"; a `Path` is a folder whatever its name.
        options: Of `SVTRv2ForCTC.from_pretrained`, such as `use_guidance` or `dtype`.

    Raises:
        ValueError, OSError: The checkpoint is not complete, a file is damaged, or the parts do not fit each other; the message
            names the file and says what to do.
    """
    config, processor = load_config(name), load_processor(name)
    characters = len(charset_of(processor.tokenizer))
    if config.vocab_size != characters + 1:
        raise ValueError(
            f"config.json in {name} has vocab_size={config.vocab_size}, but tokenizer.json has {characters} characters, which need "
            f"{characters + 1} with the blank: save model and processor of the same checkpoint."
        )
    with _explained(f"The weights in {name}"):
        model = SVTRv2ForCTC.from_pretrained(checkpoint_folder(name), **options)
    check_values(model.state_dict(), f"The weights in {name}")
    return model, processor


def load_config(name: str | Path) -> SVTRv2Config:
    """The configuration of a checkpoint; see [`load_model_and_processor`]."""
    folder = _sound_folder(name)
    with _explained(f"config.json in {name}"):
        return SVTRv2Config.from_pretrained(folder)


def load_processor(name: str | Path) -> SVTRv2Processor:
    """The processor of a checkpoint; see [`load_model_and_processor`]."""
    folder = _sound_folder(name)
    with _explained(f"processor_config.json or tokenizer.json in {name}"):
        processor = SVTRv2Processor.from_pretrained(folder)
        if not charset_of(processor.tokenizer):
            raise ValueError("the charset is empty")
    return processor


def _sound_folder(name: str | Path) -> str:
    """[`checkpoint_folder`], of which no file that loading would read is something else than its name says.

    Raises:
        ValueError: A file is damaged.
    """
    folder = Path(checkpoint_folder(name))
    for path in sorted(folder.glob("*.json")):
        if path.name not in _JSON_OBJECTS:
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON ({error}): download or save it again.") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must be a JSON object, not {type(content).__name__}: download or save it again.")
        if path.name == "config.json" and content.get("model_type") != SVTRv2Config.model_type:
            raise ValueError(
                f"{path} has model_type={content.get('model_type')!r}, not {SVTRv2Config.model_type!r}: it is not of an SVTRv2 model."
            )
        if kernels := [
            key for key, value in content.items() if key.endswith("attn_implementation") and "/" in str(value)
        ]:
            raise ValueError(
                f"{path} names code on the Hub in {kernels[0]} ({content[kernels[0]]!r}), which loading would fetch and run: remove that line."
            )
    weights = sorted(folder.glob("model*.safetensors"))
    for path in weights or sorted(folder.glob("pytorch_model*.bin")):
        read_weights(path, device="meta")
    return checkpoint_folder(name)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Around loading: turns what the libraries raise into a ValueError that begins with `what`, and keeps them quiet."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers logs a table of tensors before the error that names them
    try:
        yield
    except (SVTRv2WeightsError, OSError):  # these name the place
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(
            f"{what} cannot be loaded ({type(error).__name__}: {words[:300]}): download the checkpoint or save it again."
        ) from error
    finally:
        logging.set_verbosity(verbosity)


__all__ = ["checkpoint_folder", "default_checkpoint", "load_config", "load_model_and_processor", "load_processor"]
