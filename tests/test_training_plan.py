"""Defaults of fine-tuning and training from scratch, and the checks and the plan before the first step."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import CHARSET, ListSource, draw, encoded, make_folder, pairs, write_tar

from svtrv2_hf import SVTRv2ImageProcessor
from svtrv2_hf.charsets import PRINTABLE_ASCII, charset_of
from svtrv2_hf.cli import main as program
from svtrv2_hf.data.labels import LabelEncoder, Rejection, UnknownCharactersError
from svtrv2_hf.data.sample import Sample
from svtrv2_hf.training.arguments import FINE_TUNING, DataAndModelArguments, parse_arguments
from svtrv2_hf.training.model import model_and_processor
from svtrv2_hf.training.plan import number_of_steps
from svtrv2_hf.training.probe import check_labels
from svtrv2_hf.training.train import main


EMPTY, UNKNOWN, TOO_LONG, UNALIGNABLE, UNREADABLE = Rejection


# Arguments


def values(*words):
    """The values of the arguments whose defaults depend on the model."""
    chosen, arguments = parse_arguments(["--train_data", "x", *words])
    return {name: getattr(chosen if hasattr(chosen, name) else arguments, name) for name in FINE_TUNING}


@pytest.mark.parametrize("model", ["default", "output/plates", "someone/svtrv2"])
def test_checkpoints_have_the_defaults_of_fine_tuning(model):
    assert values("--model", model) == FINE_TUNING


def test_models_from_scratch_have_the_defaults_of_the_paper():
    expected = {"per_device_train_batch_size": 256, "learning_rate": 6.5e-4, "num_train_epochs": 20}
    assert values() == values("--model", "base") == {**expected, "min_steps": 0, "eval_steps": 500}


def test_recipe_and_command_line_override_the_defaults_of_fine_tuning(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: default\nlearning_rate: 2.0e-4\nper_device_train_batch_size: 256\n")
    _, arguments = parse_arguments([str(recipe), "--train_data", "x", "--learning-rate", "3e-4"])
    assert (arguments.learning_rate, arguments.per_device_train_batch_size) == (3e-4, 256)


def test_given_number_of_epochs_has_no_minimum_of_steps():
    assert values("--model", "default", "--num_train_epochs", "2")["min_steps"] == 0
    assert values("--model", "default", "--num_train_epochs", "2", "--min_steps", "9")["min_steps"] == 9


def test_documentation_states_both_defaults():
    guide = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `--(\w+)` \| ([\d.]+) \| ([\d.]+) \|$", guide, flags=re.MULTILINE)
    assert {name: float(value) for name, value, _ in rows} == FINE_TUNING
    assert {name: float(value) for name, _, value in rows} == values()


def test_help_states_both_defaults(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(default: {FINE_TUNING['per_device_train_batch_size']} for a checkpoint, 256 from scratch)" in shown
    assert f"(default: {FINE_TUNING['learning_rate']} for a checkpoint, 0.00065 from scratch)" in shown
    assert "checkpoints to resume from. (default: trainer_output)" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_step", "3"], r"--max_step is not an argument of svtrv2 train: did you mean --max_steps\?"),
        (["--leaning-rate=1e-3"], r"--leaning-rate is not .* did you mean --learning_rate\?"),
        (["--learning-rate", "fast"], r"--learning_rate: invalid float value: 'fast'\.$"),
        (["--charset"], r"--charset: expected one argument\.$"),
        (["--max_steps", "0"], r"--max_steps must be 1 or more, or -1 .*, not 0"),
        (["--max_label_length", "0"], "--max_label_length must be 1 or more, not 0"),
        (["--min_steps", "-1"], "--min_steps must be 0 or more, not -1"),
        (["--bf16", "False", "a.yaml"], r"A recipe must be the first argument: svtrv2 train a\.yaml"),
        (["--seed=3", "a.yml"], r"A recipe must be the first argument: svtrv2 train a\.yml"),
    ],
)
def test_invalid_arguments_raise(words, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        parse_arguments(["--train_data", "x", *words])


def test_missing_training_data_raise_without_the_usage(capsys):
    with pytest.raises(ValueError, match=r"^the following arguments are required: --train_data\.$"):
        parse_arguments([])
    assert not any(capsys.readouterr())


def test_default_charset_is_printable_ascii():
    chosen, _ = parse_arguments(["--train_data", "x", "--model", "nano"])
    model, processor = model_and_processor(chosen)
    assert "".join(charset_of(processor.tokenizer)) == PRINTABLE_ASCII
    assert model.config.vocab_size == 96


# Labels


def labels_of(source, policy="drop_sample", max_length=None):
    [check] = check_labels([source], LabelEncoder(CHARSET, max_length, policy), SVTRv2ImageProcessor())
    return check


def samples(*labels):
    """Samples of 64 x 64 pixels, which have 16 frames; an image that is `None` is damaged."""
    square = encoded(draw("x", 40, 40))
    return [Sample(square, text, f"{number}.png") for number, text in enumerate(labels)]


@pytest.mark.parametrize(
    ("label", "reason"),
    [("", EMPTY), ("\u00e9", UNKNOWN), ("a" * 8, None), ("a" * 9, UNALIGNABLE), ("abc" * 7, TOO_LONG)],
)
def test_each_rule_is_counted_with_its_first_sample(label, reason):
    check = labels_of(ListSource(samples("good", label, "good", label)), max_length=20)
    skipped = 0 if reason is None else 2
    assert (check.labels, check.usable) == (4, 4 - skipped)
    assert dict(check.skipped) == ({reason: 2} if reason else {})
    assert check.examples == ({reason: ("1.png", label)} if reason else {})


def test_damaged_images_are_counted():
    damaged = Sample(b"GIF8 not really", "good", "damaged.png")
    check = labels_of(ListSource([*samples("good"), damaged]))
    assert check.describe_skipped() == "1 unreadable (first: damaged.png, 'good')"


def test_labels_are_checked_as_training_uses_them():
    """Without unknown characters, if they are dropped: what remains may be empty, or fit its image."""
    check = labels_of(ListSource(samples("\u00e9", "ab" * 8 + "\u00e9", "x")), policy="drop_character")
    assert (check.usable, check.invalid, dict(check.skipped)) == (2, 2, {EMPTY: 1})


def test_samples_that_are_all_skipped_raise():
    with pytest.raises(
        ValueError, match=r"list: none of 2 samples can be trained on: 2 empty \(first: 0\.png, ''\)\."
    ):
        labels_of(ListSource(samples("", "")))


def test_error_about_characters_names_the_command_that_writes_a_charset():
    with pytest.raises(UnknownCharactersError, match=r"1 of 2 labels .*'\u00e9' \(1\).*`svtrv2 charset` writes"):
        labels_of(ListSource(samples("a", "\u00e9")), policy="error")


# Steps


def steps(in_epoch, epochs=20.0, batch_size=256, num_samples=9, **chosen):
    arguments = SimpleNamespace(
        num_train_epochs=epochs, per_device_train_batch_size=batch_size, world_size=1, gradient_accumulation_steps=1
    )
    data = DataAndModelArguments(train_data=["x"], **chosen)
    return number_of_steps(data, arguments, SimpleNamespace(num_samples=num_samples), in_epoch)


@pytest.mark.parametrize(
    ("in_epoch", "options", "expected"),
    [
        (9 / 16, {"epochs": 10, "min_steps": 600}, 600),  # nine images
        (100_000 / 16, {"epochs": 10, "min_steps": 600}, 62_500),
        (0.51, {"epochs": 200}, 102),
        (16, {"epochs": 0.5}, 8),  # few steps, but not because of large batches
    ],
)
def test_number_of_steps(in_epoch, options, expected):
    assert steps(in_epoch, **options) == expected


@pytest.mark.parametrize(
    ("in_epoch", "options", "message"),
    [
        (9 / 256, {}, "9 samples for 20 epochs are only 1 step of 256 images: lower --per_device_train_batch_size"),
        (800 / 256, {"num_samples": 800}, "800 samples for 20 epochs are only 63 steps of 256 images"),
        (9 / 16, {"epochs": 1, "batch_size": 16}, "9 samples for 1 epoch are only 1 step of 16 images"),
    ],
)
def test_few_steps_of_large_batches_raise(in_epoch, options, message):
    with pytest.raises(ValueError, match=f"^{message}.*--max_steps.*--model default"):
        steps(in_epoch, **options)


# The command


def run(*words):
    main(["--use_cpu", "True", "--disable_tqdm", "True", "--save_strategy", "no", *map(str, words)])


def test_nine_images_from_scratch_raise(tmp_path):
    folder = make_folder(tmp_path / "nine", list("123456789"))
    with pytest.raises(ValueError, match="9 samples for 20 epochs are only 1 step"):
        run("--model", "nano", "--train_data", folder, "--output_dir", tmp_path / "out")


def test_plan_is_printed_before_training(saved, tmp_path, capsys):
    folder = make_folder(tmp_path / "crops", ["12", "", "34", "5" * 21, "67", "89"])
    same = tmp_path / "same"
    shutil.copytree(folder, same)
    other = make_folder(tmp_path / "other", ["12", "", "34", "5" * 21, "67", "80"])
    run(
        "--model", saved, "--train_data", folder, "--eval_data", same, other, "--output_dir", tmp_path / "out",
        "--max_steps", "2", "--per_device_train_batch_size", "2", "--max_label_length", "20",
    )  # fmt: skip
    printed = capsys.readouterr().err
    rows = dict(
        [cell.strip() for cell in line.split("|")[1:3]] for line in printed.splitlines() if line.startswith("| ")
    )
    skipped = f"1 empty (first: {folder / '1.png'}, ''), 1 too long (first: {folder / '3.png'}, '{'5' * 21}')"
    assert rows["train: crops"] == f"6 samples, 4 usable; skipped: {skipped}"
    assert rows["eval: same"] == "6 samples, the same as crops: accuracy on training samples"
    assert rows["eval: other"] == "6 samples"
    assert rows["steps"] == "2 of 2 images, about 1 epoch"
    assert rows["evaluations"] == "2, every 1 step"
    assert rows["learning rate"] == f"{FINE_TUNING['learning_rate']} at its peak"
    assert rows["output folder"] == str(tmp_path / "out")
    assert printed.index("output folder") < printed.index("samples read"), "before training"
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["settings"] == {
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "learning_rate": FINE_TUNING["learning_rate"],
        "eval_steps": FINE_TUNING["eval_steps"],
    }
    assert len(record["evaluations"]) == 2


def test_plan_of_a_tar_without_a_number_of_samples(saved, tmp_path, capsys):
    samples = [(encoded(draw(label)), label) for label in ("12", "34", "")]
    tar = write_tar(tmp_path / "crops.tar", *pairs(samples))
    words = ("--model", saved, "--train_data", tar, "--output_dir", tmp_path / "out")
    with pytest.raises(ValueError, match=r"number of samples in crops is unknown.*--max_steps"):
        run(*words)
    run(*words, "--max_steps", "1", "--per_device_train_batch_size", "2")
    printed = capsys.readouterr().err
    assert "3 samples, 2 usable; skipped: 1 empty (first: sample 3, '')" in printed
    assert "| 1 of 2 images " in printed and "none without --eval_data" in printed


def test_stated_number_of_samples_is_checked(saved, tmp_path):
    tar = write_tar(tmp_path / "crops.tar", *pairs([(encoded(draw("1")), "1")] * 3))
    with pytest.raises(ValueError, match=r"has 3 samples, not 2: correct \?samples=NUMBER"):
        run("--model", saved, "--train_data", f"{tar}?samples=2", "--output_dir", tmp_path / "out")


@pytest.mark.parametrize("words", [["audit", "DATA"], ["train", "--train_data", "DATA"]])
def test_missing_charset_and_recipe_are_named(tmp_path, capsys, words):
    folder = make_folder(tmp_path / "crops", ["12"])
    words = [str(folder) if word == "DATA" else word for word in words]
    assert program([*words, "--charset", str(tmp_path / "missing.txt")]) == 1
    assert f"{tmp_path / 'missing.txt'}: No such file or directory." in capsys.readouterr().err
    assert program([words[0], str(tmp_path / "missing.yaml")]) == 1
    assert f"{tmp_path / 'missing.yaml'}: No such file or directory." in capsys.readouterr().err
