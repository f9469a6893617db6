"""Small models, rendered words, data in several formats, and the inputs of the golden values."""

import csv
import io
import json
import os
import shutil
import socket
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import load_file


# Tests must not use the network.
os.environ["HF_HUB_OFFLINE"] = "1"

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2ImageProcessor, SVTRv2Processor, build_tokenizer
from svtrv2_hf.conversion import convert_state_dict, infer_config
from svtrv2_hf.data.sample import IndexedSource


GOLDEN = Path(__file__).parent / "golden"
CHARSET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ -"


@pytest.fixture(autouse=True)
def one_thread_and_a_seed():
    """Limit torch to one thread: with several, small models in parallel tests are a hundred times slower."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture
def config():
    """A small architecture with every kind of block."""
    return SVTRv2Config(
        vocab_size=len(CHARSET) + 1,
        hidden_sizes=[16, 32, 32],
        depths=[1, 2, 1],
        num_attention_heads=[2, 2, 2],
        num_convolution_blocks=[1, 1, 0],
    )


@pytest.fixture
def model(config):
    torch.manual_seed(0)
    model = SVTRv2ForCTC(config).eval()
    # Random weights predict only blanks; larger ones predict texts.
    with torch.no_grad():
        model.head.weight.mul_(60)
        model.head.bias.zero_()
    return model


@pytest.fixture
def processor():
    return SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET))


@pytest.fixture
def saved(model, processor, tmp_path):
    """A saved model with random weights."""
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bundled():
    """The pipeline of the bundled checkpoint; tests do not change it."""
    from transformers import pipeline

    return pipeline("text-recognition")


def draw(text, width=None, height=None):
    """Render a word in black on light gray, in Pillow's font; the image has the size of the word by default."""
    font = ImageFont.load_default(24)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (width or int(right - left) + 8, height or int(bottom - top) + 8), (220, 225, 215))
    ImageDraw.Draw(image).text((4 - left, 4 - top), text, font=font, fill=(10, 20, 30))
    return image


class ListSource(IndexedSource):
    """Samples in memory."""

    def __init__(self, samples, name="list", weight=None):
        self.samples, self.name, self.weight, self.num_samples = samples, name, weight, len(samples)

    def fetch(self, indices):
        return [self.samples[index] for index in indices]

    def texts(self):
        return (sample.text for sample in self.samples)


def encoded(image, format="PNG", **options):
    """Encode an image."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(number=1):
    """A small image whose color depends on the number."""
    return encoded(Image.new("RGB", (24, 12), (number, 1, 2)))


def labeled(*labels):
    """An image and a label each."""
    return [(png(number), label) for number, label in enumerate(labels)]


def write_files(folder, samples):
    """Write image files; returns their names and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (image, _) in enumerate(samples):
        (folder / f"{number}.png").write_bytes(image)
    return [(f"{number}.png", text) for number, (_, text) in enumerate(samples)]


def write_rows(path, rows, columns=("file_name", "text")):
    """Write a list of files or metadata, depending on the extension."""
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    else:
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        lines = lines if path.suffix == ".jsonl" else ["\t".join(row) for row in rows]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def write_lmdb(folder, samples, **others):
    """Write images and labels to an LMDB; `others` are additional records, or `None` for omitted ones."""
    import lmdb

    folder.mkdir(parents=True, exist_ok=True)
    records = {"num-samples": str(len(samples)).encode()}
    for number, (image, text) in enumerate(samples, start=1):
        records |= {f"image-{number:09}": image, f"label-{number:09}": text.encode()}
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for key, value in {**records, **others}.items():
            if value is not None:
                transaction.put(key.encode(), value)
    return folder


class InProcess:
    """Replaces IsolatedReader, to start no process; counts images."""

    images = 0

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, images):
        InProcess.images += len(images)
        return self.reader({self.reader.image: images})

    def close(self):
        pass


@pytest.fixture
def in_process(monkeypatch):
    """Datasets are read in this process."""
    from svtrv2_hf.bulk import run  # needs extras

    monkeypatch.setattr(run, "IsolatedReader", InProcess)
    InProcess.images = 0


def write_tar(path, *members):
    """Write an archive of names and contents."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def pairs(samples):
    """The members of an archive of samples."""
    return [
        pair
        for number, (image, text) in enumerate(samples)
        for pair in ((f"{number}.png", image), (f"{number}.txt", text.encode()))
    ]


def make_folder(root, labels, images_in=None):
    """Write a data folder with an image of each label."""
    place = root / images_in if images_in else root
    place.mkdir(parents=True)
    lines = []
    for number, label in enumerate(labels):
        draw(label or "x").save(place / f"{number}.png")
        lines.append(f"{number}.png\t{label}")
    (root / "labels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def golden(name):
    """Load the arrays of a golden file, by size and name."""
    return load_file(GOLDEN / f"{name}.safetensors")


def golden_state_dict(name):
    """Create the state dict of the reference: each tensor depends on its key and shape."""
    state_dict = {}
    for key, shape in json.loads((GOLDEN / f"{name}_state_dict_shapes.json").read_text()).items():
        z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
        last = key.rsplit(".", 1)[-1]
        if last == "num_batches_tracked":
            value = np.zeros(shape, dtype=np.int64)
        elif last == "running_var":
            value = 1 + 0.5 * abs(z)
        elif last in ("running_mean", "bias"):
            value = 0.1 * z
        elif z.ndim == 1:
            value = 1 + 0.1 * z
        elif last == "weight":
            value = z / np.sqrt(np.prod(shape[1:]))
        else:
            value = z
        state_dict[key] = torch.from_numpy(
            np.asarray(value, dtype=np.int64 if value.dtype == np.int64 else np.float32)
        )
    return state_dict


def golden_image(height, width, count, tag):
    """Create the images of the golden values."""
    rng = np.random.default_rng(zlib.crc32(f"{tag}:{height}x{width}".encode()))
    return torch.from_numpy(rng.uniform(-1, 1, (count, 3, height, width)).astype(np.float32))


def golden_model(name):
    """Create a model with the golden weights."""
    state_dict = golden_state_dict(name)
    model = SVTRv2ForCTC(infer_config(state_dict))
    model.load_state_dict(convert_state_dict(state_dict, model.config))
    return model.eval()


@pytest.fixture(scope="module")
def served():
    """The address of the demo page of the bundled checkpoint."""
    pytest.importorskip("gradio")
    from svtrv2_hf.demo.page import serve

    page = serve(["default"], port=free_port(), wait=False)
    yield page.local_url
    page.close()


@pytest.fixture(scope="module")
def chromium():
    """A headless browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
