# SPDX-License-Identifier: Apache-2.0
"""Whether a saved recogniser is ready for strangers: complete, safe to load, and working where this package is not."""

import json
import os
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from PIL import Image, ImageDraw, ImageFont
from transformers import pipeline

from ..charsets import charset_of
from ..checkpoint import load_model_and_processor, load_processor


# What a published folder may hold besides pictures; all else stays behind.
PUBLISHED_FILES = (
    "README.md",
    "LICENSE*",
    "NOTICE*",
    "config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "*_svtrv2.py",
    "run.json",
    "*.png",
    "*.jpg",
    "*.svg",
)
_PICKLES = (".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
_NEEDED = ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json")
_METADATA = ("license", "library_name", "pipeline_tag")

# Run where svtrv2_hf cannot be imported, as with everybody who has not installed it.
_STRANGER = """
import json, sys
sys.modules["svtrv2_hf"] = None
from transformers import pipeline
read = pipeline("image-to-text", model=sys.argv[1], trust_remote_code=True)
print(json.dumps(read(sys.argv[2])))
"""


def check_folder(folder: Path, sample: Path | None = None) -> list[str]:
    """What is wrong with a folder that is to be published; nothing, if it is ready.

    Args:
        folder: of the recogniser.
        sample: an image that it should read where this package is not installed as it does here; by default some characters of its
            charset, drawn.
    """
    faults = [
        f"{name} is missing" for name in _NEEDED if not (folder / name).is_file() and not _in_parts(folder, name)
    ]
    faults += [
        f"{path.name} may run code where it is loaded: keep safetensors only"
        for path in sorted(folder.iterdir())
        if path.suffix in _PICKLES
    ]
    if not faults:
        faults += _faults_of_weights(folder)
    faults += _faults_of_card(folder / "README.md")
    if not faults:
        faults += _faults_in_use(folder, sample)
    return faults


def published(folder: Path) -> list[str]:
    """Names of the files in the folder that are published; none of a folder below it is."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.is_dir() and any(path.match(pattern) for pattern in PUBLISHED_FILES)
    )


def left_behind(folder: Path) -> list[str]:
    """Names of what is in the folder and is not published."""
    taken = set(published(folder))
    return sorted(path.name + ("/" if path.is_dir() else "") for path in folder.iterdir() if path.name not in taken)


def _in_parts(folder: Path, name: str) -> bool:
    return name == "model.safetensors" and (folder / "model.safetensors.index.json").is_file()


def _faults_of_weights(folder: Path) -> list[str]:
    try:
        load_model_and_processor(folder)
    except (ValueError, OSError) as error:
        return [str(error)]
    return []


def _faults_of_card(path: Path) -> list[str]:
    if not path.is_file():
        return ["README.md, the model card, is missing"]
    text = path.read_text(encoding="utf-8")
    try:
        start, metadata, body = text.split("---\n", 2)
        fields = yaml.safe_load(metadata)
    except (ValueError, yaml.YAMLError):
        return ["README.md does not begin with metadata between two lines of ---"]
    if start.strip() or not isinstance(fields, dict):
        return ["README.md does not begin with metadata between two lines of ---"]
    faults = [f"README.md tells no {name} in its metadata" for name in _METADATA if not fields.get(name)]
    if "TODO" in body:
        faults.append("README.md has a TODO left")
    if not body.strip():
        faults.append("README.md has metadata but no text")
    return faults


def _faults_in_use(folder: Path, sample: Path | None) -> list[str]:
    """Reads a sample here, and in a fresh process without this package."""
    with tempfile.TemporaryDirectory() as temporary:
        if sample is None:
            sample = Path(temporary) / "sample.png"
            _draw_sample(folder, sample)
        [here] = pipeline("text-recognition", str(folder))(str(sample))
        # Code of the folder is copied to a cache; not to the user's, since this folder may still change.
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(Path(temporary) / "modules")}
        command = [sys.executable, "-c", _STRANGER, str(folder.resolve()), str(sample.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=temporary)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return [f"it does not load where svtrv2_hf is not installed: {last}"]
    [there] = json.loads(done.stdout.strip().splitlines()[-1])
    if there["generated_text"] != here["generated_text"] or abs(there["score"] - here["score"]) > 1e-3:
        return [
            f"where svtrv2_hf is not installed it reads {there!r}, here {here!r}: is the code in the folder another version's?"
        ]
    return []


def _draw_sample(folder: Path, path: Path) -> None:
    """A few characters of the charset in Pillow's own font, which knows the usual Latin ones; others will look like boxes."""
    charset = charset_of(load_processor(folder).tokenizer)
    usual = [character for character in charset if character in string.ascii_letters + string.digits]
    text = "".join((usual or charset)[:8])
    font = ImageFont.load_default(28)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (int(right - left) + 12, int(bottom - top) + 12), "white")
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, font=font, fill="black")
    image.save(path)
