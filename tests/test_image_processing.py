"""Sizes, resizing, and every kind of image that users hold."""

import base64
import io
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svtrv2_hf import SVTRv2ImageProcessor, UnreadableImageError, load_rgb
from svtrv2_hf.image_processing_svtrv2 import open_image, resize, target_size, upright_size


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (10, 100, (64, 64)),
        (100, 100, (64, 64)),
        (149, 100, (64, 64)),
        (150, 100, (48, 96)),  # halves go to the even neighbour: 1.5 -> 2
        (250, 100, (48, 96)),  # 2.5 -> 2
        (251, 100, (40, 112)),
        (350, 100, (32, 128)),  # 3.5 -> 4
        (450, 100, (32, 128)),  # 4.5 -> 4
        (451, 100, (32, 160)),
        (1200, 100, (32, 384)),
        (99999, 1, (32, 384)),
    ],
)
def test_size_follows_from_the_rounded_aspect_ratio(width, height, size):
    assert target_size(width, height) == size
    assert SVTRv2ImageProcessor().target_size(width, height) == size


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), max_ratio=st.integers(1, 30))
def test_size_is_the_nearest_bucket(width, height, max_ratio):
    rows, columns = target_size(width, height, max_ratio)
    buckets = {1: (64, 64), 2: (48, 96), 3: (40, 112), 4: (32, 128)}
    ratio = next((r for r, size in buckets.items() if size == (rows, columns)), columns // 32)
    assert 1 <= ratio <= max_ratio
    wanted = Fraction(width, height)
    assert abs(wanted - ratio) <= Fraction(1, 2) or ratio == (max_ratio if wanted > ratio else 1)


def test_max_ratio():
    line = Image.new("RGB", (2000, 50))
    assert SVTRv2ImageProcessor(max_ratio=4)(line)["pixel_values"].shape == (1, 3, 32, 128)
    assert SVTRv2ImageProcessor(max_ratio=20)(line)["pixel_values"].shape == (1, 3, 32, 640)
    assert SVTRv2ImageProcessor()(line, max_ratio=6)["pixel_values"].shape == (1, 3, 32, 192)


@pytest.mark.parametrize("max_ratio", [0, -3])
def test_a_max_ratio_without_meaning_is_refused(max_ratio):
    with pytest.raises(ValueError, match=f"max_ratio={max_ratio} must be"):
        SVTRv2ImageProcessor()(draw("a"), max_ratio=max_ratio)


def test_pixels_are_those_of_pillow_scaled_to_minus_one_to_one():
    image = draw("Hello")
    height, width = target_size(*image.size)
    expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64) / 127.5 - 1
    output = SVTRv2ImageProcessor()(image, return_tensors="pt")
    assert output["pixel_values"].dtype == torch.float32
    np.testing.assert_allclose(output["pixel_values"][0].permute(1, 2, 0), expected, atol=1e-6)
    assert output["image_sizes"].tolist() == [[height, width]]


def test_a_mixed_batch_is_padded_and_each_image_is_as_alone():
    images = [draw("a"), draw("somewhat longer"), draw("word")]
    processor = SVTRv2ImageProcessor()
    batch = processor(images)
    for image, row, (height, width) in zip(images, batch["pixel_values"], batch["image_sizes"], strict=True):
        np.testing.assert_array_equal(row[:, :height, :width], processor(image)["pixel_values"][0])


def test_round_trip(tmp_path):
    processor = SVTRv2ImageProcessor(max_ratio=20, bucket_sizes=[[48, 48], [48, 96]])
    processor.save_pretrained(tmp_path)
    loaded = SVTRv2ImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.target_size(300, 100) == (48, 144)


@pytest.mark.parametrize(
    "arguments", [{"max_ratio": 0}, {"max_ratio": 2.5}, {"bucket_sizes": []}, {"bucket_sizes": [[32]]}]
)
def test_impossible_settings(arguments):
    with pytest.raises(ValueError, match="must be"):
        SVTRv2ImageProcessor(**arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="'do_resize'"):
        SVTRv2ImageProcessor()(draw("a"), do_resize=False)


# ---- kinds of images

GREY = np.arange(0, 240, dtype=np.uint8).reshape(10, 24)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)


def rgb(array):
    return np.asarray(load_rgb(array))


def file_bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey_as_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), grey_as_rgb(GREY)),
        (Image.fromarray(GREY > 100), grey_as_rgb((GREY > 100).astype(np.uint8) * 255)),
        (COLOUR, COLOUR),
        (GREY, grey_as_rgb(GREY)),
        (GREY[..., None], grey_as_rgb(GREY)),
        (np.moveaxis(COLOUR, -1, 0), COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
        (COLOUR.astype(np.uint16) * 257, COLOUR),
        ((COLOUR / 255.0).astype(np.float32), COLOUR),
        (COLOUR / 255.0, COLOUR),
        (torch.from_numpy(COLOUR), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (torch.from_numpy(GREY), grey_as_rgb(GREY)),
        ((torch.from_numpy(COLOUR) / 255).permute(2, 0, 1).requires_grad_(), COLOUR),
        (file_bytes(Image.fromarray(COLOUR), "PNG"), COLOUR),
        (file_bytes(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
        (io.BytesIO(file_bytes(Image.fromarray(COLOUR), "BMP")), COLOUR),
        ("data:image/png;base64," + base64.b64encode(file_bytes(Image.fromarray(COLOUR), "PNG")).decode(), COLOUR),
        (Image.fromarray(GREY.astype(np.uint16) * 257), grey_as_rgb(GREY)),
        (Image.fromarray(GREY.astype(np.int32) * 257), grey_as_rgb(GREY)),
        (Image.fromarray(GREY.astype(np.float32)), grey_as_rgb(GREY)),
        (file_bytes(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), grey_as_rgb(GREY)),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) and value.ndim == 3 else None,
)
def test_usual_kinds(source, expected):
    np.testing.assert_array_equal(rgb(source), expected)


def test_a_tensor_is_taken_channels_first_and_an_array_channels_last_where_both_are_possible():
    assert load_rgb(np.zeros((3, 50, 3), np.uint8)).size == (50, 3)
    assert load_rgb(torch.zeros(3, 3, 50, dtype=torch.uint8)).size == (50, 3)
    assert load_rgb(torch.zeros(3, 50, 3, dtype=torch.uint8)).size == (3, 50)


def test_half_precision_tensors():
    tensor = (torch.from_numpy(COLOUR).permute(2, 0, 1) / 255).to(torch.bfloat16)
    assert abs(rgb(tensor).astype(int) - COLOUR).max() <= 1


def test_palette_cmyk_and_other_modes():
    image = draw("Text")
    for mode in ("P", "CMYK", "YCbCr", "HSV"):
        converted = image.quantize(8) if mode == "P" else image.convert(mode)
        difference = abs(rgb(converted).astype(int) - np.asarray(image).astype(int))
        assert difference.mean() < 4, mode


def test_transparency_is_composed_on_white():
    black_on_nothing = np.zeros((20, 40, 4), np.uint8)
    black_on_nothing[5:15, 10:30, 3] = 255
    expected = np.full((20, 40, 3), 255)
    expected[5:15, 10:30] = 0
    rgba = Image.fromarray(black_on_nothing)
    np.testing.assert_array_equal(rgb(rgba), expected)
    np.testing.assert_array_equal(rgb(black_on_nothing), expected)
    np.testing.assert_array_equal(rgb(file_bytes(rgba, "PNG")), expected)
    np.testing.assert_array_equal(rgb(rgba.convert("LA")), expected)
    palette = Image.fromarray((black_on_nothing[..., 3] == 0).astype(np.uint8), mode=None).convert("P")
    palette.putpalette([0, 0, 0, 90, 90, 90])
    palette.info["transparency"] = 1
    np.testing.assert_array_equal(rgb(palette), expected)
    np.testing.assert_array_equal(rgb(file_bytes(palette, "PNG", transparency=1)), expected)


def test_exif_rotation_is_applied():
    image = draw("Sideways")
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    sideways = image.transpose(Image.Transpose.ROTATE_90)
    data = file_bytes(sideways, "PNG", exif=exif)
    np.testing.assert_array_equal(rgb(data), np.asarray(image))
    assert Image.open(io.BytesIO(data)).size == sideways.size
    assert upright_size(open_image(data)) == image.size
    assert upright_size(open_image(file_bytes(sideways, "PNG"))) == sideways.size
    # a PIL image keeps its rotation to be applied by us, once
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(rgb(opened), np.asarray(image))


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (2, 3)])
def test_odd_sizes_are_images(size):
    output = SVTRv2ImageProcessor()(Image.new("RGB", size, (200, 10, 10)))
    assert output["pixel_values"].shape[-2:] == target_size(*size)


# ---- what is no image


PNG = file_bytes(draw("Hello"), "PNG")
JPEG = file_bytes(draw("Hello"), "JPEG")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (PNG[:60], "truncated|broken|not enough"),
        (JPEG[: len(JPEG) // 2], "(?i)truncated"),
        (JPEG[:-60], "truncated"),
        (b"", "it is empty"),
        (b"GIF89a", "no image format|not identify|truncated|GIF|index"),
        (b"just some text", "no image format"),
        (np.full((4, 4, 3), 128.0), r"floats lie in 128..128; pass floats in 0..1"),
        (np.full((4, 4), np.nan), "floats lie in"),
        (np.full((4, 4), -1), r"integers lie in -1..-1"),
        (np.full((4, 4), 300), r"integers lie in 300..300"),
        (np.zeros((4, 4), complex), "no colors"),
        (np.zeros(7, np.uint8), "two or three dimensions, not 1"),
        (np.zeros((5, 6, 7), np.uint8), "channels"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 5)), "size is 0x5"),
        (None, "an image is a PIL image, a path"),
        (3.5, "an object of type float"),
        ({"bytes": PNG}, "an object of type dict"),
        ("no/such/file.png", "'no/such/file.png': there is no such file"),
        ("iVBORw0KGgo" * 1000, r"^.{,300}name too long\.$"),
        (".", "it is a folder"),
        ("data:image/png;base64,AAAA", "no image format"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_read_is_named_with_the_reason(source, message):
    with pytest.raises(UnreadableImageError, match=message):
        load_rgb(source)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "DDS", "ICO", "TGA"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_or_named(kind, seed):
    """Whatever a decoder stumbles over, no other error comes out."""
    rng = np.random.default_rng(seed)
    data = bytearray(file_bytes(draw("Hello"), kind))
    for _ in range(rng.integers(1, 6)):
        data[rng.integers(min(len(data), 300))] = rng.integers(256)
    if rng.random() < 0.3:
        del data[rng.integers(1, len(data)) :]
    try:
        image = load_rgb(bytes(data), name="the damaged one")
    except UnreadableImageError as error:
        assert str(error).startswith("Cannot read the damaged one: ")
    else:
        assert image.mode == "RGB"


def test_sixteen_bits_of_either_byte_order():
    dark = np.full((6, 9), 130, dtype=np.uint16)  # of 65535: almost black, though it would be grey in 8 bits
    for order in ("<u2", ">u2"):
        assert rgb(dark.astype(order)).max() == 0
        np.testing.assert_array_equal(rgb((GREY.astype(np.uint16) * 257).astype(order)), grey_as_rgb(GREY))


def test_files_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.jpg").write_bytes(JPEG[:300])
    (tmp_path / "text.png").write_text("not an image")
    for name, reason in (("empty.png", "the file is empty"), ("cut.jpg", ""), ("text.png", "no image format")):
        for path in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(UnreadableImageError, match=f"{name}.*{reason}"):
                load_rgb(path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    data = file_bytes(Image.new("1", (20000, 20000)), "PNG")  # 50 kB that would become 1.2 GB
    with pytest.raises(UnreadableImageError, match="more pixels than the limit of 64000000"):
        load_rgb(data)
    # between Pillow's limit and twice of it, Pillow only warns
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    small = file_bytes(Image.new("RGB", (40, 40)), "PNG")
    with pytest.raises(UnreadableImageError, match=r"40x40 pixels exceed the limit of 1000"):
        load_rgb(small)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(UnreadableImageError, match=r"40x40 pixels exceed the limit of 1599"):
        load_rgb(small, max_pixels=1599)
    assert load_rgb(small, max_pixels=1600).size == (40, 40)


def test_a_large_photograph_is_no_bomb():
    assert load_rgb(file_bytes(Image.new("L", (9000, 5000), 100), "PNG")).size == (9000, 5000)


def test_the_bad_image_of_a_batch_is_told():
    with pytest.raises(UnreadableImageError, match=r"image 1 of 3, an array of shape \(4,\)"):
        SVTRv2ImageProcessor()([draw("a"), np.zeros(4), draw("b")])


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 3, 4, 4))])
def test_an_empty_list_is_refused(nothing):
    with pytest.raises(ValueError, match="the list is empty"):
        SVTRv2ImageProcessor()(nothing)


def test_resize_leaves_an_image_of_the_right_size_alone():
    image = draw("abc")
    np.testing.assert_array_equal(resize(image, (image.height, image.width)), np.asarray(image))
