# SPDX-License-Identifier: Apache-2.0
"""The export of the page as a folder that runs as a Space of the Hub, or elsewhere."""

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from jinja2 import Template

from ..checkpoint import load_model_and_processor
from ..hub.check import CODE, PUBLISHED_FILES, check_links, file_problems, published
from .panel import TEMPLATES


PACKAGE = Path(__file__).parents[1]
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"  # without it, pip downloads gigabytes of CUDA


def export_space(models: Sequence[str], folder: str | Path) -> None:
    """Write a folder with the page, the models and this package.

    Args:
        models: one or two folders, Hub ids, or "default".
        folder: the folder to write, which must not exist or must be empty.

    Raises:
        ValueError: the folder is not empty, or a model is incomplete, damaged, or contains secrets.
        OSError: a model is not found.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{folder} is not an empty folder: choose another one, or remove it.")
    for model in models:
        load_model_and_processor(model)  # a damaged model would fail in the Space
    files = {model: _files_of(model) for model in models if model != "default"}
    target.mkdir(parents=True, exist_ok=True)
    places = {"default": "default"}
    for model, paths in files.items():
        place = f"models/{Path(model).resolve().name}"
        places[model] = f"{place}-2" if place in places.values() else place
        (target / places[model]).mkdir(parents=True)
        for path in paths:
            shutil.copyfile(path, target / places[model] / path.name)
    shutil.copytree(PACKAGE, target / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    own = importlib.metadata.distribution("svtrv2-hf")
    chosen = [places[model] for model in models]
    values = {
        "gradio": importlib.metadata.version("gradio"),
        "models": json.dumps(chosen),
        "names": ", ".join(Path(place).name for place in chosen),
    }
    # a Space provides Gradio
    needed = [requirement for requirement in own.requires or [] if "extra ==" not in requirement]
    texts = {
        "requirements.txt": "\n".join([CPU_WHEELS, *needed]) + "\n",
        "LICENSE": own.read_text("licenses/LICENSE") or "",
        "NOTICE": own.read_text("licenses/NOTICE") or "",
    }
    for name in ("app.py", "README.md"):
        template = Template((TEMPLATES / f"{name}.j2").read_text(encoding="utf-8"), keep_trailing_newline=True)
        texts[name] = template.render(values)
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")


def _files_of(model: str) -> list[Path]:
    """Return the files of a model without code, since the page runs the code of this package."""
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(snapshot_download(model, allow_patterns=list(PUBLISHED_FILES)))
    check_links(folder)
    files = [folder / name for name in published(folder) if name not in CODE and "/" not in name]  # it runs torch
    if problems := file_problems(files):
        raise ValueError(f"{model} is not ready to be exported:\n  " + "\n  ".join(problems))
    return files
