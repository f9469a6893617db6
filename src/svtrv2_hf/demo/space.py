# SPDX-License-Identifier: Apache-2.0
"""The page as a folder that runs as a Space of the Hub, or anywhere else."""

import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from ..checkpoint import load_model_and_processor
from ..hub.check import CODE, PUBLISHED_FILES, published, secrets_in


PACKAGE = Path(__file__).parents[1]
CARD = """---
title: SVTRv2 text recognition
emoji: 🔎
colorFrom: blue
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: apache-2.0
short_description: Reads crops of words and lines.
---

Reads the crop of a word or a line of text with [SVTRv2](https://arxiv.org/abs/2411.15858).

Models: {models}. Their licences are told by their own `README.md`, in `models` or, for the default one, in
`svtrv2_hf/default_checkpoint`; the licence above is that of the code.

Written by `svtrv2 demo --export`. To run it elsewhere: `pip install -r requirements.txt gradio=={gradio}`, then `python app.py`.
"""
APP = '''"""Serves the page; everything is in svtrv2_hf, beside this file."""

from pathlib import Path

from svtrv2_hf.demo.page import serve


HERE = Path(__file__).parent
MODELS = {models}

if __name__ == "__main__":
    serve([model if model == "default" else str(HERE / model) for model in MODELS])
'''
CPU_WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu"  # without it, pip takes gigabytes of CUDA


def export_space(models: Sequence[str], folder: str | Path) -> None:
    """Writes a folder with the page, the models and this package.

    Args:
        models: one or two folders, names on the Hub, or "default".
        folder: to write; it may exist if it is empty.

    Raises:
        ValueError: the folder is not empty, or a model is none.
        OSError: there is no such model.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{folder} is not an empty folder: name another one, or remove it.")
    for model in models:
        load_model_and_processor(model)  # what does not load here would not load there
    found = {model: _files_of(model) for model in models if model != "default"}
    target.mkdir(parents=True, exist_ok=True)
    places = {"default": "default"}
    for model, files in found.items():
        name = Path(model).resolve().name
        places[model] = f"models/{name}" if f"models/{name}" not in places.values() else f"models/{name}-2"
        (target / places[model]).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, target / places[model] / file.name)
    shutil.copytree(PACKAGE, target / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    own = importlib.metadata.distribution("svtrv2-hf")
    chosen = [places[model] for model in models]
    names = ", ".join(Path(place).name for place in chosen)
    # Gradio comes with the Space
    needed = [requirement for requirement in own.requires or [] if "extra ==" not in requirement]
    texts = {
        "app.py": APP.format(models=json.dumps(chosen)),
        "README.md": CARD.format(gradio=importlib.metadata.version("gradio"), models=names),
        "requirements.txt": "\n".join([CPU_WHEELS, *needed]) + "\n",
        "LICENSE": own.read_text("licenses/LICENSE") or "",
        "NOTICE": own.read_text("licenses/NOTICE") or "",
    }
    for name, text in texts.items():
        (target / name).write_text(text, encoding="utf-8")


def _files_of(model: str) -> list[Path]:
    folder = Path(model)
    if not folder.is_dir():
        folder = Path(snapshot_download(model, allow_patterns=list(PUBLISHED_FILES)))
    if not (folder / "config.json").is_file():
        raise ValueError(f"{model} is no saved recogniser: it has no config.json.")
    # The page reads with this package's code, so that of the folder stays behind.
    files = [folder / name for name in published(folder) if name not in CODE]
    if faults := secrets_in(files):
        raise ValueError(f"{model} is not ready to be exported:\n  " + "\n  ".join(faults))
    return files
