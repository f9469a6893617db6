# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 synthesize`: render synthetic text as a contact sheet or as a dataset."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from ..data.sample import Sample
from ..data.sheets import sample_sheet
from .source import SyntheticSource


def synthesize(source: SyntheticSource, output: str | Path, seed: int) -> None:
    """Render one epoch of a source and save it.

    Args:
        source: source of the images.
        output: `.png` file for a contact sheet, `.parquet` file, folder ending in `.lmdb`, or folder without an extension
            for image files and a `labels.tsv`. It must not exist.
        seed: random seed of texts and images.

    Raises:
        FileExistsError: the output exists.
        ValueError: the output has another extension.
    """
    output = Path(output)
    if output.suffix not in ("", ".png", ".parquet", ".lmdb"):
        raise ValueError(
            f"Cannot write {output}: use the extension .png for a contact sheet, .parquet or .lmdb for a dataset, or none "
            "for a folder of images."
        )
    if output.exists():
        raise FileExistsError(f"{output} already exists: choose another name, or remove it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    samples = tqdm(source.read(seed=seed), "Rendering", source.num_samples, unit=" images", disable=None)
    if output.suffix == ".png":
        sample_sheet(samples).save(output)
    elif output.suffix == ".parquet":
        write_parquet(samples, output)
    elif output.suffix == ".lmdb":
        write_lmdb(samples, output)
    else:
        write_folder(samples, output)


def write_folder(samples: Iterable[Sample], folder: Path) -> None:
    """Write images and a `labels.tsv` to a new folder."""
    (folder / "images").mkdir(parents=True)
    with (folder / "labels.tsv").open("w", encoding="utf-8") as labels:
        for number, sample in enumerate(samples):
            (folder / "images" / f"{number:07}.png").write_bytes(sample.image)
            labels.write(f"{number:07}.png\t{sample.text}\n")


def write_lmdb(samples: Iterable[Sample], folder: Path) -> None:
    """Write samples to an LMDB in a new folder."""
    import lmdb

    written = 0
    with lmdb.open(str(folder), map_size=2**40) as environment:  # virtual addresses; the file grows with its content
        for chunk in _chunks(samples, 1000):
            with environment.begin(write=True) as transaction:
                for sample in chunk:
                    written += 1
                    transaction.put(b"image-%09d" % written, sample.image)
                    transaction.put(b"label-%09d" % written, sample.text.encode())
                transaction.put(b"num-samples", str(written).encode())


def write_parquet(samples: Iterable[Sample], path: Path) -> None:
    """Write samples to a parquet file, as an image dataset of `datasets`."""
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
