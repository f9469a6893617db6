# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 read`."""

import glob
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import printable, warn
from ..redaction import redact
from .options import Backend, BatchSize, FileName, Model, option


CHARACTERS = "Also print the score and position of each character."
MAX_RATIO = (
    "Maximum aspect ratio (width / height); wider images are compressed to it. 'auto' gives each line the width that it "
    "needs, up to 100."
)
_OTHER_IMAGES = {".avif", ".eps", ".heic", ".heif", ".ico", ".jxl", ".pdf", ".psd", ".svg"}


def _ratio(word: str) -> int | str:
    if word == "auto":
        return word
    if not word.isdecimal() or int(word) < 1:
        raise typer.BadParameter(f"{word!r} is not a positive integer or auto.")
    return int(word)


def read(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Image, URL, folder, or glob pattern.")],
    model: Model = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image.")] = False,
    characters: Annotated[bool, typer.Option("--characters", help=CHARACTERS)] = False,
    max_ratio: Annotated[
        Any, option("N", MAX_RATIO, "the model's; 20 for the bundled checkpoint", parser=_ratio)
    ] = None,
    batch_size: BatchSize = 32,
    backend: Backend = "torch",
    file_name: FileName = None,
) -> int:
    """Recognize text in images of words and lines.

    Prints the path, the text and the score of each image, separated by tabs. Folders include their subfolders. Files
    that cannot be read are reported on stderr, and the exit status is then 1.
    """
    problems: list[str] = []
    files = _find_images(paths, problems)
    for problem in problems:
        warn(problem)
    if not files:
        return 1
    from tqdm import tqdm
    from transformers import pipeline
    from transformers.utils import logging

    from ..image_processing_svtrv2 import AUTO_MAX_RATIO
    from ..runtime.model import load_for_backend

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    network, processor = load_for_backend(model, backend, file_name)
    reader = pipeline("text-recognition", model=network, processor=processor, batch_size=batch_size)
    failed = compressed = 0
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    results = reader(iter(files), on_error="return", return_characters=characters, max_ratio=max_ratio)
    for file, [result] in zip(files, tqdm(results, total=len(files), unit="image", disable=None), strict=True):
        compressed += "exceeds_max_ratio" in result
        if error := result.get("error"):
            failed += 1
            result["error"] = error = redact(error)
            warn(error)
        file = redact(file) if "://" in file else file
        if as_json:
            tqdm.write(printable(json.dumps({"path": file, **result}, ensure_ascii=ascii_only)))
        elif not error:
            tqdm.write("\t".join([printable(file), printable(result["text"]), f"{result['score']:.4f}"]))
            for character in result.get("characters", []):
                position = f"{character['start']:.1f}..{character['end']:.1f}"
                tqdm.write(f"\t{printable(character['text'])}\t{character['score']:.4f}\t{position}")
    if compressed:
        limit, advice = max_ratio or processor.image_processor.max_ratio, "use --max-ratio auto"
        if limit == "auto":
            limit, advice = AUTO_MAX_RATIO, "crop them"
        warn(
            f"{compressed} of {len(files)} images are wider than {limit} times their height and were compressed, which "
            f"loses narrow letters: {advice}."
        )
    if failed:
        warn(f"{failed} of {len(files)} files could not be read.")
    return int(bool(failed or problems))


def _find_images(paths: Sequence[str], problems: list[str]) -> list[str]:
    """Return files and URLs, and append problems. Only files in folders are checked, by their extension."""
    files: list[str] = []
    for path in paths:
        if not path:
            problems.append("A path is empty: name an image, a folder, a pattern or a URL.")
        elif os.path.isdir(path):  # noqa: PTH112  Path.is_dir raises for a path that is too long
            files += _images_below(path, problems)
        elif os.path.lexists(path) or not glob.has_magic(path) or "://" in path:
            files.append(path)
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            files += matches
        else:
            problems.append(f"No file matches {path}.")
    return files


def _images_below(folder: str, problems: list[str]) -> list[str]:
    from PIL import Image

    from ..image_loading_svtrv2 import FORMATS

    Image.init()
    formats = Image.registered_extensions()
    supported = {suffix for suffix, name in formats.items() if name in FORMATS and name in Image.OPEN}
    errors: list[OSError] = []
    below = sorted(Path(root, name) for root, _, names in os.walk(folder, onerror=errors.append) for name in names)
    images = [file for file in below if file.suffix.lower() in supported]
    files = [str(file) for file in images if file.is_file()]
    others = [file.name for file in below if file.suffix.lower() in _OTHER_IMAGES - supported]
    messages = [f"The folder {error.filename} cannot be listed: {error.strerror}." for error in errors]
    for file in images:
        if not file.is_file():
            reason = "not a regular file" if file.exists() else "a broken link"
            messages.append(f"{file} is {reason} and was skipped.")
    if others:
        messages.append(
            f"{len(others)} images in {folder} have unsupported formats (first: {others[0]}): convert them to PNG or JPEG."
        )
    elif not files and not messages:
        messages.append(f"No images in the folder {folder}.")
    problems += messages
    return files
