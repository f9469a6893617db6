# SPDX-License-Identifier: Apache-2.0
"""Recognize words and lines without torch: `python onnx/read.py word.png ...`, or `from read import Reader`.

Needs onnxruntime, numpy and pillow. Unlike `svtrv2 read`, it supports only files, without images of floats, of any size.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class Reader:  # noqa: D101
    def __init__(self, file=None, **options):
        folder = Path(__file__).resolve().parent
        texts = [(folder.parent / f"{name}.json").read_text("utf-8") for name in ("processor_config", "tokenizer")]
        self.size, ids = json.loads(texts[0])["image_processor"], json.loads(texts[1])["model"]["vocab"]
        self.characters = sorted(ids, key=ids.get)[:-1]  # the first is the blank, the last one the unknown token
        file = file or next(folder.glob("model.onnx"), folder / "model_quantized.onnx")
        self.session = onnxruntime.InferenceSession(file, **{"providers": ["CPUExecutionProvider"], **options})

    def __call__(self, image):  # a path or a PIL image; returns text and score
        logits = self.session.run(None, {"pixel_values": self.prepare(rgb(image))})[0][0, :, : len(self.characters)]
        best, scores = logits.argmax(-1), 1 / np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)
        starts = np.flatnonzero(np.diff(best, prepend=-1, append=-1)).tolist()
        runs = [(best[a], scores[a:b].max()) for a, b in itertools.pairwise(starts) if best[a]]
        score = float(np.exp(np.mean(np.log([score for _, score in runs])))) if runs else 0.0
        return "".join(self.characters[id] for id, _ in runs), score

    def prepare(self, image):
        sizes, max_ratio = self.size["bucket_sizes"], self.size["max_ratio"]
        ratio = min(max(round(image.width / image.height), 1), max_ratio)
        height, width = sizes[min(ratio, len(sizes)) - 1]
        image = image.resize((width if ratio <= len(sizes) else height * ratio, height), Image.Resampling.BICUBIC)
        return (np.asarray(image, np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]


def rgb(image):  # noqa: D103
    image = ImageOps.exif_transpose(image if isinstance(image, Image.Image) else Image.open(image))
    if image.mode.startswith("I"):  # gray of up to 16 bits
        values = np.asarray(image).astype(np.uint32)
        bits = next(bits for bits in (8, 10, 12, 16) if values.max() < 2**bits)
        image = Image.fromarray((values * 255 // (2**bits - 1)).astype(np.uint8))
    if {"A", "a"} & set(image.getbands()) or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


if __name__ == "__main__":
    reader, status = Reader(), 0
    for path in sys.argv[1:]:
        try:
            print(path, "{}\t{:.4f}".format(*reader(path)), sep="\t")
        except Exception as error:  # Pillow raises many kinds
            status = print(f"Cannot read image {path!r}: {error}.", file=sys.stderr) or 1
    sys.exit(status)
