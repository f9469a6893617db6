# SPDX-License-Identifier: Apache-2.0
"""Checks that a saved model can be published: complete, without secrets, safe to load, and working without this package."""

import json
import re
import shutil
import string
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from PIL import Image, ImageDraw, ImageFont
from safetensors import safe_open
from transformers import pipeline

from ..charsets import charset_of
from ..checkpoint import load_model_and_processor, load_processor
from ..redaction import environment_without_secrets, lines_with_secrets, redact_values


# The code that `save_pretrained` writes beside the weights. Only the package's own files are ever published or run.
CODE = {path.name: path for path in sorted(Path(__file__).parents[1].glob("*_svtrv2.py"))}
# What a published folder may hold besides code; all else stays behind.
PUBLISHED_FILES = (
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "LICENSE.txt",
    "NOTICE",
    "NOTICE.md",
    "NOTICE.txt",
    "config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "run.json",
    "*.png",
    "*.jpg",
)
_TEXTS = (".json", ".md", ".txt", "")
_PICTURES = (".png", ".jpg")
_OWN_CLASS = re.compile(r"\w+_svtrv2\.SVTRv2\w+")
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


def stage(folder: Path, staged: Path) -> list[str]:
    """Copies what is published of a folder, with the package's own code in place of the folder's.

    Code in a folder can come from anywhere, and whoever reads with `trust_remote_code=True` runs it, so none of it is run
    or published.

    Args:
        folder: of the saved model.
        staged: an empty folder.

    Returns:
        the names of code files in the folder that are not the package's own, byte for byte.
    """
    for name in published(folder):
        if name not in CODE:
            shutil.copyfile(folder / name, staged / name)
    for name, path in CODE.items():
        shutil.copyfile(path, staged / name)
    return sorted(
        path.name
        for path in folder.glob("*.py")
        if path.name not in CODE or path.read_bytes() != CODE[path.name].read_bytes()
    )


def check_folder(folder: Path, sample: Path | None = None) -> list[str]:
    """What is wrong with a folder that is to be published; nothing, if it is ready.

    Args:
        folder: of the saved model, as [`stage`] leaves it.
        sample: an image that it should read where this package is not installed as it does here; by default some characters of its
            charset, drawn.
    """
    faults = [
        f"{name} is missing" for name in _NEEDED if not (folder / name).is_file() and not _in_parts(folder, name)
    ]
    faults += _foreign_code(folder)
    if not faults:
        faults += _faults_of_weights(folder)
    faults += _faults_of_card(folder / "README.md")
    faults += secrets_in(sorted(folder.iterdir()))
    faults += _false_pictures(folder)
    if not faults:
        faults += _faults_in_use(folder, sample)
    return faults


def published(folder: Path) -> list[str]:
    """Names of the files in the folder that are published; none of a folder below it is."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and (path.name in CODE or any(path.match(pattern) for pattern in PUBLISHED_FILES))
    )


def outside(folder: Path) -> list[str]:
    """Names of links in the folder whose files are elsewhere, other than in the Hub's cache that the folder belongs to."""
    real = folder.resolve()
    allowed = (real, real.parents[1] / "blobs") if real.parent.name == "snapshots" else (real,)
    return sorted(
        path.name
        for path in folder.iterdir()
        if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in allowed)
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


def _foreign_code(folder: Path) -> list[str]:
    """Faults of configurations that name code of another repository, or of files that are not the package's."""
    faults = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            faults.append(f"{path.name} is not valid JSON")
            continue
        if path.name == "config.json" and not content.get("auto_map"):
            faults.append(
                "config.json has no auto_map, which others need to load it: save the model with save_pretrained"
            )
        faults += [
            f"{path.name} names code that is not this package's ({name[:100]}): save the model again"
            for name in sorted(set(_code_references(content)))
            if not _OWN_CLASS.fullmatch(name) or f"{name.rpartition('.')[0]}.py" not in CODE
        ]
    return faults


def _code_references(content: Any) -> Iterator[str]:
    """Classes that transformers would import from a file in the folder, or from another repository."""
    if isinstance(content, list):
        for value in content:
            yield from _code_references(value)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key in ("auto_map", "impl", "chat_template"):  # a template is a program
                yield from _strings(value)
            elif key.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
                yield value  # transformers would fetch a kernel of this name
            else:
                yield from _code_references(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def secrets_in(paths: Iterable[Path]) -> list[str]:
    """Faults of text files that hold what looks like a secret."""
    return [
        f"{path.name} holds what looks like a token, a password or a credential, {where}: remove it (and revoke it, if others have seen it)"
        for path in paths
        if (where := _secret_in(path))
    ]


def _secret_in(path: Path) -> str | None:
    """Where in a file there is what looks like a secret; `None` if it holds none."""
    if path.suffix in _PICTURES:
        with suppress(Exception), Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()  # texts may come behind the pixels
            if any(lines_with_secrets(str(value)) for value in image.info.values()):
                return "in its metadata"
    elif path.suffix == ".safetensors":
        with suppress(Exception), safe_open(path, "pt") as file:
            if redact_values(file.metadata()) != file.metadata():
                return "in its metadata"
    elif path.suffix in _TEXTS and path.name != "tokenizer.json":  # whose texts are a charset
        text = path.read_text(encoding="utf-8", errors="replace")
        if lines := lines_with_secrets(text):
            return f"in line {lines[0]}"
        with suppress(ValueError):
            if path.suffix == ".json" and redact_values(json.loads(text)) != json.loads(text):
                return "in a value whose name says so"
    return None


def _false_pictures(folder: Path) -> list[str]:
    faults = []
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICTURES:
            try:
                with Image.open(path, formats=("PNG", "JPEG")) as image:
                    image.verify()
            except Exception:  # Pillow raises many kinds
                faults.append(f"{path.name} is not a PNG or JPEG image")
    return faults


def _faults_in_use(folder: Path, sample: Path | None) -> list[str]:
    """Reads a sample here, and in a fresh process without this package."""
    with tempfile.TemporaryDirectory() as temporary:
        if sample is None:
            sample = Path(temporary) / "sample.png"
            _draw_sample(folder, sample)
        [here] = pipeline("text-recognition", str(folder))(str(sample))
        # Code of the folder is copied to a cache; not to the user's, since this folder may still change.
        environment = {
            **environment_without_secrets(),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_MODULES_CACHE": str(Path(temporary) / "modules"),
        }
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
