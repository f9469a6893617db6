"""What an image may cost, where it may come from, and which formats are read."""

import http.server
import io
import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import draw, encoded
from PIL import EpsImagePlugin, Image

from svtrv2_hf import UnreadableImageError, load_rgb
from svtrv2_hf import image_loading_svtrv2 as loading


# ---- memory

PEAK = """
import sys
from pathlib import Path
from svtrv2_hf.image_loading_svtrv2 import load_rgb

def memory(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024

load_rgb(sys.argv[1])
for source in sys.argv[1:]:
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    load_rgb(source)
    print((memory("VmHWM") - before) / 16e6)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory cannot be measured")
def test_memory_of_large_images_is_bounded(tmp_path):
    """As docs/reading.md says: 8 bytes per pixel and the decoder's own memory, which is largest for WebP."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4000, 4000)).save(tmp_path / "turned.png", exif=exif)
    Image.new("F", (4000, 4000), 7).save(tmp_path / "floats.tif", compression="tiff_deflate")
    Image.new("RGBA", (16000, 1000), (1, 2, 3, 4)).save(tmp_path / "rgba.webp", lossless=True, method=0, quality=0)
    files = [str(tmp_path / name) for name in ("turned.png", "floats.tif", "rgba.webp")]
    done = subprocess.run([sys.executable, "-c", PEAK, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    turned, floats, webp = map(float, done.stdout.split())  # bytes per pixel
    assert turned < 10 and floats < 12 and webp < 20


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr"])
@pytest.mark.parametrize("orientation", [1, 5, 6])
def test_blocks_make_no_difference(mode, orientation, monkeypatch):
    numbers = np.random.default_rng(0).integers(0, 256, (50, 70, 4), dtype=np.uint8)
    colors = Image.fromarray(numbers)
    if mode == "I;16":
        image = Image.fromarray(numbers[..., 0].astype(np.uint16) * 200)
    elif mode == "P":
        image = colors.convert("RGB").quantize(100)
        image.info["transparency"] = bytes(range(100))
    else:
        image = colors.convert("RGB" if mode in ("CMYK", "YCbCr") else "L" if mode in "IF" else mode).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.info["exif"] = exif.tobytes()
    whole = load_rgb(image)
    monkeypatch.setattr(loading, "_BLOCK", 16)
    in_blocks = load_rgb(image)
    np.testing.assert_array_equal(np.asarray(in_blocks), np.asarray(whole))
    assert whole.size == ((70, 50) if orientation == 1 else (50, 70))
    assert load_rgb(whole).size == whole.size  # it is not turned again
    assert image.size == (70, 50) and "exif" in image.info  # the caller's image stays as it is


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64, bool])
def test_blocks_make_no_difference_to_arrays(dtype, monkeypatch):
    array = np.random.default_rng(0).integers(0, 2, (50, 70, 3)).astype(dtype)
    sources = [array, np.moveaxis(array, -1, 0), torch.from_numpy(array)]
    whole = [np.asarray(load_rgb(source)) for source in sources]
    monkeypatch.setattr(loading, "_BLOCK", 16)
    for source, expected in zip(sources, whole, strict=True):
        np.testing.assert_array_equal(np.asarray(load_rgb(source)), expected)


def test_files_and_arrays_have_a_limit(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(encoded(draw("a")))
    monkeypatch.setattr(loading, "MAX_BYTES", 100)
    with pytest.raises(UnreadableImageError, match=r"large.png.*more than the limit of 100"):
        load_rgb(tmp_path / "large.png")
    with pytest.raises(UnreadableImageError, match="10x10 pixels exceed the limit of 99"):
        load_rgb(np.zeros((10, 10), np.uint8), max_pixels=99)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_bits_stored_in_sixteen_are_scaled(bits):
    numbers = np.linspace(0, 2**bits - 1, 240).astype(np.uint16).reshape(10, 24)
    expected = numbers.astype(int) * 255 // (2**bits - 1)
    for kind in ("PNG", "TIFF"):
        read = np.asarray(load_rgb(encoded(Image.fromarray(numbers), kind)))
        np.testing.assert_array_equal(read[..., 0], expected)


# ---- formats


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 32\n%%EndComments\nshowpage\n%%EOF\n", "Postscript"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"8BPS\0\1" + bytes(30), "Photoshop"),
        (b"%PDF-1.4\n", "no image format"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_formats_are_refused_by_name(data, reason, tmp_path, monkeypatch):
    """None of them reaches a decoder, which for PostScript would be another program."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / "word.png").write_bytes(data)
    for source in (tmp_path / "word.png", str(tmp_path / "word.png"), data, io.BytesIO(data)):
        with pytest.raises(UnreadableImageError, match=reason):
            load_rgb(source)


def test_an_open_image_of_another_format_is_not_decoded():
    buffer = io.BytesIO()
    draw("a").save(buffer, "EPS")
    with pytest.raises(UnreadableImageError, match=r"Encapsulated Postscript \(EPS\), is not supported"):
        load_rgb(Image.open(buffer))
    draw("a").save(buffer := io.BytesIO(), "PCX")
    image = Image.open(buffer)
    image.load()  # the caller has decoded it
    assert load_rgb(image).size == image.size


# ---- what is not a file


def test_pipes_sockets_and_devices_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s.png"))
        (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
        for name in (tmp_path / "pipe.png", tmp_path / "s.png", tmp_path / "link.png", "/dev/zero", "/dev/null"):
            with pytest.raises(UnreadableImageError, match="not a regular file"):
                load_rgb(str(name))


# ---- downloads


class Handler(http.server.BaseHTTPRequestHandler):
    stop = threading.Event()

    def do_GET(self):
        kind = self.path.strip("/").split(".")[0]
        if kind in ("file", "ftp", "loop"):
            self.send_response(302)
            self.send_header(
                "Location", {"file": "file:///etc/hostname", "ftp": "ftp://127.0.0.1/a"}.get(kind, self.path)
            )
            self.end_headers()
            return
        if kind == "headers":
            for _ in self.slowly():
                self.wfile.write(b"H")
        self.send_response(200)
        self.end_headers()
        if kind == "good":
            self.wfile.write(encoded(draw("good")))
        for _ in self.slowly() if kind == "drip" else ():
            self.wfile.write(b"x")
        while kind == "endless":
            self.wfile.write(bytes(2**20))

    def slowly(self):
        while not self.stop.wait(0.2):
            yield

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.stop.clear()
    http.server.ThreadingHTTPServer.handle_error = lambda *_: None  # the client has left
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        Handler.stop.set()
        server.shutdown()


def test_a_download_has_one_limit_of_time(server):
    assert load_rgb(f"HTTP://{server}/good.png").size == draw("good").size
    for kind in ("drip", "headers"):
        started = time.monotonic()
        with pytest.raises(UnreadableImageError, match=rf"{kind}.png'.*longer than 0.7 seconds"):
            load_rgb(f"http://{server}/{kind}.png", timeout=0.7)
        assert time.monotonic() - started < 5


def test_a_download_has_a_limit_of_size(server, monkeypatch):
    monkeypatch.setattr(loading, "MAX_BYTES", 2**22)
    with pytest.raises(UnreadableImageError, match="more than 4194304 bytes"):
        load_rgb(f"http://{server}/endless.png")
    with pytest.raises(UnreadableImageError, match="more than 4194304 bytes"):
        load_rgb("data:image/png;base64," + "A" * 2**24)


@pytest.mark.parametrize("kind", ["file", "ftp", "loop"])
def test_redirects_lead_to_http_only(server, kind):
    with pytest.raises(UnreadableImageError, match=r"not allowed|ftp|infinite loop"):
        load_rgb(f"http://{server}/{kind}.png")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "FTP://127.0.0.1/a.png", "s3://bucket/a.png"])
def test_other_urls_are_refused(url):
    with pytest.raises(UnreadableImageError, match="are not supported; pass http, https or data"):
        load_rgb(url)
