"""Both pipeline tasks, kinds of inputs, options, and independence of batches."""

import io
import itertools
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pytest
import torch
from conftest import CHARSET, draw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoModelForCTC, AutoProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

import svtrv2_hf
from svtrv2_hf import SVTRv2ForCTC, SVTRv2Processor, SVTRv2TextRecognitionPipeline, UnreadableImageError


WORDS = ["a", "word", "somewhat longer line", "12345", "I", "two words"]


@pytest.fixture
def read(model, processor):
    return SVTRv2TextRecognitionPipeline(model=model, processor=processor)


@pytest.fixture
def images():
    return [draw(word) for word in WORDS]


@pytest.fixture
def paths(images, tmp_path):
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(len(images))]


def assert_same(some, others):
    some, others = list(some), list(others)
    assert len(some) == len(others)
    for [one], [other] in zip(some, others, strict=True):
        texts = [result.get("text", result.get("generated_text")) for result in (one, other)]
        assert texts[0] == texts[1] is not None
        assert one["score"] == pytest.approx(other["score"], abs=1e-5)


def test_task_name(saved, images):
    read = pipeline("text-recognition", str(saved))
    assert isinstance(read, SVTRv2TextRecognitionPipeline)
    assert isinstance(read.model, SVTRv2ForCTC)
    assert isinstance(read.processor, SVTRv2Processor)
    [result] = read(images[1])
    assert set(result) == {"text", "score"}
    assert result["text"]
    assert 0 < result["score"] <= 1
    # The same result step by step, with the Auto classes.
    processor, model = AutoProcessor.from_pretrained(saved), AutoModelForCTC.from_pretrained(saved)
    with torch.no_grad():
        outputs = model(**processor(images[1], return_tensors="pt"))
    (result_by_steps,) = processor.post_process_text_recognition(outputs)
    assert result_by_steps == {"text": result["text"], "score": pytest.approx(result["score"], abs=1e-6)}


def test_image_to_text_with_remote_code(saved, images):
    read = pipeline("image-to-text", str(saved), trust_remote_code=True)
    assert_same(read(images), pipeline("text-recognition", str(saved))(images))


def test_image_to_text_without_trust_raises(saved):
    with pytest.raises(ValueError, match=r"trust_remote_code|execute the code"):
        pipeline("image-to-text", str(saved))


def test_kinds_of_input(read, images, paths):
    expected = [read(image) for image in images]
    assert len({result[0]["text"] for result in expected}) > 3, "the random model must tell images apart"
    dataset = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    for make_inputs in (
        lambda: images,
        lambda: tuple(images),
        lambda: paths,
        lambda: [np.asarray(image) for image in images],
        lambda: (image for image in images),
        lambda: iter(paths),
        lambda: KeyDataset(dataset, "image"),
        lambda: dataset["image"],
    ):
        for batch_size in (1, 4):
            assert_same(read(make_inputs(), batch_size=batch_size), expected)
    assert read([]) == []
    assert_same(read(paths, batch_size=2, num_workers=2), expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 120)), min_size=1, max_size=12),
    batch_size=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
def test_results_do_not_depend_on_the_batch(read, sizes, batch_size, seed):
    """The same texts, and the same scores within 1e-5, for any mixture of sizes."""
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]
    assert_same(read(images, batch_size=batch_size), [read(image) for image in images])


@pytest.fixture
def batches(read, monkeypatch):
    """The sizes of the images in each call of the model."""
    calls, forward = [], read.model.forward

    def record(pixel_values, image_sizes):
        calls.append([tuple(size) for size in image_sizes.tolist()])
        return forward(pixel_values=pixel_values, image_sizes=image_sizes)

    monkeypatch.setattr(read.model, "forward", record)
    return calls


def test_batches_contain_images_of_one_size(read, batches):
    """Widths alternate, so that batches of consecutive images would contain several sizes."""
    images = [draw("word", width, 30) for width in (30, 60, 90)] * 5
    expected = [read(image) for image in images]
    batches.clear()
    assert_same(read(images, batch_size=4), expected)
    assert all(len(set(sizes)) == 1 for sizes in batches)
    assert sorted(map(len, batches)) == [1, 1, 1, 4, 4, 4]


def test_streams_are_read_lazily(read, batches):
    """The first image, the only one of its size, does not wait for the end of an endless stream."""
    taken = 0

    def endless():
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield draw("line" if number == 0 else "word", 120 if number == 0 else 30 + 30 * (number % 2), 30)

    results = iter(read(endless(), batch_size=2))
    assert taken == 1, "the base class tests the type of the first input"
    first = next(results)
    assert 16 <= taken <= 20, "eight batches of two images"
    assert_same([first, *itertools.islice(results, 9)], [read(image) for image in itertools.islice(endless(), 10)])
    assert max(map(len, batches)) == 2


def test_number_of_results_is_known(read, paths):
    dataset = datasets.Dataset.from_dict({"image": paths})
    for batch_size in (1, 4):
        results = read(KeyDataset(dataset, "image"), batch_size=batch_size)
        assert len(results) == len(list(results)) == len(list(results)) == len(paths)


def test_characters_and_words(read, images):
    image = images[5]
    [result] = read(image, return_characters=True, return_words=True)
    assert result["text"]
    assert "".join(character["text"] for character in result["characters"]) == result["text"]
    for part in [*result["characters"], *result["words"]]:
        assert set(part) == {"text", "score", "start", "end"}
        assert 0 <= part["start"] < part["end"] <= image.width
    assert [word["text"] for word in result["words"]] == result["text"].split()


def test_options_are_applied(read, images):
    lexicon = ["a0", "b-", "12345"]
    [result] = read(images[0], lexicon=lexicon, n_best=2)
    assert result["text"] in lexicon
    assert len(result["alternatives"]) == 2
    [digits] = read(images[1], allowed_characters="0123456789")
    assert digits["text"]
    assert set(digits["text"]) <= set("0123456789")
    narrow, wide = read(images[2], max_ratio=1, return_characters=True), read(images[2], max_ratio=12)
    assert narrow[0]["text"] != wide[0]["text"]
    prepared = read.processor.encode_lexicon(lexicon)
    assert_same([read(images[0], lexicon=prepared)], [[result]])
    options = {"allowed_characters": "abc"}
    fixed = SVTRv2TextRecognitionPipeline(model=read.model, processor=read.processor, **options)
    assert_same([fixed(images[1])], [read(images[1], **options)])


def test_unknown_options_raise(read, images):
    with pytest.raises(TypeError, match="no option 'return_offsets'"):
        read(images[0], return_offsets=True)
    with pytest.raises(ValueError, match="on_error='ignore'"):
        read(images[0], on_error="ignore")


class Upright(torch.nn.Module):
    """Predicts "ab", with confidence only for upright images, which have a bright bar at the left."""

    config = None

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.dtype = torch.float32

    def forward(self, pixel_values, image_sizes):
        frames = 16
        logits = torch.zeros(len(pixel_values), frames, self.size)
        for row, image, (height, width) in zip(logits, pixel_values, image_sizes, strict=True):
            image = image[:, :height, :width]
            sure = 9.0 if image[..., : width // 8].mean() > image.mean() + 0.5 else 1.0
            row[:, 0] = sure
            for frame, character in ((2, "a"), (12, "b")):
                row[frame, 0] = 0
                row[frame, 1 + CHARSET.index(character)] = sure
        lengths = torch.full((len(pixel_values),), frames)
        return type("Output", (), {"logits": logits, "logits_lengths": lengths})


@pytest.mark.parametrize("rotation", [0, 90, 270])
def test_vertical_crops(read, rotation, monkeypatch):
    """The rotation with the best score is used; positions are pixels of the original crop."""
    image = Image.new("RGB", (200, 40))
    image.paste((255, 255, 255), (0, 0, 25, 40))
    crop = {
        0: image,
        90: image.transpose(Image.Transpose.ROTATE_270),
        270: image.transpose(Image.Transpose.ROTATE_90),
    }[rotation]
    monkeypatch.setattr(read, "model", Upright(len(CHARSET) + 1))
    [result] = read(crop, rotate_vertical=True, return_characters=True, return_words=True)
    assert result["rotation"] == rotation
    assert result["text"] == "ab"
    assert result["score"] > 0.9
    # Frames 2 and 12 of 16: both characters extend by half of their distance, up to the border and the middle between them.
    spans = {"a": (0, 7.5 / 16 * 200), "b": (7.5 / 16 * 200, 200)}
    if rotation == 270:  # the line runs upward, so "a" is at the bottom
        spans = {character: (200 - end, 200 - start) for character, (start, end) in spans.items()}
    assert {one["text"]: (one["start"], one["end"]) for one in result["characters"]} == spans
    assert [(word["start"], word["end"]) for word in result["words"]] == [(0, 200)]
    [plain] = read(crop)
    assert "rotation" not in plain
    assert (plain["score"] > 0.9) == (rotation == 0)
    # a batch of upright and rotated crops
    [first], [second] = read([crop, image], rotate_vertical=True, batch_size=2)
    assert (first["rotation"], second["rotation"]) == (rotation, 0)


def test_open_file_is_one_image(read, images):
    images[0].save(file := io.BytesIO(), "PNG")
    assert read(file) == read(images[0])


def test_incomplete_download_is_named(read):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer():
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{port}/word.png"
        with pytest.raises(UnreadableImageError, match=r"word\.png"):
            read(url)
        [[broken], [misspelt]] = read([url, "http://127.0.0.1:port/word.png"], on_error="return")
        thread.join()
    assert "IncompleteRead" in broken["error"] and "port" in misspelt["error"]


def test_timeout_limits_the_download(read):
    """The server accepts the connection and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/word.png"
        with pytest.raises(UnreadableImageError, match=r"longer than 0\.2 seconds"):
            read(url, timeout=0.2)


def test_unreadable_image_is_named(read, images, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"not an image")
    with pytest.raises(UnreadableImageError, match=r"bad\.png"):
        read([images[0], str(tmp_path / "bad.png")], batch_size=2)


def test_three_unreadable_images_of_a_thousand_are_reported(read, images, tmp_path):
    bad = {3: b"", 500: b"not an image", 999: open_bytes(images[0])[:80]}
    files = []
    for number in range(1000):
        path = tmp_path / f"{number:04}.png"
        path.write_bytes(bad.get(number, open_bytes(images[number % 2])))
        files.append(str(path))
    results = read(files, batch_size=64, on_error="return")
    assert [number for number, [result] in enumerate(results) if "error" in result] == [3, 500, 999]
    for number in bad:
        assert results[number][0]["text"] == ""
        assert results[number][0]["score"] == 0.0
        assert files[number] in results[number][0]["error"]
    alone = [read(images[0]), read(images[1])]
    good = [number for number in range(1000) if number not in bad]
    assert_same([results[number] for number in good], [alone[number % 2] for number in good])


def open_bytes(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_saving_a_pipeline(read, images, tmp_path):
    read.save_pretrained(tmp_path)
    again = pipeline("text-recognition", str(tmp_path))
    assert_same(again(images), read(images))
    assert_same(pipeline(model=str(tmp_path), trust_remote_code=True)(images), read(images))


def test_half_precision(read, images):
    half = SVTRv2TextRecognitionPipeline(model=read.model, processor=read.processor, dtype=torch.bfloat16)
    half.model.to(torch.bfloat16)
    [result] = half(images[1])
    assert 0 <= result["score"] <= 1


def test_predictions_do_not_depend_on_the_training_mode(read, images):
    expected = read(images)
    model = read.model.train()
    next(iter(model.children())).eval()  # a frozen part
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(2):
        assert_same(read(images, batch_size=3), expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ValueError, match="max_ratio='wide'"):
        read(images[0], max_ratio="wide")
    assert [module.training for module in model.modules()] == modes


def test_threads_agree_with_a_model_in_training_mode(read, images):
    expected = [read(image) for image in images]
    read.model.train()
    with ThreadPoolExecutor(6) as pool:
        for _ in range(5):
            assert_same(pool.map(read, images), expected)
    assert read.model.training


def test_long_lines_exceed_max_ratio_unless_it_is_auto(read):
    line = draw("a", width=1500, height=30)  # 50 times its height
    [compressed] = read(line)
    assert compressed["exceeds_max_ratio"] is True
    [free], [wide] = read(line, max_ratio="auto"), read(line, max_ratio=50)
    assert "exceeds_max_ratio" not in free and free == wide
    assert read.processor(line, max_ratio="auto")["pixel_values"].shape == (1, 3, 32, 32 * 50)
    longest = draw("a", width=3000, height=20)
    assert read.processor(longest, max_ratio="auto")["pixel_values"].shape == (1, 3, 32, 32 * 100)
    [result] = read(longest, max_ratio="auto")
    assert result["exceeds_max_ratio"] is True


def test_images_with_more_than_max_pixels_are_unreadable(read, images):
    [result] = read(images[0], max_pixels=10, on_error="return")
    assert "exceed the limit of 10" in result["error"]


FORKED = """
import os, signal, sys
import torch
from PIL import Image
from transformers import pipeline
import svtrv2_hf

torch.set_num_threads(2)
read = pipeline("text-recognition", sys.argv[1])
image = Image.effect_noise((300, 40), 80)
expected = read(image)
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(read(image)[0]["text"] != expected[0]["text"])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_forked_child_can_use_the_pipeline():
    place = svtrv2_hf.default_checkpoint()
    done = subprocess.run([sys.executable, "-c", FORKED, place], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_default_model_is_the_bundled_checkpoint(tmp_path):
    read = pipeline("text-recognition")
    assert read.model.config.to_dict() == SVTRv2ForCTC.from_pretrained(svtrv2_hf.default_checkpoint()).config.to_dict()
    read.save_pretrained(tmp_path)
    assert svtrv2_hf.default_checkpoint() not in (tmp_path / "config.json").read_text()


def test_key_of_the_text_depends_on_the_task(saved):
    image = draw("word")
    [result] = pipeline("text-recognition", str(saved))(image)
    assert set(result) == {"text", "score"}
    other = pipeline("image-to-text", str(saved), pipeline_class=SVTRv2TextRecognitionPipeline)
    assert other(image) == [{"generated_text": result["text"], "score": pytest.approx(result["score"])}]
