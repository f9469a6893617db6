"""Folders, label rules and batches of one size."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import CHARSET, draw
from PIL import Image
from torch.utils.data import DataLoader

from svtrv2_hf import SVTRv2ImageProcessor
from svtrv2_hf.data.buckets import BucketBatches
from svtrv2_hf.data.folder import Sample, read_folder
from svtrv2_hf.data.labels import LabelEncoder, RejectedSampleError, Rejection, frames_needed


def make_folder(root, labels, images_in=None):
    """A data folder; each label is drawn."""
    place = root / images_in if images_in else root
    place.mkdir(parents=True)
    lines = []
    for number, label in enumerate(labels):
        draw(label or "x").save(place / f"{number}.png")
        lines.append(f"{number}.png\t{label}")
    (root / "labels.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.mark.parametrize("images_in", [None, "images"])
def test_reading_a_folder(tmp_path, images_in):
    labels = ["one", " two words ", "", "t\u00e4b"]
    samples = read_folder(make_folder(tmp_path / "data", labels, images_in))
    assert [sample.text for sample in samples] == labels
    assert all(sample.path.is_file() for sample in samples)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, r"no .*labels\.tsv"),
        ("a.png hello\n", ValueError, r"labels\.tsv, line 1: there is no tab"),
        ("\nmissing.png\thello\n", FileNotFoundError, r"line 2: there is no file .*missing\.png"),
        ("\n", ValueError, "names no image"),
    ],
)
def test_wrong_folders(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / "labels.tsv").write_text(content)
    with pytest.raises(error, match=message):
        read_folder(tmp_path)


def test_label_rules():
    encoder = LabelEncoder("abc", max_length=3)
    assert encoder.encode("cab") == [3, 1, 2]
    for text, reason in (
        ("", Rejection.EMPTY),
        ("a b", Rejection.UNKNOWN_CHARACTERS),
        ("abca", Rejection.TOO_LONG),
    ):
        with pytest.raises(RejectedSampleError) as rejected:
            encoder.encode(text)
        assert rejected.value.reason == reason
    lenient = LabelEncoder("abc", max_length=3, drop_unknown=True)
    assert lenient.encode("a b!c") == [1, 2, 3]
    with pytest.raises(RejectedSampleError, match="empty label"):
        lenient.encode("!?")


def test_frames_needed():
    assert [frames_needed(ids) for ids in ([1], [1, 2], [1, 1], [1, 1, 1], [1, 2, 2, 1])] == [1, 2, 3, 5, 5]


def batches_of(samples, workers=0, batch_size=4, **kwargs):
    stream = BucketBatches(samples, LabelEncoder(CHARSET), SVTRv2ImageProcessor(), batch_size, **kwargs)
    return iter(DataLoader(stream, batch_size=None, num_workers=workers))


def labels_in(batches):
    return Counter(
        "".join(CHARSET[id - 1] for id in row if id > 0) for batch in batches for row in batch["labels"].tolist()
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_have_one_size_and_every_sample_once_an_epoch(tmp_path, workers):
    # 24 squarish and 24 wide images; with batches of 4 an epoch is 12 full batches, whichever worker reads which
    labels = [f"{number:02}" for number in range(24)] + [f"line {number:02} that is long" for number in range(24)]
    samples = read_folder(make_folder(tmp_path / "data", labels))
    sizes = Counter()
    seen = Counter()
    stream = batches_of(samples, workers)
    for batch in itertools.islice(stream, 40):
        assert batch["pixel_values"].dtype == torch.float32
        assert len(batch["pixel_values"]) == len(batch["labels"])
        sizes[tuple(batch["pixel_values"].shape[-2:])] += 1
        seen += labels_in([batch])
    assert len(sizes) == 2
    assert seen.keys() == set(labels)
    assert max(seen.values()) - min(seen.values()) <= 2  # what still waits in a bucket of a worker
    if workers == 0:
        first_epoch = labels_in(itertools.islice(batches_of(samples), 13))
        assert all(count <= 2 for count in first_epoch.values())


def test_wide_images_make_smaller_batches():
    stream = BucketBatches([], LabelEncoder("a"), SVTRv2ImageProcessor(), 256)
    assert [
        stream.batch_size_of(size) for size in [(64, 64), (48, 96), (40, 112), (32, 128), (32, 256), (32, 384)]
    ] == [
        256,
        227,
        234,
        256,
        128,
        85,
    ]
    assert BucketBatches([], LabelEncoder("a"), SVTRv2ImageProcessor(), 1).batch_size_of((32, 384)) == 1


def test_the_pixels_are_those_of_reading(tmp_path):
    samples = read_folder(make_folder(tmp_path / "data", ["ab", "cd", "ef", "gh"]))
    batch = next(batches_of(samples))
    processor = SVTRv2ImageProcessor()
    expected = {sample.text: processor(str(sample.path))["pixel_values"][0] for sample in samples}
    for image, ids in zip(batch["pixel_values"], batch["labels"].tolist(), strict=True):
        np.testing.assert_array_equal(image, expected["".join(CHARSET[id - 1] for id in ids)])


def test_the_order_follows_from_the_seed(tmp_path):
    samples = read_folder(make_folder(tmp_path / "data", [f"{number:02}" for number in range(16)]))

    def order(seed):
        return [batch["labels"].tolist() for batch in itertools.islice(batches_of(samples, seed=seed), 8)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:4] != order(1)[4:], "each epoch has an order of its own"


def test_rejected_samples_are_counted(tmp_path):
    good = [f"{number:02}" for number in range(8)]
    folder = make_folder(tmp_path / "data", [*good, "", "caf\u00e9", "a" * 26, "1111111111111111111"])
    samples = read_folder(folder)
    samples[-1] = Sample(samples[0].path, samples[-1].text)  # nineteen equal characters in a small image
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:100])
    samples += [Sample(folder / "bad.png", "aa"), Sample(folder / "cut.png", "bb")]
    counts = Counter()
    stream = batches_of(samples, batch_size=3)
    while counts["samples"] < 3 * len(samples):
        batch = next(stream)
        counts.update(batch["counts"])
        assert not labels_in([batch]).keys() - set(good)
    epochs = counts["samples"] / len(samples)
    for reason in Rejection:
        expected = 2 if reason == Rejection.UNREADABLE else 1
        assert counts[str(reason)] == pytest.approx(expected * epochs, abs=2), reason
    assert all(type(name) is str for name in counts)


def test_nothing_to_train_on_is_an_error_and_no_endless_loop(tmp_path):
    samples = read_folder(make_folder(tmp_path / "data", ["", "\u00e9"]))
    with pytest.raises(ValueError, match=r"None of the 2 samples can be trained on.*'empty label': 1"):
        next(batches_of(samples))


def test_a_rotated_photograph_goes_to_the_bucket_of_its_upright_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = draw("a long line of text")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "photo.jpg", exif=exif)
    stream = batches_of([Sample(tmp_path / "photo.jpg", "ab")], batch_size=1)
    height, width = SVTRv2ImageProcessor().target_size(*upright.size)
    assert next(stream)["pixel_values"].shape == (1, 3, height, width)
