"""Limits of memory, time and size, sources, and formats of images."""

import http.server
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib

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
    """As in docs/reading.md: 8 bytes per pixel and the memory of the decoder, which is largest for WebP."""
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
def test_results_do_not_depend_on_blocks(mode, orientation, monkeypatch):
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
    assert load_rgb(whole).size == whole.size  # not rotated again
    assert image.size == (70, 50) and "exif" in image.info  # the caller's image is unchanged


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int64, bool])
def test_results_do_not_depend_on_blocks_for_arrays(dtype, monkeypatch):
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
def test_other_formats_are_rejected_by_name(data, reason, tmp_path, monkeypatch):
    """None of them reaches a decoder, which for PostScript would be another program."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    (tmp_path / "word.png").write_bytes(data)
    for source in (tmp_path / "word.png", str(tmp_path / "word.png"), data, io.BytesIO(data)):
        with pytest.raises(UnreadableImageError, match=reason):
            load_rgb(source)


def test_open_image_of_another_format_is_not_decoded():
    buffer = io.BytesIO()
    draw("a").save(buffer, "EPS")
    with pytest.raises(UnreadableImageError, match=r"Encapsulated Postscript \(EPS\), is not supported"):
        load_rgb(Image.open(buffer))
    draw("a").save(buffer := io.BytesIO(), "PCX")
    image = Image.open(buffer)
    image.load()  # the caller has decoded it
    assert load_rgb(image).size == image.size


# ---- paths that are not regular files


def test_pipes_sockets_and_devices_are_rejected(tmp_path):
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


def test_downloads_have_a_total_time_limit(server):
    assert load_rgb(f"HTTP://{server}/good.png").size == draw("good").size
    for kind in ("drip", "headers"):
        started = time.monotonic()
        with pytest.raises(UnreadableImageError, match=rf"{kind}.png'.*longer than 0.7 seconds"):
            load_rgb(f"http://{server}/{kind}.png", timeout=0.7)
        assert time.monotonic() - started < 5


def test_downloads_have_a_size_limit(server, monkeypatch):
    monkeypatch.setattr(loading, "MAX_BYTES", 2**22)
    with pytest.raises(UnreadableImageError, match="more than 4194304 bytes"):
        load_rgb(f"http://{server}/endless.png")
    with pytest.raises(UnreadableImageError, match="more than 4194304 bytes"):
        load_rgb("data:image/png;base64," + "A" * 2**24)


@pytest.mark.parametrize("kind", ["file", "ftp", "loop"])
def test_redirects_are_limited_to_http(server, kind):
    with pytest.raises(UnreadableImageError, match=r"not allowed|ftp|infinite loop"):
        load_rgb(f"http://{server}/{kind}.png")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "FTP://127.0.0.1/a.png", "s3://bucket/a.png"])
def test_other_urls_are_rejected(url):
    with pytest.raises(UnreadableImageError, match="are not supported; pass http, https or data"):
        load_rgb(url)


# ---- small files that need much memory or time


def tiff(tags, data=b"", order="<", big=False):
    """A TIFF file of one directory: (tag, type, count, value or offset) each, and data from byte 16 on."""
    entry = "HHQQ" if big else "HHLL"
    place = 16 + len(data)
    magic = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, place) if big else struct.pack(order + "HL", 42, place)
    body = b"".join(struct.pack(order + entry, *tag) for tag in sorted(tags))
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return (magic + head).ljust(16, b"\0") + data + count + body + bytes(8)


def image_tags(*more):
    """Of 64x32 gray pixels; longs, so that values are at the same place in both byte orders."""
    common = {256: 64, 257: 32, 258: 8, 259: 8, 262: 1, 277: 1}
    return [*((tag, 4, 1, value) for tag, value in common.items()), *more]


def refuses_quickly(data, match, **options):
    started = time.monotonic()
    for source in (data, io.BytesIO(data)):
        with warnings.catch_warnings(), pytest.raises(UnreadableImageError, match=match):
            warnings.simplefilter("error")
            load_rgb(source, **options)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_tiles_count_as_pixels(order, big):
    packed = zlib.compress(bytes(1000))

    def file(*sides):
        tiles = [(322 + number % 2, 4, 1, side) for number, side in enumerate(sides)]
        if order == ">" and big:
            tiles = [(tag, kind, count, value << 32) for tag, kind, count, value in tiles]
        return tiff(image_tags(*tiles, (324, 4, 1, 16), (325, 4, 1, len(packed))), packed, order, big)

    refuses_quickly(file(46336, 46336), "TIFF tile is too large: its 46336x46336 pixels")
    refuses_quickly(file(64, 46336, 46336, 64), "its 46336x46336 pixels")  # decoders choose one of two
    refuses_quickly(file(512, 512), "its 512x512 pixels", max_pixels=512 * 511)
    if not big:
        opened = Image.open(io.BytesIO(file(46336, 46336)))
        with pytest.raises(UnreadableImageError, match="TIFF tile is too large"):
            load_rgb(opened)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_that_share_data_are_rejected(order):
    many = [(tag, 7, 100_000, 16) for tag in range(1000, 2000)]
    bomb = tiff(image_tags(*many), bytes(100_000), order)
    reason = "its tags claim 100000000 bytes"
    refuses_quickly(bomb, reason)
    nested = tiff([(34665, 4, 1, 16 + 100_000), *many], bytes(100_000), order)
    for kind in ("PNG", "WEBP"):
        refuses_quickly(encoded(draw("a"), kind, exif=bomb), reason)
        refuses_quickly(encoded(draw("a"), kind, exif=nested), "tags claim|directories")
    small = tiff([(tag, 7, 50_000, 16) for tag in range(1000, 2000)], bytes(50_000), order)
    refuses_quickly(encoded(draw("a"), "JPEG", exif=b"Exif\0\0" + small), "its tags claim 50000000 bytes")
    plain = encoded(draw("a"), "AVIF", exif=tiff([(270, 7, 50_000, 16)], bytes(50_000)))
    assert load_rgb(plain).size == draw("a").size
    refuses_quickly(plain + bomb, "its tags claim")  # Pillow reads EXIF data of AVIF when it opens the file
    refuses_quickly(tiff(image_tags(*[(999, 4, 1, 0)] * 5000)), "5006 TIFF or EXIF tags, more than 4096")


def test_metadata_of_usual_files_is_read():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 60_000
    exif.get_ifd(0x8769)[0x9286] = b"y" * 1000
    exif.get_ifd(0x8825)[1] = "N"
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "MPO"):
        turned = load_rgb(encoded(draw("abc"), kind, exif=exif))
        assert turned.size == draw("abc").size[::-1], kind
    tiled = encoded(draw("abc"), "TIFF", tiffinfo={322: 256, 323: 256}, compression="tiff_deflate")
    assert load_rgb(tiled).size == draw("abc").size


def test_tiff_and_jpeg_2000_files_in_thousands_of_pieces_are_rejected():
    strips = [(273, 4, 10**5, 16), (279, 4, 10**5, 16)]
    refuses_quickly(tiff(image_tags(*strips), bytes(4 * 10**5)), "100000 TIFF strips or tiles, more than 65536")
    data = encoded(draw("a"), "JPEG2000")
    place = data.index(b"jp2h") - 4
    box = struct.pack(">L", 8) + b"free"
    assert load_rgb(data[:place] + box * 10 + data[place:]).size == draw("a").size
    refuses_quickly(data[:place] + box * 2000 + data[place:], "too many boxes")
    refuses_quickly(data[:place] + struct.pack(">L", 2**22) + b"jp2h" + box * 2**19 + data[place:], "too many boxes")


def jpeg_with(pieces):
    data = encoded(draw("a"), "JPEG")
    return data[:2] + pieces + data[2:]


def test_jpeg_files_in_thousands_of_pieces_are_rejected():
    piece = b"\xff\xe1" + struct.pack(">H", 12) + b"Exif\0\0AAAA"
    refuses_quickly(jpeg_with(piece * 5000), "too many segments")
    refuses_quickly(jpeg_with(b"\xff\xe0\0\2" * 5000), "too many segments")
    refuses_quickly(jpeg_with(b"\xff" * 10**6), "too many segments, or other bytes")
    assert load_rgb(jpeg_with(piece * 3)).size == draw("a").size

    data = encoded(draw("a").convert("L"), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    assert load_rgb(data).size == draw("a").size
    refuses_quickly(data[:-2] + data[last:-2] * 100 + b"\xff\xd9", "more than 100 scans")
    decoy = b"\xff\xfe\0\4\xff\xd9"  # the end of the image, in a comment
    refuses_quickly(data[:last] + decoy + data[last:-2] * 101 + b"\xff\xd9", "more than 100 scans")
    behind = data + b"\xff\xda" * 1000  # of a video, as some cameras append it
    assert load_rgb(behind).size == draw("a").size


def test_png_and_gif_files_in_thousands_of_pieces_are_rejected():
    data = encoded(draw("a"))
    chunk = struct.pack(">L", 0) + b"prIv" + struct.pack(">L", zlib.crc32(b"prIv"))
    refuses_quickly(data[:33] + chunk * 60_000 + data[33:], "more than 50000 chunks")
    assert load_rgb(data[:33] + chunk * 10 + data[33:]).size == draw("a").size
    data = encoded(draw("a"), "GIF", comment=b"c" * 1000)
    assert load_rgb(data).size == draw("a").size
    comment = b"!\xfe" + (b"\xff" + b"c" * 255) * 5000 + b"\0"
    start = data.index(b"!\xfe")
    refuses_quickly(data[:start] + comment + data[start:], "more than 4096 blocks")


def test_formats_that_are_decoded_slowly_have_lower_limits():
    header = struct.pack("<LllHHLLLLLL", 40, 16_000_000, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    bomb = b"BM" + struct.pack("<LHHL", 1082, 0, 0, 1078) + header + bytes(1024) + b"\0\2\0\xff"
    refuses_quickly(bomb, "run-length encoded BMP")
    refuses_quickly(b"P5 600 600 100\n" + bytes(360_000), "PPM with numbers as text or of other than 8 bits")
    refuses_quickly(b"P2 600 600 255\n" + b"1 " * 360_000, "PPM with numbers")
    refuses_quickly(b"P2 10 10 255\n" + b"#\n" * 2**21 + b"1 " * 100, "PPM with numbers")
    refuses_quickly(b"P5 #" + b"c" * 10**6 + b"\n10 10 255\n" + bytes(100), "too many comments")
    assert load_rgb(b"P5 600 600 255\n" + bytes(360_000)).size == (600, 600)
    assert load_rgb(b"P4 1600 1600\n" + bytes(320_000)).size == (1600, 1600)
    assert load_rgb(b"P2 # a comment\n2 1 15\n15 0").tobytes() == b"\xff\xff\xff\0\0\0"
    small = struct.pack("<LllHHLLLLLL", 40, 4, 1, 1, 8, 1, 0, 0, 0, 256, 0)
    rle = b"BM" + struct.pack("<LHHL", 1082, 0, 0, 1078) + small + b"\7\7\7\0" * 256 + b"\4\1\0\1"
    assert load_rgb(rle).tobytes() == b"\7" * 12
