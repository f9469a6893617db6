# SPDX-License-Identifier: Apache-2.0
"""Copying of image files to parquet files: `svtrv2 pack`."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Features, Value
from datasets import Image as ImageFeature
from pyarrow.parquet import ParquetWriter
from tqdm import tqdm

from ..console import warn
from ..image_loading_svtrv2 import MAX_BYTES
from ..paths import images_below, user_path
from ..reporting import plural


ROW_GROUP = 256  # number of rows in a row group, so that readers need little memory


def pack(folder: str, output: str, rows: int = 10_000) -> int:
    """Copy the images in a folder and its subfolders to parquet files with the columns `image` and `file_name`.

    Args:
        folder: the folder; `file_name` is relative to it.
        output: a new or empty folder. A file in it is complete or absent.
        rows: number of images in each file.

    Returns:
        0 if all images were copied, otherwise 1.

    Raises:
        FileNotFoundError: the folder does not exist.
        FileExistsError: `output` is not empty.
        ValueError: the folder contains no images.
    """
    source, target = user_path(folder), user_path(output)
    if not source.is_dir():
        raise FileNotFoundError(f"Folder not found: {folder}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{output} is not empty: choose another folder, or remove it.")
    problems: list[str] = []
    files = images_below(str(source), problems)
    if not files:
        raise ValueError(" ".join(problems))
    for problem in problems:
        warn(problem)
    target.mkdir(parents=True, exist_ok=True)
    schema = Features({"image": ImageFeature(), "file_name": Value("string")}).arrow_schema
    parts = -(-len(files) // rows)
    missing = 0
    with tqdm(total=len(files), unit=" images", disable=None) as bar:
        for number in range(parts):
            path = target / f"part-{number:05}-of-{parts:05}.parquet"
            aside = path.with_name(f".{path.name}.tmp")
            chosen = files[number * rows : (number + 1) * rows]
            with ParquetWriter(aside, schema) as writer:
                for start in range(0, len(chosen), ROW_GROUP):
                    table = [_row(file, source) for file in chosen[start : start + ROW_GROUP]]
                    missing += sum(row["image"]["bytes"] is None for row in table)
                    writer.write_table(pa.Table.from_pylist(table, schema))
                    bar.update(len(table))
            aside.replace(path)
    print(f"{output}: {plural(len(files), 'image')} in {plural(parts, 'file')}.")
    if missing:
        warn(f"{missing} of {plural(len(files), 'image')} could not be copied and are rows without an image.")
    return int(bool(missing or problems))


def _row(file: str, folder: Path) -> dict[str, Any]:
    path = Path(file)
    name = path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()  # names may be any bytes
    content = None
    try:
        if path.stat().st_size > MAX_BYTES:
            warn(f"{file} has more than {MAX_BYTES} bytes.")
        else:
            content = path.read_bytes()
    except OSError as error:
        warn(f"{file}: {error.strerror}.")
    return {"image": {"bytes": content, "path": name if content is not None else None}, "file_name": name}
