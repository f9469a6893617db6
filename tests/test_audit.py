"""Data audits: counts, advice, files and the command."""

import io
import itertools
import json
import os
import warnings
from collections import Counter

import pytest
import torch
from conftest import CHARSET, draw, encoded
from PIL import Image

import svtrv2_hf.data.audit
import svtrv2_hf.training.audit
from svtrv2_hf import SVTRv2Config, SVTRv2ImageProcessor, SVTRv2Processor, SVTRv2ServerImageProcessor
from svtrv2_hf.charsets import ENGLISH_94, PRINTABLE_ASCII
from svtrv2_hf.cli import main
from svtrv2_hf.data.audit import AuditReport, audit
from svtrv2_hf.data.audit_report import advise, plot, render, render_table, total
from svtrv2_hf.data.batches import BucketBatches
from svtrv2_hf.data.labels import LabelEncoder, RejectedSampleError, Rejection
from svtrv2_hf.data.sample import Sample, Source


EMPTY, UNKNOWN, TOO_LONG, UNALIGNABLE, UNREADABLE = Rejection


class ListSource(Source):
    """Samples in memory; exceptions among them are raised."""

    def __init__(self, samples, name="list"):
        self.samples, self.name, self.weight, self.num_samples = samples, name, None, len(samples)

    def read(self, part=0, parts=1, seed=None, epoch=0):
        for sample in self.samples[part::parts]:
            if isinstance(sample, BaseException):
                raise sample
            yield sample

    def texts(self):
        return (sample.text for sample in self.samples)


def noise(width, height):
    return encoded(Image.effect_noise((width, height), 50))


SQUARE, WIDE = noise(40, 40), noise(480, 40)  # of 64 x 64 and 32 x 384 pixels, so 16 and 96 frames
TRUNCATED = SQUARE[: len(SQUARE) // 2]


def report_of(charset="abc", name="words", max_ratio=12, max_length=25, **kwargs):
    return AuditReport(name, LabelEncoder(charset, max_length, **kwargs), SVTRv2ImageProcessor(max_ratio=max_ratio))


def report_on(samples, charset="abc", max_length=25, max_ratio=12, **kwargs):
    """Audit (image, text) pairs, named by their numbers."""
    samples = [
        Sample(*sample, f"number {number}") if type(sample) is tuple else sample
        for number, sample in enumerate(samples)
    ]
    report = report_of(charset, "list", max_ratio, max_length=max_length)
    audit(ListSource(samples), report, **kwargs)
    return report


@pytest.mark.parametrize(
    ("image", "text", "problems", "repairable"),
    [
        (SQUARE, "abc", set(), 0),
        (WIDE, "abc" * 8 + "a", set(), 0),
        (SQUARE, "a" * 8, set(), 0),  # 15 frames of 16
        (SQUARE, "", {EMPTY}, 0),
        (SQUARE, "ab!", {UNKNOWN}, 1),
        (SQUARE, "!?", {UNKNOWN}, 0),  # empty without the unknown characters
        (WIDE, "ab" * 13, {TOO_LONG}, 0),
        (SQUARE, "a" * 9, {UNALIGNABLE}, 0),  # 17 frames
        (SQUARE, "!" * 9, {UNKNOWN, UNALIGNABLE}, 0),
        (SQUARE, "a!" * 8 + "b!", {UNKNOWN, UNALIGNABLE}, 1),
        (WIDE, "ab!" * 9, {UNKNOWN, TOO_LONG}, 1),
        (WIDE, "ab!" * 13, {UNKNOWN, TOO_LONG}, 0),
        (TRUNCATED, "abc", {UNREADABLE}, 0),
        (TRUNCATED, "ab!", {UNREADABLE, UNKNOWN}, 0),
        (b"no image", "a" * 9, {UNREADABLE}, 0),  # of unknown width
        (b"", "", {UNREADABLE, EMPTY}, 0),
        (TRUNCATED, "a!" * 20, {UNREADABLE, UNKNOWN, TOO_LONG, UNALIGNABLE}, 0),
    ],
)
def test_every_problem_of_a_sample_is_counted(image, text, problems, repairable):
    report = report_on([(image, text)])
    assert {problem for problem in Rejection if report.counts[problem]} == problems
    assert report.to_dict()["examples"] == {str(problem): ["number 0"] for problem in problems}
    assert (report.samples, report.usable, report.repairable) == (1, int(not problems), repairable)


def test_usable_labels_are_those_that_can_be_encoded():
    texts = ["".join(text) for length in range(5) for text in itertools.product("ab!", repeat=length)]
    report = report_on([(WIDE, text) for text in texts], charset="ab", max_length=3)

    def encodable(policy):
        encoder = LabelEncoder("ab", 3, policy)
        count = 0
        for text in texts:
            try:
                encoder.encode(text)
                count += 1
            except RejectedSampleError:
                pass
        return count

    assert report.usable == encodable("drop_sample") == 2 + 4 + 8
    assert report.usable + report.repairable == encodable("drop_character")


def test_characters_lengths_and_shapes_are_counted():
    samples = [(SQUARE, "aa\u00e9"), (WIDE, "\u00e9 "), (noise(400, 20), "aa"), (noise(400, 20), "a")]
    content = report_on([*samples, (noise(20, 60), "ab"), (noise(20, 60), "a")], charset="abc").to_dict()
    assert content["unknown_characters"] == [
        {"character": "\u00e9", "code_point": "U+00E9", "count": 2},
        {"character": " ", "code_point": "U+0020", "count": 1},
    ]
    assert content["unused_characters"] == "c"
    assert content["label_lengths"] == {"1": 2, "2": 3, "3": 1}
    assert content["aspect_ratios"] == [
        {"ratio": 1, "size": [64, 64], "count": 3},
        {"ratio": 12, "size": [32, 384], "count": 1},
        {"ratio": 20, "size": [32, 384], "count": 2},
    ]
    assert content["compressed"] == 2
    assert content["vertical"] == 1, "single characters are not counted"
    assert report_on(samples, max_ratio=20).compressed == 0


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    draw("a long line of text").transpose(Image.Transpose.ROTATE_90).save(file, "JPEG", exif=exif)
    report = report_on([(file.getvalue(), "ab")])
    assert report.vertical == 0
    assert min(report.aspect_ratios) > 4


def test_unreadable_images_have_name_and_reason():
    report = report_on([(b"no image", "a"), (SQUARE, "a"), (TRUNCATED, "a")])
    first, second = report.to_dict()["unreadable"]
    assert first["name"] == "number 0" and "number 0" in first["error"]
    assert second["name"] == "number 2"
    assert "truncated" in second["error"].lower()


def various(count=40):
    images, texts = [SQUARE, WIDE, TRUNCATED, b""], ["abc", "", "a!", "ab" * 15, "\u00e9" * 20]
    return [(images[number % 4], texts[number % 5]) for number in range(count)]


@pytest.mark.parametrize("limit", [None, 11, 1000])
def test_report_does_not_depend_on_the_number_of_workers(monkeypatch, limit):
    monkeypatch.setattr(svtrv2_hf.data.audit, "SAMPLES_PER_REPORT", 3)
    state = torch.get_rng_state()
    reports = [report_on(various(), workers=workers, limit=limit) for workers in (0, 1, 2)]
    assert reports[0].samples == min(limit or 40, 40)
    assert reports[0].to_dict() == reports[1].to_dict() == reports[2].to_dict()
    assert torch.equal(torch.get_rng_state(), state)


def test_report_does_not_depend_on_the_order():
    samples = [Sample(*sample, str(number)) for number, sample in enumerate(various(200))]
    assert report_on(samples).to_dict() == report_on(samples[::-1]).to_dict()


def test_reports_add_up():
    samples = [Sample(*sample, str(number)) for number, sample in enumerate(various(150))]
    whole, first, second = report_on(samples), report_on(samples[:50]), report_on(samples[50:])
    assert total([first, second]).to_dict() == total([second, first]).to_dict() == total([whole]).to_dict()
    first.update(second)
    assert first.to_dict() == whole.to_dict()


@pytest.mark.parametrize("workers", [0, 1])
def test_error_of_a_source_is_raised_unchanged(workers):
    with pytest.raises(ValueError, match=r"^data\.mdb ends too early$"):
        report_on([(SQUARE, "a"), ValueError("data.mdb ends too early")], workers=workers)


def test_table_is_aligned_and_has_a_sum():
    reports = [report_on(various(20)), report_on(various())]
    reports[1].name = "another | source"
    lines = render_table(reports).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["source", "samples", "usable", "usable %"]
    assert [row[0] for row in cells[2:]] == ["list", "another  source", "all"]
    for column, name in enumerate(cells[0]):
        if name not in ("source", "usable %"):
            assert int(cells[2][column]) + int(cells[3][column]) == int(cells[4][column]), name
    assert len(render_table(reports[:1]).splitlines()) == 3


def test_share_is_rounded_down():
    report = report_of()
    report.samples, report.usable = 100_000, 99_999
    assert " 99.9 " in render_table([report])
    report.usable += 1
    assert " 100.0 " in render_table([report])


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("error", ["would stop", "--charset", "drop_sample", "drop_character", "makes 1 of"]),
        ("drop_sample", ["skips these samples", "drop_character would keep 1"]),
        ("drop_character", ["removes the characters", "makes 1 of"]),
    ],
)
def test_advice_on_unknown_characters_depends_on_the_policy(policy, words):
    report = report_of(unknown_characters=policy)
    for text in ("a!", "!", "abc"):
        report.add(Sample(SQUARE, text, "x"))
    sentence, *others = advise(report)
    assert [other.split(":")[0] for other in others] == (["Empty labels"] if policy == "drop_character" else [])
    assert sentence.startswith("Characters outside the charset: 2 samples, '!' (U+0021) 2 times.")
    assert all(word in sentence for word in words)


def test_every_problem_has_advice():
    report = report_of()
    samples = [(SQUARE, ""), (SQUARE, "a" * 9), (b"", "a"), (noise(20, 60), "ab"), (noise(400, 20), "ab")]
    samples += [(WIDE, "ab" * 13)] * 9 + [(WIDE, "ab" * 100)]
    for number, sample in enumerate(samples):
        report.add(Sample(*sample, f"{number}.png"))
    sentences = advise(report)
    beginnings = (
        "Empty labels: 1 sample (0.png).",
        "Labels of more than 25 characters: 10 samples (10.png, 11.png, 12.png, ...).",
        "Labels that need more CTC frames than their images have (one per 4 pixels of the resized width): 2 samples (1.png, 14.png)",
        "Unreadable images: 1 sample. ",
        "Images wider than 12 times their height: 1 sample. ",
        "Images taller than 1.5 times their width, of several characters: 1 sample. ",
    )
    assert "\n\nCharacters of the charset that never occur: 1 of 3. " in render([report])
    for sentence, beginning in zip(sentences, beginnings, strict=True):
        assert sentence.startswith(beginning)
    assert "--max-label-length 26 suffices for 90 % of them, 200 for all." in sentences[1]
    assert "- Cannot read 2.png" in sentences[3]
    assert "--max-ratio 20 suffices for all of them." in sentences[4]
    assert advise(report_of()) == ["The source has no samples."]


def test_only_the_first_unreadable_images_are_printed():
    report = report_of()
    for number in range(30):
        report.add(Sample(b"", "abc", str(number)))
    [sentence] = advise(report)
    assert sentence.count("Cannot read") == 20
    assert "and 10 more" in sentence
    assert len(report.to_dict()["unreadable"]) == 30
    assert len(report.examples[UNREADABLE]) == 20


@pytest.mark.parametrize("number", [1, 3])
def test_figure_is_saved_without_warnings(tmp_path, number):
    """The name has characters that are not in the font, or part of matplotlib's formulas."""
    report = report_of()
    for text in ("abc", "!" * 30):
        report.add(Sample(WIDE, text, "x"))
    report.name = "\u8eca\u724c $\\wrong{$"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot([report, report_of(), report_of()][:number], tmp_path / "audit.png")
    with Image.open(tmp_path / "audit.png") as image:
        assert image.size == (1700, 330 * number)
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10


def make_folder(root, texts, broken=()):
    root.mkdir()
    for number, _ in enumerate(texts):
        draw("word").save(root / f"{number}.png")
    for number in broken:
        (root / f"{number}.png").write_bytes(TRUNCATED)
    lines = [f"{number}.png\t{text}\n" for number, text in enumerate(texts)]
    (root / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return root


@pytest.fixture
def good(tmp_path):
    characters = f"{ENGLISH_94[:90]} {ENGLISH_94[90:]}"
    return make_folder(tmp_path / "good", [characters[start : start + 20] for start in range(0, 95, 20)])


@pytest.fixture
def bad(tmp_path):
    return make_folder(tmp_path / "bad", ["word", "caf\u00e9", ""], broken=[0])


def run(capsys, *words):
    status = main(["audit", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_good_data(good, capsys):
    status, out, _ = run(capsys, good)
    assert status == 0
    assert "| good   |       5 |      5 |    100.0 |" in out
    assert "charset of 95 characters" in out
    assert out.strip().endswith("Compressed and vertical images are used for training."), "no advice"


def test_problems_are_printed_and_written(good, bad, tmp_path, capsys):
    status, out, _ = run(capsys, good, bad, "--output", tmp_path / "deep" / "report", "--limit", "3")
    assert status == 1
    assert all(words in out for words in ("'\u00e9' (U+00E9)", "Empty labels: 1 sample", "At most 3 samples"))
    content = json.loads((tmp_path / "deep" / "report" / "audit.json").read_text())
    assert content["charset"] == PRINTABLE_ASCII
    assert (content["max_label_length"], content["max_ratio"]) == (None, 12)
    assert [source["source"] for source in content["sources"]] == ["good", "bad"]
    assert [source["samples"] for source in content["sources"]] == [3, 3]
    assert content["sources"][1]["problems"] == {
        "empty": 1,
        "unknown_characters": 1,
        "too_long": 0,
        "unalignable": 0,
        "unreadable": 1,
    }
    assert [image["name"].rsplit(os.sep, 1)[-1] for image in content["sources"][1]["unreadable"]] == ["0.png"]
    assert content["total"]["samples"] == 6
    with Image.open(tmp_path / "deep" / "report" / "augmentation.png") as image:
        assert image.height > 1000, "a row for each operation"
    text = (tmp_path / "deep" / "report" / "audit.md").read_text()
    assert "# Audit" in text and out.strip() in text
    with Image.open(tmp_path / "deep" / "report" / "audit.png") as image:
        assert image.size == (1700, 660)


def test_source_without_samples_is_a_problem(monkeypatch, capsys):
    monkeypatch.setattr(svtrv2_hf.training.audit, "open_source", lambda name, split: ListSource([], name))
    status, out, _ = run(capsys, "nothing")
    assert status == 1
    assert "The source has no samples." in out
    assert "## two\n\nThe source has no samples." in run(capsys, "one", "two")[1]


def test_problems_per_source_and_advice_once(tmp_path, capsys):
    places = [make_folder(tmp_path / name, texts) for name, texts in (("one", ["\u00df", "ab" * 20]), ("two", ["a"]))]
    places.append(make_folder(tmp_path / "three", ["\u00e9", "b", "ab" * 15], broken=[1]))
    _, out, _ = run(capsys, *places, "--max-label-length", "25", "--output", tmp_path / "report")
    _, one, three, together = out.split("\n## ")
    assert one.startswith("one\n") and "'\u00df' (U+00DF) 1 time" in one and "'\u00e9'" not in one
    assert three.startswith("three\n") and "'\u00e9' (U+00E9) 1 time" in three
    assert f"- Cannot read {places[2] / '1.png'}: " in three
    assert together.startswith("All sources\n\nCharacters outside the charset: Training would stop. ")
    assert "--max-label-length 40 suffices for all of them" in together
    assert "Characters of the charset that never occur: 93 of 95." in together
    for advice in ("--charset FILE", "--max-label-length", "Replace or remove"):
        assert (out.count(advice), together.count(advice)) == (1, 1), advice
    text = (tmp_path / "report" / "audit.md").read_text()
    assert out.strip() in text
    _, single, _ = run(capsys, places[0])
    assert "## " not in single
    assert "'\u00df' (U+00DF) 1 time. Training would stop. Add them to the charset" in single


@pytest.mark.parametrize(("policy", "expected"), [("error", (0, 1, 1)), ("drop_character", (1, 0, 1))])
def test_labels_are_judged_without_dropped_characters(policy, expected):
    report = report_of(max_length=5, unknown_characters=policy)
    for text in ("\u00e9", "a" * 5 + "\u00e9"):
        report.add(Sample(SQUARE, text, text))
    assert (report.counts[EMPTY], report.counts[TOO_LONG], report.repairable) == expected


def test_advised_length_excludes_dropped_characters():
    report = report_of(max_length=5, unknown_characters="drop_character")
    for text in ["aaabbb"] + ["abc" + "!" * 30] * 20:
        report.add(Sample(WIDE, text, text))
    assert report.label_lengths == {6: 1, 3: 20}
    assert any("--max-label-length 6 suffices for all of them" in sentence for sentence in advise(report))


def test_audit_and_training_count_the_same():
    """Each sample has one problem."""
    texts = ["", "\u00e9", "a\u00e9b", "a" * 8, "a" * 9, "a" * 5 + "\u00e9" + "a" * 4, "ab" * 13, "ab" * 12 + "\u00e9"]
    samples = [Sample(image, text, f"{text} {len(image)}") for text in texts for image in (SQUARE, WIDE)]
    samples = [sample for sample in samples if not (sample.image is SQUARE and len(sample.text) > 25)]
    samples += [Sample(b"no image", "ab", "broken"), Sample(SQUARE, "ab", "last")]
    rules = LabelEncoder("ab", 25, "drop_character"), SVTRv2ImageProcessor()
    report = AuditReport("list", *rules)
    audit(ListSource(samples), report)
    counts = Counter()
    for batch in BucketBatches([ListSource(samples)], *rules, batch_size=1):
        counts.update(batch["counts"])
        if counts[0, "samples"] >= len(samples):
            break
    assert counts.pop((0, "samples")) == report.samples
    assert counts.pop((0, "dropped_characters")) > 0
    problems = {EMPTY, TOO_LONG, UNALIGNABLE, UNREADABLE}
    assert counts == {(0, str(problem)): report.counts[problem] for problem in problems}
    assert all(counts.values())
    assert report.usable + report.repairable == report.samples - sum(counts.values())


def test_model_to_fine_tune_provides_rules(good, tmp_path, capsys):
    words = ("--model", "default", "--unknown-characters", "drop_sample", "--output", tmp_path / "out")
    _, out, _ = run(capsys, good, *words)
    assert "a charset of 95 characters" in out and "up to 20 times" in out
    assert json.loads((tmp_path / "out" / "audit.json").read_text())["unknown_characters"] == "drop_sample"


def test_widths_are_rounded_up_as_in_training(processor, tmp_path, capsys):
    """With a fixed height of 48, an image of 230 x 30 pixels has 46 frames, and 48 in training."""
    SVTRv2Processor(SVTRv2ServerImageProcessor(), processor.tokenizer).save_pretrained(tmp_path / "model")
    SVTRv2Config().save_pretrained(tmp_path / "model")
    (tmp_path / "0.png").write_bytes(noise(230, 30))
    (tmp_path / "labels.tsv").write_text(f"0.png\t{CHARSET[:2] * 24}\n", encoding="utf-8")
    assert run(capsys, tmp_path, "--model", tmp_path / "model", "--max-label-length", "60")[0] == 0
    (tmp_path / "labels.tsv").write_text(f"0.png\t{CHARSET[:2] * 24 + CHARSET[0]}\n", encoding="utf-8")
    assert run(capsys, tmp_path, "--model", tmp_path / "model", "--max-label-length", "60")[0] == 1


def test_augmentation_sheet_follows_the_recipe(good, tmp_path, capsys):
    sheets = []
    for number, operations, magnitude in ((0, 3, 5), (1, 3, 1), (2, 0, 5)):
        recipe = tmp_path / f"{number}.yaml"
        recipe.write_text(f"train_data: {good}\naugment_operations: {operations}\naugment_magnitude: {magnitude}\n")
        run(capsys, recipe, "--output", tmp_path / str(number))
        sheet = tmp_path / str(number) / "augmentation.png"
        sheets.append(sheet.read_bytes() if sheet.is_file() else None)
    assert sheets[0] and sheets[1] and sheets[0] != sheets[1]
    assert sheets[2] is None
    run(capsys, tmp_path / "2.yaml", "--output", tmp_path / "0")
    assert not (tmp_path / "0" / "augmentation.png").exists(), "the old one is removed"


def test_empty_values_of_a_recipe_are_ignored(good, tmp_path, capsys):
    names = ("model", "unknown_characters", "max_label_length", "augment_operations", "augment_magnitude")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"train_data: {good}\n" + "".join(f"{name}:\n" for name in names))
    assert run(capsys, recipe, "--output", tmp_path / "out")[0] == 0
    assert (tmp_path / "out" / "augmentation.png").is_file()


def test_options(good, tmp_path, capsys):
    (tmp_path / "letters.txt").write_text("\n".join(ENGLISH_94[:60]) + "\n")
    options = ["--max-label-length", "19", "--max-ratio", "1", "--workers", "1", "--output", tmp_path / "out"]
    status, _, _ = run(capsys, good, "--charset", tmp_path / "letters.txt", *options)
    assert status == 1
    total = json.loads((tmp_path / "out" / "audit.json").read_text())["total"]
    assert (total["problems"]["too_long"], total["problems"]["unknown_characters"], total["compressed"]) == (4, 2, 5)


def test_options_override_the_recipe(good, bad, tmp_path, capsys):
    (tmp_path / "letters.txt").write_text("\n".join(ENGLISH_94[:60]) + "\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"train_data: {good}\neval_data: [{bad}]\ncharset: {tmp_path / 'letters.txt'}\nmax_label_length: 10\n"
        "max_ratio: 3\nunknown_characters: drop_character\nmodel: tiny\nlearning_rate: 1e-3\n"
    )

    def content(*words):
        assert run(capsys, recipe, *words, "--output", tmp_path / "out")[0] == 1
        return json.loads((tmp_path / "out" / "audit.json").read_text())

    by_recipe = content()
    assert [source["source"] for source in by_recipe["sources"]] == ["good", "bad (eval)"]
    assert by_recipe["charset"] == ENGLISH_94[:60]
    assert (by_recipe["max_label_length"], by_recipe["max_ratio"]) == (10, 3)
    assert by_recipe["unknown_characters"] == "drop_character"
    changed = content(bad, "--max-label-length", "12", "--max-ratio", "2")
    assert [source["source"] for source in changed["sources"]] == ["good", "bad", "bad (eval)"]
    assert changed["charset"] == ENGLISH_94[:60]
    assert (changed["max_label_length"], changed["max_ratio"]) == (12, 2)


def test_recipe_with_a_saved_model_uses_its_rules(good, saved, processor, tmp_path, capsys):
    processor.image_processor.max_ratio = 8
    processor.save_pretrained(saved)
    (tmp_path / "recipe.yml").write_text(f"train_data: [{good}]\nmodel: {saved}\n")
    assert run(capsys, tmp_path / "recipe.yml", "--output", tmp_path / "out")[0] == 1
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert (content["charset"], content["max_ratio"]) == (CHARSET, 8)


def test_images_listed_twice_are_reported(good, bad, capsys):
    with (good / "labels.tsv").open("a") as file:
        file.write("0.png\tother\n1.png\tother\n0.png\tother\n./0.png\tother\n")
    _, out, _ = run(capsys, good, bad)
    assert "good lists 2 images more than once, 2 of them with different texts: " in out
    assert f"texts: {good / '0.png'}, {good / '1.png'}." in out
    assert "bad lists" not in out


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("- a\n- b\n", "recipe.yaml"),
        ("a: [", "recipe.yaml"),
        ("model: tiny\n", "has neither train_data nor eval_data"),
        ("train_data: {a: b}\n", "No such file or folder"),
        ("train_data: GOOD\nmax_label_length: many\n", "--max_label_length"),
        ("train_data: GOOD\nmax_label_length: 0\n", "--max_label_length must be 1 or more"),
        ("train_data: GOOD\nmax_ratio: 0\n", "max_ratio=0"),
        ("train_data: GOOD\nunknown_characters: ignore\n", "--unknown_characters"),
        ("train_data: GOOD\ncharset: nowhere.txt\n", "nowhere.txt"),
        ("train_data: GOOD\naugment_operations: many\n", "--augment_operations"),
        ("train_data: GOOD\naugment_magnitude: 99\n", "magnitude=99.0 must be in 0..10"),
    ],
)
def test_invalid_recipes_raise(good, tmp_path, capsys, recipe, message):
    (tmp_path / "recipe.yaml").write_text(recipe.replace("GOOD", str(good)))
    status, out, errors = run(capsys, tmp_path / "recipe.yaml")
    assert (status, out) == (1, "")
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("place", ["nowhere", "nowhere.yaml"])
def test_missing_source_is_one_line_of_error(tmp_path, capsys, place):
    status, out, errors = run(capsys, tmp_path / place)
    assert (status, out, len(errors.splitlines())) == (1, "", 1)
    assert place in errors


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data", "recipe.yaml"],
        ["data", "--workers", "-1"],
        ["data", "--limit", "0"],
        ["data", "--max-ratio", "wide"],
        ["data", "--nothing"],
    ],
)
def test_misuse(words, capsys):
    assert main(["audit", *words]) == 2
    assert "Usage: svtrv2" in capsys.readouterr().err


def test_interrupted_audit_reports_the_samples_read(monkeypatch, tmp_path, capsys):
    samples = [Sample(SQUARE, "abc", str(number)) for number in range(4)]
    sources = {"first": samples, "second": [*samples, KeyboardInterrupt(), *samples], "third": samples}
    monkeypatch.setattr(svtrv2_hf.data.audit, "SAMPLES_PER_REPORT", 3)
    monkeypatch.setattr(svtrv2_hf.training.audit, "open_source", lambda name, split: ListSource(sources[name], name))
    status, out, _ = run(capsys, *sources, "--output", tmp_path / "out")
    assert status == 130
    assert "No samples of third were read." in out
    content = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert [source["samples"] for source in content["sources"]] == [4, 3]


def test_sources_after_a_failing_one_are_audited(monkeypatch, tmp_path, capsys):
    sources = {"broken": [ValueError("data.mdb ends too early")], "good": [Sample(SQUARE, "abc", "0")]}
    monkeypatch.setattr(svtrv2_hf.training.audit, "open_source", lambda name, split: ListSource(sources[name], name))
    status, out, errors = run(capsys, *sources, "--output", tmp_path / "out")
    assert status == 1
    assert "Not read completely: data.mdb ends too early" in out and "data.mdb ends too early" in errors
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "audit.json",
        "audit.md",
        "audit.png",
        "augmentation.png",
    }


@pytest.mark.parametrize(
    ("label", "remarks"),
    [
        ("caf\u00e9 & \u00a310 \u4e2d\u6587", ""),
        ("\\beta C:\\dir 100\\%", ""),
        ("R&D; AT&T", ""),
        ("\u4e2d\uff0c\u6587\u3002", ""),
        ("cafe\u0301", "decomposed"),
        ("\uff21\uff22", "compatible"),
        ("\ufb01x", "compatible"),
        ("a\rb", "control"),
        ("a\r", "control padded"),
        ("\ufeffa", "invisible"),
        ("a\u200bb", "invisible"),
        ("\u202eabc", "invisible"),
        (" a", "padded"),
        ("a\u00a0b", "space"),
        ("a\\nb", "escape"),
        ("caf\\u00e9", "escape"),
        ("a &amp; b", "entity"),
        ("&#39;a", "entity"),
    ],
)
def test_unusual_labels_are_reported(label, remarks):
    charset = "".join(sorted(set(label)))
    report = report_on([(WIDE, label), (WIDE, "plain")], charset=f"plain{charset}", max_length=99)
    content = report.to_dict()
    assert sorted(content["remarks"]) == remarks.split()
    assert content["padded"] == ("padded" in remarks)
    assert report.usable == 2, "not a problem"
    sentences = advise(report)
    assert len(sentences) == len(remarks.split())
    shown = ascii(label) if remarks == "decomposed" else repr(label)
    assert all(f"1 sample, such as {shown} (number 0)" in sentence for sentence in sentences)
    assert all(row == {"samples": 1, "labels": [["number 0", label]]} for row in content["remarks"].values())


def test_labels_are_judged_after_normalization(tmp_path, capsys):
    (tmp_path / "charset.txt").write_text("c\na\nf\n\u00e9\n1\n", encoding="utf-8")
    (tmp_path / "0.png").write_bytes(WIDE)
    (tmp_path / "labels.tsv").write_text("0.png\tcafe\u0301\n0.png\t\uff11\n", encoding="utf-8")
    usable = {}
    for form in ("none", "nfc", "nfkc"):
        options = ("--charset", tmp_path / "charset.txt", "--normalize", form, "--output", tmp_path / form)
        _, out, _ = run(capsys, tmp_path, *options)
        content = json.loads((tmp_path / form / "audit.json").read_text())
        assert content["normalize"] == form
        usable[form] = content["total"]["usable"]
        assert "--normalize nfc composes" in out
    assert usable == {"none": 0, "nfc": 1, "nfkc": 2}


def test_unknown_arguments_of_a_recipe_raise(good, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: nano\ntrain_data: {good}\nmax_label_lenght: 3\n", encoding="utf-8")
    for command in ("audit", "train"):
        assert main([command, str(recipe)]) == 1
        assert "unknown arguments: max_label_lenght. Did you mean max_label_length?" in capsys.readouterr().err
