# SPDX-License-Identifier: Apache-2.0
"""Checks of image files before Pillow reads them.

A small file can declare tiles of gigabytes, point thousands of tags to the same bytes, or consist of so many pieces that
joining them takes minutes. The checks read only headers and raise `ValueError`.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import IO

from PIL import Image


MAX_SEGMENTS = 2000  # before the pixels of a JPEG file; 5 to 50 are common
MAX_EXIF_SEGMENTS = 64  # one is common; Pillow joins them in quadratic time
MAX_SCANS = 100  # of a progressive JPEG file, each of which updates all pixels; 10 are common
MAX_CHUNKS = 50_000  # of a PNG file
# Of 255 bytes before the pixels of a GIF file; older versions of Pillow join comments in quadratic time.
MAX_BLOCKS = 4096
MAX_JUNK = 2**16  # bytes between the segments of a JPEG file, or in a PPM header, which are read one by one
MAX_TAGS, MAX_DIRECTORIES = 4096, 16  # of TIFF and EXIF
MAX_STRIPS = 2**16  # of a TIFF file, which Pillow lists
MAX_BOXES, MAX_BOX_BYTES = 1000, 2**21  # of a JPEG 2000 file; of its header box, which contains boxes
SLOW_PIXELS, SLOW_BYTES = 2**18, 2**21  # of an image decoded by Python code, at about 1 microsecond per number

_TIFF = re.compile(rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]")
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}  # bytes by type
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 13: "L", 16: "Q", 17: "q"}
_SUBDIRECTORIES = {34665, 34853, 40965}  # EXIF, GPS, Interoperability
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_STRIPS = {273, 279, 324, 325}  # offsets and sizes of strips and of tiles
# JPEG markers without a length, according to Pillow and to libjpeg.
_PILLOW_BARE = frozenset((0x01, 0xC8, 0xCC, *range(0xD0, 0xDA), *range(0xF0, 0xFE)))
_LIBJPEG_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def check_header(file: IO[bytes], check_size: Callable[[int, int], None]) -> None:
    """Check a file from its start.

    Args:
        file: an open, seekable file; its position changes.
        check_size: raises if width and height make too many pixels.

    Raises:
        ValueError: reading the file would take more time or memory than the size of the image requires.
    """
    file.seek(0)
    prefix = file.read(16)
    file.seek(0)
    if _TIFF.match(prefix):
        check_tags(file, 0, check_size)
    elif prefix.startswith(b"\xff\xd8\xff"):
        _check_jpeg(file.read())
    elif prefix.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(file)
    elif prefix.startswith(b"GIF8"):
        _check_gif(file)
    elif re.match(rb"P[0-6fy]", prefix):
        _check_ppm(file.read(MAX_JUNK))
    elif prefix[4:8] == b"jP  ":
        _check_jp2(file)
    elif prefix[4:8] == b"ftyp":  # AVIF: Pillow reads EXIF data, anywhere in the file, when it opens the file
        data = file.read()
        for match in _TIFF.finditer(data):
            check_tags(io.BytesIO(data), match.start())


def check_tags(file: IO[bytes], start: int = 0, check_size: Callable[[int, int], None] | None = None) -> None:
    """Check the directories of a TIFF file or of EXIF data that Pillow reads.

    Args:
        file: an open, seekable file.
        start: offset of the TIFF data in the file, in bytes.
        check_size: raises if a tile has too many pixels.

    Raises:
        ValueError: the tags have more data than the file, or a tile is too large.
    """
    length = file.seek(0, io.SEEK_END) - start
    total, tiles = 0, {_TILE_WIDTH: 0, _TILE_HEIGHT: 0}

    def read(offset: int, size: int) -> bytes:
        file.seek(start + min(offset, length))
        return file.read(size)

    head = read(0, 16)
    order, big = "<" if head[:1] == b"I" else ">", b"\x2b" in head[2:4]
    entry, count_format, inline = ("HHQ8s", "Q", 8) if big else ("HHL4s", "H", 4)
    pointer = "Q" if big else "L"
    header = head[8:16] if big else head[4:8]
    pending = list(struct.unpack(order + pointer, header)) if len(header) == inline else []
    visited = 0
    while pending:
        place = pending.pop()
        visited += 1
        if visited > MAX_DIRECTORIES:
            raise ValueError(f"it has more than {MAX_DIRECTORIES} EXIF directories: save it as PNG without metadata")
        width = struct.calcsize(order + count_format)
        if len(raw := read(place, width)) < width:
            continue
        (count,) = struct.unpack(order + count_format, raw)
        if count > MAX_TAGS:
            raise ValueError(
                f"it has {count} TIFF or EXIF tags, more than {MAX_TAGS}: save it as PNG without metadata"
            )
        size = struct.calcsize(order + entry)
        entries = read(place + width, count * size)
        for at in range(0, len(entries) - size + 1, size):
            tag, kind, number, value = struct.unpack_from(order + entry, entries, at)
            needed = number * _SIZES.get(kind, 0)
            (offset,) = struct.unpack(order + pointer, value)
            if tag in _STRIPS and number > MAX_STRIPS:
                raise ValueError(f"it has {number} TIFF strips or tiles, more than {MAX_STRIPS}: save it as PNG")
            if needed > inline and offset + needed <= length:  # Pillow drops truncated values
                total += needed
            if (tag in tiles or tag in _SUBDIRECTORIES) and kind in _INTEGERS and number >= 1:
                form = order + _INTEGERS[kind]
                data = read(offset, 8) if struct.calcsize(form) * number > inline else value
                if len(data) < struct.calcsize(form):
                    continue
                (first,) = struct.unpack_from(form, data)
                if tag in tiles:  # of repeated tags, Pillow uses the last one, libtiff the first
                    tiles[tag] = max(tiles[tag], first)
                elif first > 0:
                    pending.append(first)
    if total > 2 * length + 2**16:  # at most the length, if no data are shared
        raise ValueError(f"its tags claim {total} bytes of a file of {length}: save it as PNG without metadata")
    if check_size is not None and any(tiles.values()):
        try:
            check_size(tiles[_TILE_WIDTH], tiles[_TILE_HEIGHT])
        except ValueError as error:
            raise ValueError(f"a TIFF tile is too large: {error}") from None


def check_exif(image: Image.Image) -> None:
    """Check the EXIF data of an opened image.

    Raises:
        ValueError: its tags claim more data than it has.
    """
    exif = image.info.get("exif")
    if exif is None and (profile := image.info.get("Raw profile type exif")):
        try:
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
        except (AttributeError, TypeError, ValueError):
            return
    if isinstance(exif, bytes):
        check_tags(io.BytesIO(re.sub(rb"\A(?:Exif\0\0)+", b"", exif)))


def check_decoder(image: Image.Image) -> None:
    """Check the size of an opened image that Pillow decodes with Python code, which is slow and uses unlimited memory.

    Raises:
        ValueError: the image is too large.
    """
    decoders = {tile[0] for tile in getattr(image, "tile", ())[:1]}
    file = getattr(image, "fp", None)
    if file is None or not decoders & {"bmp_rle", "ppm", "ppm_plain"}:
        return
    place = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(place)
    if image.width * image.height > SLOW_PIXELS or size > SLOW_BYTES:
        kind = (
            "run-length encoded BMP" if "bmp_rle" in decoders else "PPM with numbers as text or of other than 8 bits"
        )
        raise ValueError(
            f"it is a {kind}, which is limited to {SLOW_PIXELS} pixels and {SLOW_BYTES} bytes: save it as PNG"
        )


def _check_jpeg(data: bytes) -> None:
    exif = segments = junk = scans = 0
    for marker, place, skipped in _jpeg_markers(data, _PILLOW_BARE):
        if marker == _START_OF_SCAN:
            break
        segments, junk = segments + 1, junk + skipped
        exif += marker == 0xE1 and data[place + 2 : place + 8] == b"Exif\0\0"
        if marker == 0xE2 and data[place + 2 : place + 6] == b"MPF\0":
            [length] = struct.unpack_from(">H", data, place)
            check_tags(io.BytesIO(data[place + 6 : place + length]))
        if segments > MAX_SEGMENTS or exif > MAX_EXIF_SEGMENTS or junk > MAX_JUNK:
            raise ValueError("its JPEG header has too many segments, or other bytes between them: save it as PNG")
    for marker, _, _ in _jpeg_markers(data, _LIBJPEG_BARE):
        scans += marker == _START_OF_SCAN
        if marker == _END_OF_IMAGE:
            break
        if scans > MAX_SCANS:
            raise ValueError(f"it is a JPEG image with more than {MAX_SCANS} scans: save it as PNG")


def _jpeg_markers(data: bytes, bare: frozenset[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each marker, the offset after it, and the number of bytes outside of segments before it."""
    place = 2
    marker = re.compile(rb"\xff[^\0\xff]")
    while match := marker.search(data, place):
        kind, skipped = data[match.end() - 1], match.start() - place
        place = match.end()
        yield kind, place, skipped
        if kind not in bare and kind != _END_OF_IMAGE and place + 2 <= len(data):
            place += max(struct.unpack_from(">H", data, place)[0], 2)


def _check_png(file: IO[bytes]) -> None:
    file.seek(8)
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        file.seek(struct.unpack(">L", head[:4])[0] + 4, io.SEEK_CUR)
    raise ValueError(f"it is a PNG image of more than {MAX_CHUNKS} chunks: save it again")


def _check_gif(file: IO[bytes]) -> None:
    head = file.read(13)
    if len(head) == 13 and head[10] & 128:
        file.seek(3 << ((head[10] & 7) + 1), io.SEEK_CUR)
    blocks = 0
    while (byte := file.read(1)) and byte not in b",;":
        blocks += 1
        if byte == b"!":
            file.read(1)
            while blocks <= MAX_BLOCKS and (size := file.read(1)) and size != b"\0":
                blocks += 1
                file.seek(size[0], io.SEEK_CUR)
        if blocks > MAX_BLOCKS:
            raise ValueError(f"it is a GIF image with more than {MAX_BLOCKS} blocks before its pixels: save it as PNG")


def _check_jp2(file: IO[bytes]) -> None:
    for _ in range(MAX_BOXES):
        start = file.tell()
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8 or kind == b"jp2c" or size == 0:
            return
        size = int.from_bytes(head[8:], "big") if size == 1 else size
        if kind == b"jp2h" and size > MAX_BOX_BYTES:
            break
        file.seek(min(start + max(size, 8), 2**62))
    raise ValueError("its JPEG 2000 header has too many boxes: save it as PNG")


def _check_ppm(head: bytes) -> None:
    needed = 3 if head[1:2] in b"14" else 4
    if len(head) == MAX_JUNK and len(re.sub(rb"#[^\r\n]*", b"", head[: MAX_JUNK // 16]).split(maxsplit=4)) < needed:
        raise ValueError("its PPM header has too many comments: save it as PNG")


__all__ = ["check_decoder", "check_exif", "check_header", "check_tags"]
