"""Sizes, resizing, and all kinds of images."""

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
from transformers import AutoImageProcessor, AutoProcessor

from svtrv2_hf import (
    SVTRv2ImageProcessor,
    SVTRv2Processor,
    SVTRv2ServerImageProcessor,
    UnreadableImageError,
    load_rgb,
)
from svtrv2_hf.image_processing_svtrv2 import open_image, upright_size
from svtrv2_hf.resizing_svtrv2 import resize, target_size


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (10, 100, (64, 64)),
        (100, 100, (64, 64)),
        (149, 100, (64, 64)),
        (150, 100, (48, 96)),  # halves go to the even neighbor: 1.5 -> 2
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


def test_max_ratio_limits_the_width():
    line = Image.new("RGB", (2000, 50))
    assert SVTRv2ImageProcessor(max_ratio=4)(line)["pixel_values"].shape == (1, 3, 32, 128)
    assert SVTRv2ImageProcessor(max_ratio=20)(line)["pixel_values"].shape == (1, 3, 32, 640)
    assert SVTRv2ImageProcessor()(line, max_ratio=6)["pixel_values"].shape == (1, 3, 32, 192)


@pytest.mark.parametrize("max_ratio", [0, -3])
def test_invalid_max_ratio_raises(max_ratio):
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


def test_padding_a_batch_does_not_change_images():
    images = [draw("a"), draw("somewhat longer"), draw("word")]
    processor = SVTRv2ImageProcessor()
    batch = processor(images)
    for image, row, (height, width) in zip(images, batch["pixel_values"], batch["image_sizes"], strict=True):
        np.testing.assert_array_equal(row[:, :height, :width], processor(image)["pixel_values"][0])


def test_saved_settings_are_loaded_unchanged(tmp_path):
    processor = SVTRv2ImageProcessor(max_ratio=20, bucket_sizes=[[48, 48], [48, 96]])
    processor.save_pretrained(tmp_path)
    loaded = SVTRv2ImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert loaded.target_size(300, 100) == (48, 144)


@pytest.mark.parametrize(
    "arguments", [{"max_ratio": 0}, {"max_ratio": 2.5}, {"bucket_sizes": []}, {"bucket_sizes": [[32]]}]
)
def test_invalid_settings_raise(arguments):
    with pytest.raises(ValueError, match="must be"):
        SVTRv2ImageProcessor(**arguments)


def test_server_processors_keep_the_aspect_ratio_and_pad_on_the_right():
    processor = SVTRv2ServerImageProcessor()
    image = Image.new("RGB", (300, 60), (250, 0, 30))
    pixels = np.rint((processor(image)["pixel_values"][0] + 1) * 127.5)
    assert pixels.shape == (3, 48, 320)
    assert (pixels[:, :, :240] == np.array([30, 0, 250])[:, None, None]).all()
    assert (pixels[:, :, 240:] == 128).all()
    assert processor.target_size(400, 60) == (48, 320)
    assert processor.target_size(402, 60) == (48, 321)
    assert SVTRv2ServerImageProcessor(width_multiple=32).target_size(402, 60) == (48, 352)
    assert processor.target_size(10_000, 60) == (48, 40 * 48)
    assert processor.target_size(10_000, 60, max_ratio=10) == (48, 480)


def test_saved_server_processors_load_with_auto_classes(processor, tmp_path):
    saved = SVTRv2ServerImageProcessor(max_ratio=30, fixed_height=32, min_width=160, width_multiple=8)
    saved.save_pretrained(tmp_path / "alone")
    SVTRv2Processor(saved, processor.tokenizer).save_pretrained(tmp_path / "both")
    for loaded in (
        SVTRv2ServerImageProcessor.from_pretrained(tmp_path / "alone"),
        AutoImageProcessor.from_pretrained(tmp_path / "alone"),
        AutoImageProcessor.from_pretrained(tmp_path / "both"),
        AutoProcessor.from_pretrained(tmp_path / "both").image_processor,
    ):
        assert type(loaded) is SVTRv2ServerImageProcessor
        assert [getattr(loaded, name) for name in saved.size_attributes] == [30, 32, 160, 8]
    processor.save_pretrained(tmp_path / "other")
    assert type(AutoImageProcessor.from_pretrained(tmp_path / "other")) is SVTRv2ImageProcessor


def test_unused_settings_of_older_folders_are_tolerated_but_a_fixed_height_raises():
    older = {"max_ratio": 20, "fixed_height": None, "min_width": 320, "width_multiple": 1}
    assert SVTRv2ImageProcessor(**older).target_size(500, 50) == (32, 320)
    with pytest.raises(ValueError, match="use SVTRv2ServerImageProcessor"):
        SVTRv2ImageProcessor(fixed_height=48)


def test_unknown_arguments_raise():
    with pytest.raises(TypeError, match="no option 'do_resise'"):
        SVTRv2ImageProcessor()(draw("a"), do_resise=False)


def test_settings_of_pixels_are_saved(tmp_path):
    default = SVTRv2ImageProcessor()
    assert (default.image_mean, default.image_std, default.rescale_factor) == ([0.5] * 3, [0.5] * 3, 1 / 255)
    assert default.to_dict()["do_normalize"] is True
    SVTRv2ImageProcessor(do_normalize=False, size={"height": 32, "width": 160}).save_pretrained(tmp_path)
    loaded = SVTRv2ImageProcessor.from_pretrained(tmp_path)
    assert (loaded.do_normalize, loaded.size, loaded.has_default_pixels) == (
        False,
        {"height": 32, "width": 160},
        False,
    )
    pixels = loaded(draw("a"))["pixel_values"]
    assert pixels.shape == (1, 3, 32, 160)
    assert 0 <= pixels.min() <= pixels.max() <= 1


# ---- kinds of images

GRAY = np.arange(0, 240, dtype=np.uint8).reshape(10, 24)
COLOR = np.stack([GRAY, GRAY[::-1], 255 - GRAY], axis=-1)


def rgb(array):
    return np.asarray(load_rgb(array))


def file_bytes(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gray_as_rgb(gray):
    return np.repeat(gray[..., None], 3, axis=-1)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (Image.fromarray(COLOR), COLOR),
        (Image.fromarray(GRAY), gray_as_rgb(GRAY)),
        (Image.fromarray(GRAY > 100), gray_as_rgb((GRAY > 100).astype(np.uint8) * 255)),
        (COLOR, COLOR),
        (GRAY, gray_as_rgb(GRAY)),
        (GRAY[..., None], gray_as_rgb(GRAY)),
        (np.moveaxis(COLOR, -1, 0), COLOR),
        (COLOR.astype(np.int64), COLOR),
        (COLOR.astype(np.uint16) * 257, COLOR),
        ((COLOR / 255.0).astype(np.float32), COLOR),
        (COLOR / 255.0, COLOR),
        (torch.from_numpy(COLOR), COLOR),
        (torch.from_numpy(COLOR).permute(2, 0, 1), COLOR),
        (torch.from_numpy(GRAY), gray_as_rgb(GRAY)),
        ((torch.from_numpy(COLOR) / 255).permute(2, 0, 1).requires_grad_(), COLOR),
        (file_bytes(Image.fromarray(COLOR), "PNG"), COLOR),
        (file_bytes(Image.fromarray(COLOR), "WEBP", lossless=True), COLOR),
        (io.BytesIO(file_bytes(Image.fromarray(COLOR), "BMP")), COLOR),
        ("data:image/png;base64," + base64.b64encode(file_bytes(Image.fromarray(COLOR), "PNG")).decode(), COLOR),
        (Image.fromarray(GRAY.astype(np.uint16) * 257), gray_as_rgb(GRAY)),
        (Image.fromarray(GRAY.astype(np.int32) * 257), gray_as_rgb(GRAY)),
        (Image.fromarray(GRAY.astype(np.float32)), gray_as_rgb(GRAY)),
        (file_bytes(Image.fromarray(GRAY.astype(np.uint16) * 257), "PNG"), gray_as_rgb(GRAY)),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) and value.ndim == 3 else None,
)
def test_kinds_of_images(source, expected):
    np.testing.assert_array_equal(rgb(source), expected)


def test_ambiguous_tensors_are_channels_first_and_arrays_channels_last():
    assert load_rgb(np.zeros((3, 50, 3), np.uint8)).size == (50, 3)
    assert load_rgb(torch.zeros(3, 3, 50, dtype=torch.uint8)).size == (50, 3)
    assert load_rgb(torch.zeros(3, 50, 3, dtype=torch.uint8)).size == (3, 50)


def test_half_precision_tensors():
    tensor = (torch.from_numpy(COLOR).permute(2, 0, 1) / 255).to(torch.bfloat16)
    assert abs(rgb(tensor).astype(int) - COLOR).max() <= 1


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
    # the rotation of a PIL image is applied once
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(rgb(opened), np.asarray(image))


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (2, 3)])
def test_odd_sizes_are_images(size):
    output = SVTRv2ImageProcessor()(Image.new("RGB", size, (200, 10, 10)))
    assert output["pixel_values"].shape[-2:] == target_size(*size)


# ---- unreadable images


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
        (np.full((4, 4, 3), 128.0), r"floats are in 128..128; pass floats in 0..1"),
        (np.full((4, 4), np.nan), "floats are in"),
        (np.full((4, 4), -1), r"integers are in -1..-1"),
        (np.full((4, 4), 300), r"integers are in 300..300"),
        (np.zeros((4, 4), complex), "not colors"),
        (np.zeros(7, np.uint8), "two or three dimensions, not 1"),
        (np.zeros((5, 6, 7), np.uint8), "channels"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (Image.new("RGB", (0, 5)), "size is 0x5"),
        (None, "an image is a PIL image, a path"),
        (3.5, "an object of type float"),
        ({"bytes": PNG}, "an object of type dict"),
        ("no/such/file.png", "'no/such/file.png': no such file"),
        ("iVBORw0KGgo" * 1000, r"^.{,300}name too long\.$"),
        (".", "it is a folder"),
        ("data:image/png;base64,AAAA", "no image format"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_unreadable_images_are_named_with_the_reason(source, message):
    with pytest.raises(UnreadableImageError, match=message):
        load_rgb(source)


@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "DDS", "ICO", "TGA"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_are_read_or_named(kind, seed):
    """Errors of decoders are converted."""
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
    dark = np.full((6, 9), 130, dtype=np.uint16)  # of 65535: almost black, but gray in 8 bits
    for order in ("<u2", ">u2"):
        assert rgb(dark.astype(order)).max() == 0
        np.testing.assert_array_equal(rgb((GRAY.astype(np.uint16) * 257).astype(order)), gray_as_rgb(GRAY))


def test_files_are_named(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.jpg").write_bytes(JPEG[:300])
    (tmp_path / "text.png").write_text("not an image")
    for name, reason in (("empty.png", "the file is empty"), ("cut.jpg", ""), ("text.png", "no image format")):
        for path in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(UnreadableImageError, match=f"{name}.*{reason}"):
                load_rgb(path)


def test_decompression_bomb_is_rejected_before_it_is_decoded(monkeypatch):
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


def test_large_photograph_is_accepted():
    assert load_rgb(file_bytes(Image.new("L", (9000, 5000), 100), "PNG")).size == (9000, 5000)


def test_unreadable_image_of_a_batch_is_named():
    with pytest.raises(UnreadableImageError, match=r"image 1 of 3, an array of shape \(4,\)"):
        SVTRv2ImageProcessor()([draw("a"), np.zeros(4), draw("b")])


@pytest.mark.parametrize("nothing", [[], (), np.zeros((0, 3, 4, 4))])
def test_empty_list_raises(nothing):
    with pytest.raises(ValueError, match="the list is empty"):
        SVTRv2ImageProcessor()(nothing)


def test_resize_does_not_change_images_of_the_right_size():
    image = draw("abc")
    np.testing.assert_array_equal(resize(image, (image.height, image.width)), np.asarray(image))


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_layout_of_arrays_can_be_given(make):
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9  # either layout is possible
    process = SVTRv2ImageProcessor()
    expected = process(Image.fromarray(image))["pixel_values"]
    assert (process(make(image), input_data_format="channels_last")["pixel_values"] == expected).all()
    first = make(np.ascontiguousarray(image.transpose(2, 0, 1)))
    assert (process(first, input_data_format="channels_first")["pixel_values"] == expected).all()
    with pytest.raises(ValueError, match="input_data_format='last'"):
        process(make(image), input_data_format="last")


@pytest.mark.parametrize("options", [{"do_resize": False}, {"size": {"height": 48, "width": 320}}, {"resample": 3}])
def test_server_processor_rejects_other_resizing(options):
    with pytest.raises(ValueError, match="supports neither do_resize=False nor"):
        SVTRv2ServerImageProcessor(**options)
    with pytest.raises(ValueError, match="supports neither do_resize=False nor"):
        SVTRv2ServerImageProcessor()(draw("a"), **options)
