"""Damaged image files of all formats: loading returns an RGB image or raises an error with the name, in limited time."""

import time

import numpy as np
import pytest
from conftest import draw, encoded
from PIL import Image

from svtrv2_hf import UnreadableImageError, load_rgb
from svtrv2_hf.image_loading_svtrv2 import FORMATS


VARIANTS = [
    *[(kind, "RGB", {}) for kind in FORMATS if kind not in ("HEIF", "JXL")],
    ("PNG", "P", {}),
    ("PNG", "LA", {}),
    ("PNG", "I;16", {}),
    ("JPEG", "CMYK", {"progressive": True}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"save_all": True, "append_images": [draw("Hello").rotate(180)]}),
    ("GIF", "P", {"save_all": True, "append_images": [draw("Hello").rotate(180)]}),
    ("PNG", "RGB", {"save_all": True, "append_images": [draw("Hello").rotate(180)]}),
    *[("TIFF", "RGB", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")],
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "F", {}),
    ("TGA", "RGBA", {"compression": "tga_rle"}),
    ("AVIF", "RGBA", {}),
]


def check(data, name):
    started = time.monotonic()
    try:
        image = load_rgb(data, name)
    except UnreadableImageError as error:
        assert str(error).startswith(f"Cannot read {name}: ")
    else:
        assert image.mode == "RGB" and type(image) is Image.Image
    assert time.monotonic() - started < 20, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "mode", "options"), VARIANTS, ids=lambda value: str(value)[:24])
def test_damaged_files_are_loaded_or_raise(kind, mode, options):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = draw("Hello")
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode != "RGB":
        image = image.convert("L").convert(mode) if mode in ("F", "1") else image.convert(mode)
    if kind in ("PNG", "JPEG", "WEBP", "AVIF"):
        options = {**options, "exif": exif}
    data = encoded(image, kind, **options)
    check(data, "whole")
    load_rgb(data)
    for end in range(1, len(data), max(1, len(data) // 300)):
        check(data[:end], f"cut at {end}")
    rng = np.random.default_rng(0)
    for number in range(10_000):
        mutated = bytearray(data)
        for _ in range(rng.integers(1, 8)):
            # mostly in headers, whose values decoders trust
            place = rng.integers(min(len(data), 400)) if rng.random() < 0.7 else rng.integers(len(data))
            mutated[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
        check(bytes(mutated), f"mutation {number}")
