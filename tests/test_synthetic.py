"""Synthetic text as training data."""

import io
import itertools
from collections import Counter
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from matplotlib import font_manager
from PIL import Image
from pyarrow.parquet import ParquetFile
from test_training import run
from torch.utils.data import DataLoader

from svtrv2_hf import ENGLISH_94, SVTRv2ForCTC, SVTRv2ImageProcessor, SVTRv2Processor, build_tokenizer
from svtrv2_hf.cli import main as command
from svtrv2_hf.data.batches import BucketBatches, EvaluationBatches, Position, Progress
from svtrv2_hf.data.labels import LabelEncoder
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.prediction import predict
from svtrv2_hf.sources import open_source
from svtrv2_hf.synthetic import source
from svtrv2_hf.synthetic.atlas import Atlas, build_atlas, load_or_build
from svtrv2_hf.synthetic.batches import SyntheticBatches
from svtrv2_hf.synthetic.fonts import FoundFonts, find_fonts
from svtrv2_hf.synthetic.frame_labels import UNKNOWN, frame_labels
from svtrv2_hf.synthetic.synthesize import synthesize
from svtrv2_hf.training.arguments import SVTRv2TrainingArguments
from svtrv2_hf.training.trainer import SVTRv2Trainer


CHARSET = ENGLISH_94 + " "
NANO = ("--model", "nano", "--unknown_characters", "drop_sample")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """An atlas of two fonts that are always available."""
    assert font_manager.findfont("DejaVu Sans")
    fonts = find_fonts(packages=False, system=False).fonts
    path = tmp_path_factory.mktemp("atlas") / "atlas.safetensors"
    build_atlas(fonts[:2], CHARSET, progress=False).save(path)
    return path


def batches_of(atlas, batch_size=8, seed=0, charset=CHARSET, **options):
    spec = f"synthetic:{atlas}?" + "&".join(f"{key}={value}" for key, value in {"samples": 500, **options}.items())
    encoder = LabelEncoder(charset, max_length=60, unknown_characters="drop_sample")
    return SyntheticBatches(open_source(spec), encoder, SVTRv2ImageProcessor(), batch_size, seed)


def texts_in(batches):
    return Counter(
        "".join(CHARSET[id - 1] for id in row if id > 0) for batch in batches for row in batch["labels"].tolist()
    )


def take(stream, number, workers=0):
    return list(itertools.islice(iter(DataLoader(stream, batch_size=None, num_workers=workers)), number))


def test_batches_have_one_size_and_matching_labels(atlas):
    stream = batches_of(atlas)
    batches = take(stream, 30)
    texts = Counter(stream.source.text_source.texts(0, 0, 4096))
    sizes = {tuple(batch["pixels"].shape[1:]) for batch in batches}
    assert len(sizes) > 3
    for batch in batches:
        assert batch["pixels"].dtype == torch.uint8
        assert len(batch["pixels"]) == len(batch["labels"]) == stream.batch_size_of(tuple(batch["pixels"].shape[1:3]))
    assert not texts_in(batches) - texts, "each text occurs once"
    counts = sum((Counter(batch["counts"]) for batch in batches), Counter())
    assert counts[0, "samples"] >= sum(len(batch["labels"]) for batch in batches)


def test_image_does_not_depend_on_batch_size_and_workers(atlas):
    def images(workers, batch_size):
        seen = {}
        for batch in take(batches_of(atlas, batch_size), 40, workers):
            for pixels, ids in zip(batch["pixels"], batch["labels"].tolist(), strict=True):
                seen.setdefault(tuple(id for id in ids if id > 0), pixels.int())
        return seen

    alone, together = images(0, 3), images(2, 8)
    both = alone.keys() & together.keys()
    assert len(both) > 20
    same = [ids for ids in both if alone[ids].shape == together[ids].shape]
    close = [ids for ids in same if (alone[ids] - together[ids]).abs().max() <= 2]
    assert len(close) >= 0.9 * len(both), "except texts that occurred twice"


@pytest.mark.parametrize(("workers", "taken"), [(0, 7), (2, 7), (0, 150)])
def test_stream_resumes_exactly(atlas, workers, taken):
    whole = take(batches_of(atlas), taken + 4, workers)
    done = [Progress()] * max(1, workers)
    for batch in whole[:taken]:
        done[batch["worker"]] = Progress(batch["formed"], batch["read"], batch["waiting"].tolist())
    again = batches_of(atlas)
    again.start = Position(taken, done)
    for expected, batch in zip(whole[taken:], take(again, 4, workers), strict=True):
        assert torch.equal(expected["pixels"], batch["pixels"])
        assert torch.equal(expected["labels"], batch["labels"])
        assert expected["counts"] == batch["counts"]


def test_seeds_produce_different_texts(atlas):
    first, second = (texts_in(take(batches_of(atlas, seed=seed), 10)) for seed in (1, 2))
    assert (first & second).total() < 0.2 * first.total()


def test_texts_without_a_seed_differ_from_training_texts(atlas):
    trained = texts_in(take(batches_of(atlas, seed=0), 10))
    held_out = Counter(sample.text for sample in open_source(f"synthetic:{atlas}?samples=80").read())
    assert (trained & held_out).total() < 0.2 * 80


def test_ranks_produce_different_texts(atlas):
    parts = []
    for rank in range(2):
        stream = batches_of(atlas)
        stream.rank, stream.world_size = rank, 2
        parts.append(texts_in(take(stream, 10)))
    assert (parts[0] & parts[1]).total() < 0.2 * parts[0].total()


def test_synthetic_source_yields_samples(atlas):
    source = open_source(f"synthetic:{atlas}?samples=30&name=words&lines=0&weight=2")
    assert (source.name, source.num_samples, source.weight) == ("words", 30, 2.0)
    whole = list(source.read(seed=3))
    parts = [list(source.read(part, 3, seed=3)) for part in range(3)]
    assert len(whole) == 30
    assert sorted(whole) == sorted(sample for part in parts for sample in part)
    assert {sample.text for sample in source.read(seed=3, epoch=1)} != {sample.text for sample in whole}
    processor = SVTRv2ImageProcessor(max_ratio=20)
    for sample in whole:
        with Image.open(io.BytesIO(sample.image)) as image:
            assert processor.target_size(*image.size) == (image.height, image.width), (
                "resizing does not change the image"
            )
    assert len(list(source.texts())) == 30
    longest = [max(map(len, open_source(f"synthetic:{atlas}?samples=2000&lines={lines}").texts())) for lines in (0, 1)]
    assert longest[0] < 40 < longest[1], "lines can be disabled"


@pytest.mark.parametrize("name", ["folder", "data.lmdb", "data.parquet"])
def test_synthesized_dataset_matches_the_source(atlas, tmp_path, capsys, name):
    arguments = ["synthesize", str(tmp_path / name), "--images", "12", "--seed", "3", "--atlas", str(atlas)]
    assert command(arguments) == 0
    assert "12 images in 2 fonts" in capsys.readouterr().out
    rendered = open_source(f"synthetic:{atlas}?samples=12").read(seed=3)
    assert [(s.image, s.text) for s in open_source(str(tmp_path / name)).read()] == [
        (s.image, s.text) for s in rendered
    ]
    assert command(arguments) == 1
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["z.jpg", "data.tar", "sheet.PNG"])
def test_unknown_extension_raises(atlas, tmp_path, capsys, name):
    assert command(["synthesize", str(tmp_path / name), "--images", "2", "--atlas", str(atlas)]) == 1
    assert f"Cannot write {tmp_path / name}: use the extension .png for a contact sheet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("difficulty", ["nan", "inf", "-1"])
def test_invalid_difficulty_raises(atlas, tmp_path, capsys, difficulty):
    arguments = ["synthesize", str(tmp_path / "data"), "--difficulty", difficulty, "--atlas", str(atlas)]
    assert command(arguments) == 1
    assert "must be a finite number of 0 or more" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_parquet_is_written_incrementally(tmp_path):
    class Source:
        num_samples = 2500

        def read(self, seed):
            for number in range(self.num_samples):
                sizes.append((tmp_path / "data.parquet").stat().st_size)
                yield Sample(b"x" * 1000, str(number), "")

    sizes = []
    synthesize(Source(), tmp_path / "data.parquet", seed=0)
    assert sizes[999] < sizes[1500] < sizes[2400]
    file = ParquetFile(tmp_path / "data.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(3)] == [1000, 1000, 500]
    assert file.read()["text"].to_pylist() == [str(number) for number in range(2500)]


def test_contact_sheet(atlas, tmp_path):
    sheet = tmp_path / "sheet.png"
    assert command(["synthesize", str(sheet), "--images", "30", "--words", "--atlas", str(atlas)]) == 0
    with Image.open(sheet) as image:
        assert image.width == 1400 and image.height >= 68


def test_characters_outside_the_charset_are_counted(atlas):
    counts = Counter()
    for batch in take(batches_of(atlas, charset="0123456789", batch_size=2), 4):
        counts.update(batch["counts"])
        assert batch["labels"].max() <= 10
    assert counts[0, "unknown_characters"] > 0


def test_dropped_characters_are_counted(atlas):
    stream = batches_of(atlas, charset=ENGLISH_94)
    stream.encoder = LabelEncoder(ENGLISH_94, max_length=60, unknown_characters="drop_character")
    counts = sum((Counter(batch["counts"]) for batch in take(stream, 10)), Counter())
    assert counts[0, "dropped_characters"] > 0


def test_stream_without_usable_samples_raises(atlas):
    stream = batches_of(atlas, charset="\u4eac")
    with pytest.raises(
        ValueError, match=r"None of the last 501 samples can be trained on.*synthetic: unknown_characters"
    ):
        take(stream, 1)
    with pytest.raises(ValueError, match="None of 500 samples can be trained on"):
        stream.batches_per_epoch()


def test_training_on_synthetic_text(atlas, tmp_path, capsys):
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join(CHARSET) + "\n")
    words = ("--model", "nano", "--charset", str(charset), "--max_label_length", "60")
    out = run(tmp_path, f"synthetic:{atlas}?samples=100", *words, "--augment_operations", "0")
    printed = capsys.readouterr().err
    assert "| 100 samples, all usable " in printed and "| 3 of 4 images " in printed
    assert SVTRv2ForCTC.from_pretrained(out).config.vocab_size == 96
    run(tmp_path / "augmented", f"synthetic:{atlas}?samples=100", *words)


NAN = float("nan")


@pytest.mark.parametrize(
    ("centers", "labels", "expected"),
    [
        ([2.0, 9.0, 21.0], [5, 6, 7], [5, 0, 6, 0, 0, 7, 0, 0]),
        ([2.0, NAN, 21.0, NAN], [5, 9, 7, -100], [5, 0, 9, 0, 0, 7, 0, 0]),  # a space in between
        ([2.0, 9.0, 13.0], [5, 6, 6], None),  # no frame for the blank between repeated characters
        ([2.0, 9.0, 17.0], [5, 6, 6], [5, 0, 6, 0, 6, 0, 0, 0]),
        ([9.0, 11.0], [5, 6], None),  # two characters in one frame
        ([21.0, 9.0], [5, 6], None),  # from right to left
        ([2.0, 40.0], [5, 6], None),  # outside
        ([2.0, NAN, NAN, 29.0], [5, 9, 9, 7], None),  # two spaces: positions unknown
    ],
)
def test_frame_labels_of_known_positions(centers, labels, expected):
    [computed] = frame_labels(torch.tensor([centers]), torch.tensor([labels]), 32, 4).tolist()
    assert computed == (expected or [UNKNOWN] * 8)


def test_frame_labels_collapse_to_their_texts(atlas):
    stream = batches_of(atlas)
    stream.with_frame_labels = True
    known = total = 0
    for batch in take(stream, 8):
        for frames, ids in zip(batch["frame_labels"].tolist(), batch["labels"].tolist(), strict=True):
            total += 1
            if frames[0] != UNKNOWN:
                known += 1
                assert [id for id, _ in itertools.groupby(frames) if id] == [id for id in ids if id > 0]
            else:
                assert set(frames) == {UNKNOWN}
    assert known > 0.8 * total


def test_texts_with_dropped_characters_have_no_frame_labels(atlas):
    """Without the space, all following positions would belong to other characters."""
    stream = batches_of(atlas, charset=ENGLISH_94)
    stream.encoder = LabelEncoder(ENGLISH_94, max_length=60, unknown_characters="drop_character")
    stream.with_frame_labels = True
    texts = stream.source.text_source.texts(0, 0, 4096)
    with_space = {text.replace(" ", "") for text in texts if " " in text}
    known = {True: 0, False: 0}
    for batch in take(stream, 8):
        for frames, ids in zip(batch["frame_labels"].tolist(), batch["labels"].tolist(), strict=True):
            dropped = "".join(ENGLISH_94[id - 1] for id in ids if id > 0) in with_space
            known[dropped] += frames[0] != UNKNOWN
    assert known[True] == 0
    assert known[False] > 10


def test_loss_changes_from_frame_labels_to_ctc(atlas, config, tmp_path):
    config.vocab_size = len(CHARSET) + 1
    model = SVTRv2ForCTC(config).eval()
    stream = batches_of(atlas, 4)
    stream.with_frame_labels = True
    options = {"use_cpu": True, "eval_strategy": "no", "max_steps": 100, "frame_label_steps": 40}
    args = SVTRv2TrainingArguments(str(tmp_path), **options)
    processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET))
    trainer = SVTRv2Trainer(model, args, train_dataset=stream, processing_class=processor)
    batch = next(batch for batch in trainer.get_train_dataloader() if (batch["frame_labels"] != UNKNOWN).any())
    inputs = trainer._prepare_inputs(batch)
    outputs = model(inputs["pixel_values"], labels=inputs["labels"])
    chosen = outputs.logits.log_softmax(-1).gather(2, batch["frame_labels"].clamp(min=0)[..., None])[..., 0]
    by_frames = -(chosen * (batch["frame_labels"] != UNKNOWN)).sum() / len(chosen)
    for step, share in ((0, 1.0), (20, 1.0), (30, 0.5), (40, 0.0), (90, 0.0)):
        trainer.state.global_step = step
        loss = trainer.compute_loss(model, dict(inputs), num_items_in_batch=torch.tensor(len(chosen)))
        torch.testing.assert_close(loss, share * by_frames + (1 - share) * outputs.loss)


def test_resuming_with_another_renderer_raises(atlas, tmp_path):
    words = (*NANO, "--save_steps", "3", "--augment_operations", "0")
    run(tmp_path, f"synthetic:{atlas}?samples=100", *words)
    words = (*words, "--resume_from_checkpoint", "True")
    run(tmp_path, f"synthetic:{atlas}?samples=100", *words)
    for option in ("difficulty=0.5", "lines=0"):
        with pytest.raises(ValueError, match=r"fingerprints was \[\[.*\]\] and is"):
            run(tmp_path, f"synthetic:{atlas}?samples=100&{option}", *words)


def test_fingerprint_depends_on_the_atlas(atlas, tmp_path):
    wider = Atlas.load(atlas)
    wider.advances += 1
    wider.save(tmp_path / "wider.safetensors")
    first, same, other = (
        open_source(f"synthetic:{path}").fingerprint for path in (atlas, atlas, tmp_path / "wider.safetensors")
    )
    assert first == same != other


def test_custom_charset_and_words(atlas, tmp_path):
    (tmp_path / "charset.txt").write_text("a\nb\nc\n7\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("abba\n" * 100_000, encoding="utf-8")
    spec = f"synthetic:{atlas}?samples=600&charset={tmp_path}/charset.txt"
    plain = open_source(spec)
    texts = Counter(plain.texts())
    assert set("".join(texts)) == set("abc7")
    with_words = open_source(f"{spec}&words={tmp_path}/words.txt")
    assert Counter(with_words.texts())["abba"] > texts["abba"] + 10
    assert len({str(source.fingerprint) for source in (plain, with_words, open_source(f"synthetic:{atlas}"))}) == 3
    assert sum(1 for _ in with_words.read()) == 600


def test_characters_missing_from_all_fonts_raise(atlas, tmp_path):
    (tmp_path / "charset.txt").write_text("a\nb\n\u4eac\n\u0431\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"No font of the atlas .*\.safetensors has '\u4eac' \(U\+4EAC\), '\u0431' \(U\+0431\): "
    ):
        open_source(f"synthetic:{atlas}?charset={tmp_path}/charset.txt")
    capitals = Atlas.load(atlas)
    capitals.has_lowercase[:] = False
    capitals.save(tmp_path / "capitals.safetensors")
    with pytest.raises(ValueError, match=r"has 'a' \(U\+0061\), .* and 16 more characters: remove them"):
        open_source(f"synthetic:{tmp_path}/capitals.safetensors")
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        open_source(f"synthetic:{atlas}?charset={tmp_path}/absent.txt")
    with pytest.raises(FileNotFoundError, match=r"Word list .*absent\.txt"):
        open_source(f"synthetic:{atlas}?words={tmp_path}/absent.txt")


def test_custom_charset_with_fonts_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "find_fonts", partial(find_fonts, packages=False, system=False))
    cached = partial(load_or_build, cache=tmp_path / "cache", progress=False)
    monkeypatch.setattr(source, "load_or_build", lambda fonts, charset: cached(fonts[:1], charset))
    listing = tmp_path / "charset.txt"
    listing.write_text("\u0431\n\u0436\n", encoding="utf-8")
    rendered = open_source(f"synthetic:?samples=5&charset={listing}")
    assert {character for sample in rendered.read() for character in sample.text} == {"\u0431", "\u0436"}
    listing.write_text("a\n\u4eac\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"No font of the atlas has '\u4eac' .* or install fonts that have them"):
        open_source(f"synthetic:?charset={listing}")


def test_texts_are_restricted_to_the_characters_of_one_font(atlas, tmp_path, monkeypatch):
    """One font has letters, the other digits, and both have punctuation."""
    halves = Atlas.load(atlas)
    for font, lacking in enumerate((str.isdigit, str.isalpha)):
        halves.available[font] = torch.tensor([not lacking(character) for character in halves.charset])
    halves.save(tmp_path / "halves.safetensors")
    source = open_source(f"synthetic:{tmp_path}/halves.safetensors?samples=400")
    with monkeypatch.context() as patch:
        texts = ["Hotel", "12.50", "A4", "4 Rue", "A1:25 7", "No. 7"]
        patch.setattr(source.text_source, "texts", lambda *_: texts)
        source.num_samples = len(texts)
        assert list(source.texts()) == ["Hotel", "12.50", "A", "Rue", "1:25 7", "No."]
    source.num_samples = 400
    texts = [sample.text for sample in source.read()]
    assert texts == list(source.texts())
    assert any(map(str.isdigit, texts)) and any(map(str.isalpha, texts))
    for text in texts:
        assert text == text.strip() != ""
        assert not (any(map(str.isdigit, text)) and any(map(str.isalpha, text)))
    [*batches] = take(batches_of(tmp_path / "halves.safetensors"), 10)
    assert len(batches) == 10


def test_atlas_is_loaded_before_workers_start(atlas, monkeypatch):
    """Workers are daemons, which cannot start the processes that build an atlas."""
    built = []
    monkeypatch.setattr(source, "find_fonts", lambda **_: FoundFonts([], Counter()))
    monkeypatch.setattr(source, "load_or_build", lambda *_: built.append(1) or Atlas.load(atlas))
    encoder = LabelEncoder(CHARSET, unknown_characters="drop_sample")
    take(BucketBatches([open_source("synthetic:?samples=64")], encoder, SVTRv2ImageProcessor(), 2), 1, workers=1)
    assert built == [1], "the main process builds it"


def test_evaluation_renders_outside_of_autocast(atlas, config):
    """Autocast would round the images."""
    processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(CHARSET))
    config.vocab_size = len(CHARSET) + 1
    model = SVTRv2ForCTC(config)
    images = []

    class Batches(EvaluationBatches):
        def __iter__(self):
            for batch in super().__iter__():
                images.append(batch["pixels"])
                yield batch

    def autocast():
        return torch.autocast("cpu", torch.bfloat16)

    for context in (nullcontext, autocast):
        batches = Batches(open_source(f"synthetic:{atlas}?samples=4"), processor.image_processor, 1)
        list(predict(model, processor, batches, autocast=context))
    for exact, autocast_image in zip(images[:4], images[4:], strict=True):
        assert torch.equal(exact, autocast_image)


def test_frame_labels_require_synthetic_text_only(atlas, tmp_path):
    words = (*NANO, "--max_label_length", "60", "--frame_label_steps", "2")
    run(tmp_path, f"synthetic:{atlas}?samples=100", *words, "--augment_operations", "0")
    with pytest.raises(ValueError, match="--frame_label_steps requires exactly one synthetic source"):
        run(tmp_path / "augmented", f"synthetic:{atlas}?samples=100", *words)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("synthetic:?size=3", "unknown option size for synthetic text"),
        ("synthetic:?lines=no", "lines must be 0 or 1, not 'no'"),
        ("synthetic:?difficulty=hard", "difficulty must be a number"),
    ],
)
def test_invalid_specs_raise(spec, message):
    with pytest.raises(ValueError, match=message):
        open_source(spec)
