# SPDX-License-Identifier: Apache-2.0
"""The bundled checkpoint, and loading of saved checkpoints by commands."""

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


JSON_FILES = (
    "config.json",
    "model.safetensors.index.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def default_checkpoint() -> str:
    """Return the folder of the bundled checkpoint, for `from_pretrained` or `pipeline`.

    ```python
    >>> import svtrv2_hf
    >>> from transformers import pipeline

    >>> read = pipeline("text-recognition", svtrv2_hf.default_checkpoint())
    ```

    It recognizes English words and lines: the printable ASCII characters and the space. Its training data, accuracy and
    license are described in the `README.md` of the folder.
    """
    return str(Path(__file__).with_name("default_checkpoint"))


def checkpoint_folder(name: str | Path) -> str:
    """Resolve the `--model` of a command: "default" is the bundled checkpoint; others are a folder or a Hub id.

    Raises:
        ValueError: the folder does not exist and the name is not a valid Hub id, or the folder is incomplete.
    """
    if name == "default":
        return default_checkpoint()
    folder, name = user_path(name), str(name)
    try:
        is_folder = folder.is_dir()
    except (OSError, ValueError):  # too long, or with a NUL
        is_folder = False
    if is_folder:
        missing = [file for file in ("config.json", "processor_config.json") if not (folder / file).is_file()]
        if missing:
            raise ValueError(
                f"The folder {name} has no {' and no '.join(missing)}: save a checkpoint with save_pretrained of its model and of its "
                "processor."
            )
        return str(folder)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        raise ValueError(f"Folder not found: {name[:200]}. A Hub id is written OWNER/NAME.")
    return name


def load_model_and_processor(name: str | Path, **options: Any) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """Load the model and the processor of a checkpoint.

    Args:
        name: a folder, a Hub id, or "default"; a `Path` is always a folder.
        options: options of `SVTRv2ForCTC.from_pretrained`, such as `use_guidance` or `dtype`.

    Raises:
        ValueError, OSError: the checkpoint is incomplete, a file is damaged, or the files do not fit each other; the
            message contains the file and the solution.
    """
    config, processor = load_config(name), load_processor(name)
    check_classes(name, config, processor)
    with _explain(f"The weights in {name}"):
        model = SVTRv2ForCTC.from_pretrained(checkpoint_folder(name), **options)
    check_values(model.state_dict(), f"The weights in {name}")
    return model, processor


def check_classes(name: str | Path, config: SVTRv2Config, processor: SVTRv2Processor) -> None:
    """Check that model and processor of a checkpoint have the same number of classes.

    Raises:
        ValueError: the numbers differ.
    """
    characters = len(charset_of(processor.tokenizer))
    if config.vocab_size not in (characters + 1, len(processor.tokenizer)):
        raise ValueError(
            f"config.json in {name} has vocab_size={config.vocab_size}, but tokenizer.json has {characters} characters, which need "
            f"{characters + 1} with the blank: save model and processor of the same checkpoint."
        )


def load_config(name: str | Path) -> SVTRv2Config:
    """Load the configuration of a checkpoint; see [`load_model_and_processor`]."""
    folder = _checked_folder(name)
    with _explain(f"config.json in {name}"):
        return SVTRv2Config.from_pretrained(folder)


def load_processor(name: str | Path) -> SVTRv2Processor:
    """Load the processor of a checkpoint; see [`load_model_and_processor`]."""
    folder = _checked_folder(name)
    with _explain(f"processor_config.json or tokenizer.json in {name}"):
        processor = SVTRv2Processor.from_pretrained(folder)
        if not charset_of(processor.tokenizer):
            raise ValueError("the charset is empty")
    return processor


def _checked_folder(name: str | Path) -> str:
    """Check the files of [`checkpoint_folder`] that loading reads."""
    place = checkpoint_folder(name)
    folder = Path(place)
    for path in (folder / file for file in JSON_FILES):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON ({error}): download or save it again.") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must be a JSON object, not {type(content).__name__}: download or save it again.")
        if path.name == "config.json" and content.get("model_type") != SVTRv2Config.model_type:
            raise ValueError(
                f"{path} has model_type={content.get('model_type')!r}, not {SVTRv2Config.model_type!r}: this is not an SVTRv2 model."
            )
        for key, value in content.items():
            if key.endswith("attn_implementation") and "/" in str(value):
                raise ValueError(
                    f"{path} refers to code on the Hub ({key}: {value!r}), which loading would download and run: remove that line."
                )
    weights = sorted(folder.glob("model*.safetensors"))
    for path in weights or sorted(folder.glob("pytorch_model*.bin")):
        read_weights(path, device="meta")
    return place


@contextmanager
def _explain(subject: str) -> Iterator[None]:
    """Convert errors of libraries to a ValueError that begins with the subject, and silence their logs."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers logs a table of tensors before the error that lists them
    try:
        yield
    except (SVTRv2WeightsError, OSError):  # their messages contain the file
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{subject} cannot be loaded ({type(error).__name__}: {reason[:300]}): download the checkpoint or save it again."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
