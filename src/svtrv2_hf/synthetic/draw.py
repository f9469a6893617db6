# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 draw`: drawn text as a contact sheet, or as a data set of files."""

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..data.sources import Sample
from .source import DrawnSource


SHEET_WIDTH, ROW_HEIGHT, CAPTION, GAP = 1400, 48, 14, 6  # pixels


def draw(source: DrawnSource, output: str | Path, seed: int) -> None:
    """Draws the images of one epoch of a source.

    Args:
        source: what is drawn.
        output: a `.png` for a contact sheet; a `.parquet`; a folder ending in `.lmdb`; or a folder without an ending, for
            image files and a `labels.tsv`. It must not exist yet.
        seed: of the texts and pictures.

    Raises:
        FileExistsError: the output is there already.
        ValueError: its ending is another one.
    """
    output = Path(output)
    if output.suffix not in ("", ".png", ".parquet", ".lmdb"):
        raise ValueError(
            f"What should {output} be? A contact sheet ends in .png; a data set ends in .parquet or .lmdb, or is a folder "
            f"without an ending."
        )
    if output.exists():
        raise FileExistsError(f"{output} is there already: name another, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    samples = tqdm(source.read(seed=seed), "Drawing", source.num_samples, unit=" images", disable=None)
    if output.suffix == ".png":
        contact_sheet(samples).save(output)
    elif output.suffix == ".parquet":
        _write_parquet(samples, output)
    elif output.suffix == ".lmdb":
        _write_lmdb(samples, output)
    else:
        _write_folder(samples, output)


def contact_sheet(samples: Iterable[Sample]) -> Image.Image:
    """Pictures at one height in rows, each with its text below."""
    font = ImageFont.load_default(CAPTION - 3)
    rows: list[list[tuple[Image.Image, str]]] = [[]]
    used = 0
    for sample in samples:
        with Image.open(io.BytesIO(sample.image)) as image:
            width = min(SHEET_WIDTH, round(image.width * ROW_HEIGHT / image.height))
            picture = image.resize((width, ROW_HEIGHT), Image.Resampling.BICUBIC)
        if used + width > SHEET_WIDTH:
            rows.append([])
            used = 0
        rows[-1].append((picture, sample.text))
        used += width + GAP
    sheet = Image.new("RGB", (SHEET_WIDTH, len(rows) * (ROW_HEIGHT + CAPTION + GAP)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = 0, number * (ROW_HEIGHT + CAPTION + GAP)
        for picture, text in row:
            while font.getlength(text) > picture.width and len(text) > 1:
                text = text[:-2] + "\u2026"
            sheet.paste(picture, (x, y))
            pen.text((x, y + ROW_HEIGHT), text, font=font, fill="black")
            x += picture.width + GAP
    return sheet


def _write_folder(samples: Iterable[Sample], folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.tsv").open("w", encoding="utf-8") as labels:
        for number, sample in enumerate(samples):
            (folder / "images" / f"{number:07}.png").write_bytes(sample.image)
            labels.write(f"{number:07}.png\t{sample.text}\n")


def _write_lmdb(samples: Iterable[Sample], folder: Path) -> None:
    import lmdb

    written = 0
    with lmdb.open(str(folder), map_size=2**40) as environment:  # of addresses; the file is as large as what is in it
        for chunk in _chunks(samples, 1000):
            with environment.begin(write=True) as transaction:
                for sample in chunk:
                    written += 1
                    transaction.put(b"image-%09d" % written, sample.image)
                    transaction.put(b"label-%09d" % written, sample.text.encode())
                transaction.put(b"num-samples", str(written).encode())


def _write_parquet(samples: Iterable[Sample], path: Path) -> None:
    import pyarrow as pa
    from datasets import Features, Value
    from datasets import Image as ImageFeature
    from pyarrow.parquet import ParquetWriter

    schema = Features({"image": ImageFeature(), "text": Value("string")}).arrow_schema
    with ParquetWriter(path, schema) as writer:
        for chunk in _chunks(samples, 1000):
            rows = [{"image": {"bytes": sample.image, "path": None}, "text": sample.text} for sample in chunk]
            writer.write_table(pa.Table.from_pylist(rows, schema))


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[Sequence[Sample]]:
    iterator = iter(samples)
    while chunk := list(islice(iterator, size)):
        yield chunk
