# SPDX-License-Identifier: Apache-2.0
"""Checks of a saved model before it is published: complete, without secrets, safe to load, and independent of this package."""

import json
import re
import shutil
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

from ..checkpoint import JSON_FILES, load_model_and_processor, load_processor
from ..redaction import environment_without_secrets, lines_with_secrets, redact_values
from ..runtime.export import READER
from ..runtime.model import FILES, Backend, SVTRv2ForCTCRuntime


# The code that `save_pretrained` writes. Only the files of the package are published or run.
CODE = {path.name: path for path in sorted(Path(__file__).parents[1].glob("*_svtrv2.py"))}
# The files of svtrv2 export, of which the program is that of the package, too.
READER_NAME = "onnx/read.py"
EXPORTED_FILES = ("onnx/*.onnx", "openvino/openvino_model*.xml", "openvino/openvino_model*.bin", READER_NAME)
HANDLER = Path(__file__).with_name("handler.py")
# All other files that are published.
PUBLISHED_FILES = (
    "README.md",
    *(f"{name}{suffix}" for name in ("LICENSE", "NOTICE") for suffix in ("", ".md", ".txt")),
    *JSON_FILES,
    "run.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "*.png",
    "*.jpg",
)
_TEXTS = (".json", ".md", ".txt", "")
_IMAGES = (".png", ".jpg")
_CODE_KEY = re.compile(r"auto_map|impl|chat_template|\w*attn_implementation")
_OWN_CLASS = re.compile(r"(\w+_svtrv2)\.SVTRv2\w+")
_REQUIRED = ("config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json")

# Runs in a process that cannot import svtrv2_hf. A handler is loaded as Inference Endpoints do.
_SCRIPT = """
import importlib.util, json, sys
from pathlib import Path
sys.modules["svtrv2_hf"] = None
folder, sample = sys.argv[1:]
if Path(folder, "handler.py").is_file():
    spec = importlib.util.spec_from_file_location("handler", Path(folder, "handler.py"))
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    result = handler.EndpointHandler(folder)({"inputs": Path(sample).read_bytes()})
else:
    from transformers import pipeline
    result = pipeline("image-to-text", model=folder, trust_remote_code=True)(sample)
print(json.dumps(result))
"""


def check_links(folder: Path) -> None:
    """Check that no link in a folder refers to a file elsewhere, except in the cache of the Hub that the folder belongs to.

    Raises:
        ValueError: there are such links.
    """
    real = folder.resolve()
    allowed = (real, real.parents[1] / "blobs") if real.parent.name == "snapshots" else (real,)
    links = [
        path for path in (*folder.iterdir(), *folder.glob("onnx/*"), *folder.glob("openvino/*")) if path.is_symlink()
    ]
    if outside := [
        str(link.relative_to(folder))
        for link in links
        if not any(link.resolve().is_relative_to(place) for place in allowed)
    ]:
        raise ValueError(
            f"{folder} has links to files outside of it: {', '.join(sorted(outside))}. Replace them by the files."
        )


def published(folder: Path) -> list[str]:
    """Return the paths of the files in a folder that are published; of subfolders, only those of svtrv2 export."""
    names = [
        path.name
        for path in folder.iterdir()
        if path.is_file() and (path.name in CODE or any(path.match(pattern) for pattern in PUBLISHED_FILES))
    ]
    return sorted(names + [path.relative_to(folder).as_posix() for path in exported_files(folder)])


def exported_files(folder: Path) -> list[Path]:
    """Return the files of svtrv2 export in a folder."""
    return sorted(path for pattern in EXPORTED_FILES for path in folder.glob(pattern) if path.is_file())


def stage(folder: Path, staged: Path, handler: bool = False) -> tuple[list[str], list[str]]:
    """Copy the published files of a folder, with the code of this package instead of the code in the folder.

    The code in a folder is of unknown origin, and users run it with `trust_remote_code=True`, so it is neither run nor
    published.

    Args:
        folder: folder of the saved model.
        staged: an empty folder.
        handler: add the `handler.py` of this package, for Inference Endpoints.

    Returns:
        the names of code files in the folder that differ from those of the package, and of all files and subfolders
            that are not published.
    """
    names = [*published(folder), *([HANDLER.name] if handler else [])]
    code = CODE | {name: path for name, path in ((READER_NAME, READER), (HANDLER.name, HANDLER)) if name in names}
    for name in names:
        if name not in code:
            (staged / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / name, staged / name)
    for name, path in code.items():
        shutil.copyfile(path, staged / name)
    python = [path.relative_to(folder).as_posix() for path in (*folder.glob("*.py"), *folder.glob("onnx/*.py"))]
    foreign = [name for name in python if name not in code or (folder / name).read_bytes() != code[name].read_bytes()]
    subfolders = {name.split("/")[0] for name in names if "/" in name}
    paths = [path for path in folder.iterdir() if path.name not in subfolders]
    paths += [path for subfolder in subfolders for path in (folder / subfolder).iterdir()]
    others = {path.relative_to(folder).as_posix(): path.is_dir() for path in paths if path.name != "__pycache__"}
    return sorted(foreign), sorted(f"{name}/" if others[name] else name for name in others.keys() - set(names))


def check_folder(folder: Path, sample: Path | None = None) -> list[str]:
    """Return the problems of a folder that is to be published; an empty list if it is ready.

    Args:
        folder: a folder written by [`stage`].
        sample: an image whose prediction must not change if this package is not installed; default: rendered text.
    """
    problems = [f"{name} is missing" for name in _REQUIRED if not (folder / name).is_file()]
    if (folder / "model.safetensors.index.json").is_file():  # weights in several files
        problems = [problem for problem in problems if "model.safetensors" not in problem]
    problems += _foreign_code(folder)
    if not problems:
        try:
            load_model_and_processor(folder)
        except (ValueError, OSError) as error:
            problems.append(str(error))
    problems += _card_problems(folder / "README.md")
    problems += file_problems(sorted(path for path in folder.iterdir() if path.is_file()))
    return problems or check_use(folder, sample)


def _card_problems(path: Path) -> list[str]:
    if not path.is_file():
        return ["README.md, the model card, is missing"]
    try:
        start, metadata, text = path.read_text(encoding="utf-8").split("---\n", 2)
        fields = None if start.strip() else yaml.safe_load(metadata)
    except (ValueError, yaml.YAMLError):
        fields = None
    if not isinstance(fields, dict):
        return ["README.md does not begin with metadata between two lines of ---"]
    required = ("license", "library_name", "pipeline_tag")
    problems = [f"README.md has no {name} in its metadata" for name in required if not fields.get(name)]
    if "TODO" in text:
        problems.append("README.md contains a TODO")
    if not text.strip():
        problems.append("README.md has metadata but no text")
    return problems


def _foreign_code(folder: Path) -> list[str]:
    """Return the problems of configurations that refer to code in another repository, or in other files than the package's."""
    problems = []
    for path in sorted(folder.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            problems.append(f"{path.name} is not valid JSON")
            continue
        if path.name == "config.json" and not (isinstance(content, dict) and content.get("auto_map")):
            problems.append("config.json has no auto_map, which loading needs: save the model with save_pretrained")
        for name in sorted(set(_code_references(content))):
            match = _OWN_CLASS.fullmatch(name)
            if match is None or f"{match[1]}.py" not in CODE:
                problems.append(f"{path.name} refers to other code ({name[:100]}): save the model again")
    return problems


def _code_references(content: Any, key: str = "") -> Iterator[str]:
    """Yield the classes, kernels and chat templates that transformers would import, download or run."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _code_references(value, key if _CODE_KEY.fullmatch(key) else name)
    elif isinstance(content, list):
        for value in content:
            yield from _code_references(value, key)
    # the names of kernels on the Hub have a slash
    elif (
        isinstance(content, str)
        and _CODE_KEY.fullmatch(key)
        and ("/" in content or not key.endswith("implementation"))
    ):
        yield content


def file_problems(paths: Iterable[Path]) -> list[str]:
    """Return the problems of files: possible secrets, and invalid images."""
    problems = []
    for path in paths:
        try:
            if where := _find_secret(path):
                problems.append(
                    f"{path.name} contains a possible token, password or credential, {where}: remove it, and revoke it if it "
                    "was public"
                )
        except Exception:  # Pillow raises many kinds
            problems.append(f"{path.name} is not a PNG or JPEG image, or is damaged")
    return problems


def _find_secret(path: Path) -> str | None:
    if path.suffix in _IMAGES:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            image.load()  # text may follow the pixels
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
                return "in a value with such a name"
    return None


def check_use(folder: Path, sample: Path | None = None) -> list[str]:
    """Compare the prediction of a sample with that of a new process in which this package cannot be imported.

    Args:
        folder, sample: see [`check_folder`].
    """
    with tempfile.TemporaryDirectory() as temporary:
        if sample is None:
            sample = Path(temporary) / "sample.png"
            image = Image.new("RGB", (130, 40), "white")
            ImageDraw.Draw(image).text((6, 2), "abc 123", font=ImageFont.load_default(28), fill="black")
            image.save(sample)
        [here] = pipeline("text-recognition", str(folder))(str(sample))
        problems = list(_problems_of_exported(folder, sample, here))
        # transformers copies the code to a cache: not to that of the user, since this folder may change
        environment = {
            **environment_without_secrets(),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_MODULES_CACHE": str(Path(temporary) / "modules"),
        }
        # -B, since the folder must not contain compiled code
        command = [sys.executable, "-B", "-c", _SCRIPT, str(folder.resolve()), str(sample.resolve())]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=temporary)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["without a message"])[-1]
        return [*problems, f"it does not load if svtrv2_hf is not installed: {reason}"]
    [there] = json.loads(done.stdout.strip().splitlines()[-1])
    if there["generated_text"] != here["text"] or abs(there["score"] - here["score"]) > 1e-3:
        problems.append(f"it predicts {there!r} if svtrv2_hf is not installed, and {here!r} with it")
    return problems


def _problems_of_exported(folder: Path, sample: Path, expected: dict[str, Any]) -> Iterator[str]:
    """Yield the problems of exported files: they do not load, or float32 files predict another text or score than torch."""
    backends: dict[str, Backend] = {".onnx": "onnx", ".xml": "openvino"}
    for path in exported_files(folder):
        backend = backends.get(path.suffix)
        if backend is None:
            continue
        name = path.relative_to(folder).as_posix()
        try:
            model = SVTRv2ForCTCRuntime.from_pretrained(folder, backend, path.name)
            [found] = pipeline("text-recognition", model=model, processor=load_processor(folder))(str(sample))
        except (ValueError, OSError) as error:
            yield f"{name} cannot be checked: {error}"
            continue
        same = found["text"] == expected["text"] and abs(found["score"] - expected["score"]) < 1e-3
        if path.name == FILES[backend][0] and not same:
            yield f"{name} predicts {found!r}, and the weights {expected!r}: remove it and export the model again"
