"""Label rules and batches of one size."""

import io
import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import CHARSET, ListSource, draw, encoded, make_folder
from PIL import Image
from torch.utils.data import DataLoader

from svtrv2_hf import SVTRv2ImageProcessor
from svtrv2_hf.data.augmentation import Augmentation
from svtrv2_hf.data.batches import BucketBatches, EvaluationBatches, Position, Progress, pixel_values_of
from svtrv2_hf.data.labels import LabelEncoder, RejectedSampleError, Rejection, UnknownCharactersError, frames_needed
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.sources import open_source


def test_label_rules():
    encoder = LabelEncoder("abc", max_length=3, unknown_characters="drop_sample")
    assert encoder.encode("cab") == [3, 1, 2]
    for text, reason in (
        ("", Rejection.EMPTY),
        ("a b", Rejection.UNKNOWN_CHARACTERS),
        ("abca", Rejection.TOO_LONG),
    ):
        with pytest.raises(RejectedSampleError) as rejected:
            encoder.encode(text)
        assert rejected.value.reason == reason
    lenient = LabelEncoder("abc", max_length=3, unknown_characters="drop_character")
    assert lenient.encode("a b!c") == [1, 2, 3]
    with pytest.raises(RejectedSampleError, match="empty"):
        lenient.encode("!?")
    with pytest.raises(UnknownCharactersError, match=r"'a\?b' has characters outside the charset: '\?' \(U\+003F\)"):
        LabelEncoder("abc").encode("a?b")
    with pytest.raises(ValueError, match="unknown_characters='ignore' must be one of"):
        LabelEncoder("abc", unknown_characters="ignore")


def test_frames_needed():
    assert [frames_needed(ids) for ids in ([1], [1, 2], [1, 1], [1, 1, 1], [1, 2, 2, 1])] == [1, 2, 3, 5, 5]


def word(text, **kwargs):
    return Sample(encoded(draw(text or "x", **kwargs)), text, text)


def stream_of(samples, batch_size=4, policy="drop_sample", **kwargs):
    sources = samples if isinstance(samples[0], ListSource) else [ListSource(samples)]
    encoder = LabelEncoder(CHARSET, 25, policy)
    return BucketBatches(sources, encoder, SVTRv2ImageProcessor(), batch_size, **kwargs)


def batches_of(samples, workers=0, **kwargs):
    return iter(DataLoader(stream_of(samples, **kwargs), batch_size=None, num_workers=workers))


def labels_in(batches):
    return Counter(
        "".join(CHARSET[id - 1] for id in row if id > 0) for batch in batches for row in batch["labels"].tolist()
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_have_one_size_and_epochs_contain_every_sample_once(workers):
    # 24 squarish and 24 wide images; with batches of 4 an epoch is 12 full batches, regardless of the worker
    labels = [f"{number:02}" for number in range(24)] + [f"line {number:02} that is long" for number in range(24)]
    samples = [word(label) for label in labels]
    sizes = Counter()
    seen = Counter()
    for batch in itertools.islice(batches_of(samples, workers), 40):
        assert batch["pixels"].dtype == torch.uint8
        assert len(batch["pixels"]) == len(batch["labels"])
        sizes[tuple(batch["pixels"].shape[1:])] += 1
        seen += labels_in([batch])
    assert len(sizes) == 2
    assert seen.keys() == set(labels)
    assert max(seen.values()) - min(seen.values()) <= 2  # samples in the buckets of a worker
    if workers == 0:
        first_epoch = labels_in(itertools.islice(batches_of(samples), 13))
        assert all(count <= 2 for count in first_epoch.values())


def test_wide_images_make_smaller_batches():
    stream = stream_of([word("a")], batch_size=256)
    sizes = [(64, 64), (48, 96), (40, 112), (32, 128), (32, 256), (32, 384)]
    assert [stream.batch_size_of(size) for size in sizes] == [256, 256, 256, 256, 128, 85]
    assert stream_of([word("a")], batch_size=1).batch_size_of((32, 384)) == 1


def test_pixels_equal_those_of_the_image_processor():
    samples = [word(text) for text in ("ab", "cd", "ef", "gh")]
    batch = next(batches_of(samples))
    pixel_values = pixel_values_of(batch["pixels"])
    assert pixel_values.is_contiguous(memory_format=torch.channels_last)
    processor = SVTRv2ImageProcessor()
    expected = {sample.text: processor(sample.image)["pixel_values"][0] for sample in samples}
    for image, ids in zip(pixel_values, batch["labels"].tolist(), strict=True):
        np.testing.assert_array_equal(image, expected["".join(CHARSET[id - 1] for id in ids)])


def test_order_depends_on_the_seed():
    samples = [word(f"{number:02}") for number in range(16)]

    def order(seed):
        return [batch["labels"].tolist() for batch in itertools.islice(batches_of(samples, seed=seed), 8)]

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1)[:4] != order(1)[4:], "epochs have different orders"


def test_augmentation_depends_on_seed_epoch_and_image_only():
    samples = [word(f"{number:03}") for number in range(16)]

    def images(workers, seed=0):
        augmentation = Augmentation(probability=1.0, seed=seed)
        seen = {}
        for batch in itertools.islice(batches_of(samples, workers, augmentation=augmentation), 8):
            for image, ids in zip(batch["pixels"], batch["labels"].tolist(), strict=True):
                seen.setdefault(tuple(ids), []).append(image.numpy().tobytes())
        return seen

    alone, together = images(0), images(2)
    assert {ids: set(versions) for ids, versions in alone.items()} == {
        ids: set(versions) for ids, versions in together.items()
    }
    assert all(len(set(versions)) == 2 for versions in alone.values()), "epochs have different versions"
    assert images(0, seed=1) != alone


def test_rejected_samples_are_counted():
    good = [f"{number:02}" for number in range(8)]
    samples = [word(text) for text in [*good, "", "caf\u00e9", "a" * 26]]
    samples.append(Sample(samples[0].image, "1" * 19, "nineteen equal characters in a small image"))
    samples.append(Sample(b"no image", "aa", "bad"))
    samples.append(Sample(samples[0].image[:100], "bb", "cut"))
    counts = Counter()
    stream = batches_of(samples, batch_size=3)
    while counts[0, "samples"] < 3 * len(samples):
        batch = next(stream)
        counts.update(batch["counts"])
        assert not labels_in([batch]).keys() - set(good)
    epochs = counts[0, "samples"] / len(samples)
    for reason in Rejection:
        expected = 2 if reason == Rejection.UNREADABLE else 1
        assert counts[0, str(reason)] == pytest.approx(expected * epochs, abs=2), reason
    assert all(type(name) is str for _, name in counts)


def test_dropped_characters_are_counted_by_source():
    sources = [ListSource([word("a!b!")], "one"), ListSource([word("cd"), word("e?f")], "two")]
    counts = Counter()
    for batch in itertools.islice(batches_of(sources, batch_size=1, policy="drop_character"), 9):
        counts.update(batch["counts"])
    assert counts == {
        (0, "samples"): 3, (0, "dropped_characters"): 6, (1, "samples"): 6, (1, "dropped_characters"): 3
    }  # fmt: skip


def test_unknown_character_raises_by_default():
    with pytest.raises(UnknownCharactersError, match="'a!b'"):
        list(itertools.islice(batches_of([word("ab"), word("a!b")], policy="error"), 9))


def test_stream_without_usable_samples_raises():
    with pytest.raises(ValueError, match=r"None of the last \d samples can be trained on.*'list: empty'"):
        next(batches_of([word(""), word("\u00e9")]))


def test_stream_without_decodable_images_raises():
    image = draw("word")
    image.save(file := io.BytesIO(), "PNG")
    half = Sample(file.getvalue()[: len(file.getvalue()) // 2], "word", "half")
    with pytest.raises(ValueError, match=r"None of the last \d+ images can be decoded.*unreadable"):
        next(batches_of([half] * 5, batch_size=2))


def test_rotated_photograph_has_the_bucket_of_its_upright_size():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = draw("a long line of text")
    photo = Sample(encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif), "ab", "photo")
    height, width = SVTRv2ImageProcessor().target_size(*upright.size)
    assert next(batches_of([photo], batch_size=1))["pixels"].shape == (1, height, width, 3)


@pytest.mark.parametrize(("workers", "taken"), [(0, 1), (0, 37), (2, 1), (2, 36), (2, 37), (3, 38)])
def test_stream_resumes_exactly(workers, taken):
    """Including counts and batches without decodable images."""
    samples = [word(f"{number:03}") for number in range(40)] + [word(f"{number:09}") for number in range(20)]
    # Decoding fails, and no other images have this size, so whole batches are empty.
    cut = [Sample(encoded(draw("x", 300, 30))[:100], "cut", "cut")] * 8
    samples = [*samples, *cut, word("")]
    options = {"batch_size": 2, "augmentation": Augmentation(seed=3)}

    def read(stream, number):
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        return list(itertools.islice(iter(loader), number))

    whole = read(stream_of(samples, **options), taken + 20)
    done = [Progress()] * max(1, workers)
    for batch in whole[:taken]:
        done[batch["worker"]] = Progress(batch["formed"], batch["read"], batch["waiting"].tolist())
    if taken > 30:
        assert sum(progress.formed for progress in done) > taken, "some batches are empty"
    again = stream_of(samples, **options)
    again.start = Position(taken, done)
    for expected, batch in zip(whole[taken:], read(again, 20), strict=True):
        assert torch.equal(expected["pixels"], batch["pixels"])
        assert torch.equal(expected["labels"], batch["labels"])
        assert {name: expected[name] for name in ("counts", "worker", "formed")} == {
            name: batch[name] for name in ("counts", "worker", "formed")
        }


def test_resuming_reads_only_waiting_images(tmp_path):
    labels = [f"{number:03}" for number in range(30)] + [f"{number:09}" for number in range(10)]
    folder, other = make_folder(tmp_path / "data", labels), make_folder(tmp_path / "other", labels[:20])
    fetched = []

    def stream():
        sources = [open_source(str(place)) for place in (folder, other)]
        for source in sources:
            source.fetch = lambda indices, fetch=source.fetch: fetched.extend(indices) or fetch(indices)
        return BucketBatches(sources, LabelEncoder(CHARSET), SVTRv2ImageProcessor(), 4)

    whole = list(itertools.islice(stream(), 62))
    last = whole[49]
    assert last["read"] > 160
    fetched.clear()
    again = stream()
    again.start = Position(50, [Progress(last["formed"], last["read"], last["waiting"].tolist())])
    for expected, batch in zip(whole[50:], itertools.islice(again, 12), strict=True):
        assert torch.equal(expected["pixels"], batch["pixels"])
        assert torch.equal(expected["labels"], batch["labels"])
        assert expected["counts"] == batch["counts"]
    assert len(fetched) < 100, "waiting images and those of the next batches"


def test_ranks_share_the_samples():
    samples = [word(f"{number:02}") for number in range(24)]
    seen = Counter()
    for rank in range(3):
        stream = stream_of(samples, batch_size=4)
        stream.rank, stream.world_size = rank, 3
        seen += labels_in(itertools.islice(iter(DataLoader(stream, batch_size=None)), 2))
    assert seen == {sample.text: 1 for sample in samples}


def test_number_of_batches_in_an_epoch():
    words = [word(f"{number:02}") for number in range(24)] + [word("1234567890" * 2) for _ in range(12)]
    stream = stream_of([*words, word("")], batch_size=8)
    wide = stream.image_processor.target_size(*Image.open(io.BytesIO(words[-1].image)).size)
    expected = 24 / 8 + 12 / stream.batch_size_of(wide)
    assert stream.batches_per_epoch() == pytest.approx(expected)
    assert stream.batches_per_epoch(probe=30) == pytest.approx(expected, rel=0.4)


def test_evaluation_contains_every_image_once_with_any_label(tmp_path):
    labels = [f"{number:02}" for number in range(9)] + ["caf\u00e9", "", "a long line of text"]
    folder = make_folder(tmp_path / "data", labels)
    (folder / "3.png").write_bytes(b"no image")
    for workers in (0, 2):
        batches = EvaluationBatches(open_source(str(folder)), SVTRv2ImageProcessor(), 4)
        seen = list(DataLoader(batches, batch_size=None, num_workers=workers))
        assert sorted(sample.text for batch in seen for sample in batch["samples"]) == sorted(set(labels) - {"03"})
        assert sum(len(batch["unreadable"]) for batch in seen) == 1
        assert all(len(batch["pixels"]) == len(batch["samples"]) == len(batch["sizes"]) <= 4 for batch in seen)
