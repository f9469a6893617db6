# SPDX-License-Identifier: Apache-2.0
"""`svtrv2 read`."""

import glob
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..console import printable, warn
from ..paths import images_below
from ..redaction import redact
from .options import Backend, BatchSize, FileName, Model, extra, number, option


CHARACTERS = "Also print the score and position of each character."
MAX_RATIO = (
    "Maximum aspect ratio (width / height); wider images are compressed to it. 'auto' gives each line the width that it "
    "needs, up to 100."
)
INPUT = (
    "Dataset to read instead of images: a folder of .parquet or webdataset .tar files, a pattern of them, or hub:OWNER/NAME. "
    "Needs --output."
)
OUTPUT = "With --input: folder of the results, a parquet file for each part; parts with results are not read again."
SHARD = "With --input: read every N-th part, beginning with part I, from 0, so that N machines share a dataset."
IMAGE = "With --input: column of the images, or their extension in .tar files."
KEEP = "With --input: column to copy to the results; can be repeated."


def _ratio(word: str) -> int | str:
    if word == "auto":
        return word
    if not word.isdecimal() or int(word) < 1:
        raise typer.BadParameter(f"{word!r} is not a positive integer or auto.")
    return int(word)


def _shard(word: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", word)
    if match is None or int(match[1]) >= int(match[2]):
        raise typer.BadParameter(f"{word!r} is not I/N with I from 0 to N - 1.")
    return int(match[1]), int(match[2])


def read(
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH", help="Image, URL, folder, or glob pattern.", show_default=False),
    ] = None,
    model: Model = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image.")] = False,
    characters: Annotated[bool, typer.Option("--characters", help=CHARACTERS)] = False,
    max_ratio: Annotated[
        Any, option("N", MAX_RATIO, "the model's; 20 for the bundled checkpoint", parser=_ratio)
    ] = None,
    batch_size: BatchSize = 32,
    backend: Backend = "torch",
    file_name: FileName = None,
    source: Annotated[str | None, option("DATASET", INPUT, True, "--input")] = None,
    output: Annotated[str | None, option("FOLDER", OUTPUT)] = None,
    shard: Annotated[Any, option("I/N", SHARD, "all parts", parser=_shard)] = None,
    image: Annotated[str | None, option("COLUMN", IMAGE, "the usual names")] = None,
    keep: Annotated[list[str] | None, option("COLUMN", KEEP)] = None,
    workers: Annotated[int | None, number("With --input: number of processes that read images.", "1")] = None,
) -> int:
    """Recognize text in images of words and lines.

    Prints the path, the text and the score of each image, separated by tabs. Folders include their subfolders. Files
    that cannot be read are reported on stderr, and the exit status is then 1.

    With --input, reads a dataset of any size, and writes parquet files. Run an interrupted command again to continue.
    Images that cannot be read are rows with an error; the exit status is 1 if a file of the dataset is damaged.
    """
    if bool(paths) == (source is not None):
        raise typer.BadParameter("Specify either images (PATH) or a dataset (--input).")
    if source is not None:
        if output is None or as_json:
            raise typer.BadParameter("--input needs --output, and does not support --json.")
        with extra("eval", "Reading a dataset"):
            from ..bulk.run import read_dataset
        return read_dataset(
            source,
            output,
            model=model,
            image=image,
            keep=keep or [],
            shard=shard or (0, 1),
            workers=workers or 1,
            batch_size=batch_size,
            max_ratio=max_ratio,
            characters=characters,
            backend=backend,
            file_name=file_name,
        )
    others = {"--output": output, "--shard": shard, "--image": image, "--keep": keep, "--workers": workers}
    if unused := [name for name, value in others.items() if value]:
        raise typer.BadParameter(f"{unused[0]} needs --input.")
    problems: list[str] = []
    files = _find_images(paths or [], problems)
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
            files += images_below(path, problems)
        elif os.path.lexists(path) or not glob.has_magic(path) or "://" in path:
            files.append(path)
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207  Path.glob takes no absolute pattern
            files += matches
        else:
            problems.append(f"No file matches {path}.")
    return files
