# SPDX-License-Identifier: Apache-2.0
"""A folder of images with a `labels.tsv`."""

from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """An image file and its text."""

    path: Path
    text: str


def read_folder(folder: str | Path) -> list[Sample]:
    """Reads `labels.tsv` of a folder: UTF-8, a line for each image, its file name and its text parted by a tab.

    File names are relative to the folder or to `images/` in it. The files themselves are not opened.

    Raises:
        FileNotFoundError: there is no `labels.tsv`, or a file that it names is missing.
        ValueError: a line has no tab, or the file has no line.
    """
    folder = Path(folder)
    labels = folder / "labels.tsv"
    if not labels.is_file():
        raise FileNotFoundError(f"There is no {labels}: a data folder holds images and a labels.tsv (file TAB text).")
    root = folder / "images" if (folder / "images").is_dir() else folder
    samples = []
    for number, line in enumerate(labels.read_text(encoding="utf-8-sig").split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        name, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{labels}, line {number}: there is no tab between file name and text in {line!r}.")
        path = root / name
        if not path.is_file():
            raise FileNotFoundError(f"{labels}, line {number}: there is no file {path}.")
        samples.append(Sample(path, text))
    if not samples:
        raise ValueError(f"{labels} names no image.")
    return samples
