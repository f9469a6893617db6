"""The program `svtrv2`, and its command `read`."""

import io
import json
import os
import shutil
import subprocess
import sys
from typing import get_args

import pytest
from conftest import draw

import svtrv2_hf
from svtrv2_hf.charsets import Normalization
from svtrv2_hf.cli import app, main
from svtrv2_hf.commands import options
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.console import printable
from svtrv2_hf.data.labels import UnknownCharacters
from svtrv2_hf.training.arguments import parse_arguments


COMMANDS = [command.callback.__name__ for command in app.registered_commands]
PROGRAM = shutil.which("svtrv2", path=str(sys.prefix) + "/bin")


@pytest.fixture
def folder(tmp_path):
    """Images at two depths, and another file."""
    root = tmp_path / "crops"
    (root / "more").mkdir(parents=True)
    draw("one").save(root / "one.png")
    draw("two").save(root / "more" / "two.JPG")
    draw("three").save(root / "more" / "three.webp")
    (root / "notes.txt").write_text("not an image")
    return root


def read(capsys, *words):
    status = main(["read", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


# The program


def test_help_imports_no_heavy_module():
    done = subprocess.run([sys.executable, "-X", "importtime", PROGRAM, "--help"], capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert (done.returncode, "evaluate" in done.stdout, "typer" in imported) == (0, True, True)
    assert imported.isdisjoint({"torch", "transformers", "numpy", "PIL", "datasets", "tokenizers"})


def test_import_registers_the_package_without_optional_packages(tmp_path):
    code = """
import sys
import svtrv2_hf, svtrv2_hf.sources
assert sys.modules.keys().isdisjoint({"lmdb", "datasets", "pyarrow"})
from transformers import AutoConfig
from transformers.pipelines import PIPELINE_REGISTRY

AutoConfig.for_model("svtrv2")
PIPELINE_REGISTRY.check_task("text-recognition")
assert set(svtrv2_hf.__all__) <= set(dir(svtrv2_hf))
assert all(hasattr(svtrv2_hf, name) for name in svtrv2_hf.__all__)
"""
    script = tmp_path / "svtrv2.py"  # a script, not the program
    script.write_text(code)
    subprocess.run([sys.executable, script], check=True)


def test_unknown_attribute_of_the_package_raises():
    with pytest.raises(AttributeError, match="no attribute 'SVTR'"):
        _ = svtrv2_hf.SVTR


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command, capsys):
    assert main([command, "--help"]) == 0
    assert "usage: " in capsys.readouterr().out.lower()


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"svtrv2-hf {svtrv2_hf.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Recognize text in images"),
        (["draw"], "No such command 'draw'"),
        (["read"], "Specify either images (PATH) or a dataset (--input)"),
        (["read", "x.png", "--max-ratio", "wide"], "'wide' is not a positive integer or auto"),
        (["read", "x.png", "--max-ratio", "0"], "'0' is not a positive integer or auto"),
        (["read", "x.png", "--max_ratio", "4"], "No such option: --max_ratio"),
        (["evaluate", "--protocol", "chinese"], "not one of 'exact', 'case_insensitive', 'alphanumeric', 'no_spaces'"),
        (["convert", "best.pth"], "Missing option '--output'"),
    ],
)
def test_invalid_usage_exits_with_status_2(words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_choices_agree_with_the_modules_that_define_them():
    assert options.Normalization == Normalization
    assert options.UnknownCharacters == UnknownCharacters
    assert get_args(options.Size) == tuple(PRESETS)


def test_train_accepts_options_with_dashes(tmp_path):
    common = ["--train_data", "x", "--use_cpu", "True", "--output_dir", str(tmp_path)]
    _, arguments = parse_arguments([*common, "--max-steps", "7", "--learning-rate=0.5"])
    assert (arguments.max_steps, arguments.learning_rate) == (7, 0.5)


def test_earlier_protocol_name_is_an_error_with_the_current_names():
    with pytest.raises(ValueError, match=r"^--protocol: invalid choice: 'english'") as error:
        parse_arguments(["--train_data", "x", "--protocol", "english"])
    assert all(name in str(error.value) for name in ("exact", "case_insensitive", "alphanumeric", "no_spaces"))


def test_arguments_of_train_reach_its_parser_unchanged(monkeypatch):
    received = []
    monkeypatch.setattr("svtrv2_hf.training.train.main", received.append)
    words = ["recipe.yaml", "--train_data", "a", "b", "--max-steps=3", "-x", "--use_cpu", "c"]
    assert main(["train", *words]) == 0
    assert received == [words]


# svtrv2 read


def test_folder_is_read_recursively(saved, folder, capsys):
    status, lines, _ = read(capsys, folder, "--model", saved)
    assert status == 0
    columns = [line.split("\t") for line in lines]
    assert [path for path, _, _ in columns] == [
        str(folder / "more" / "three.webp"),
        str(folder / "more" / "two.JPG"),
        str(folder / "one.png"),
    ]
    assert all(0 <= float(score) <= 1 for _, _, score in columns)


def test_files_and_patterns(saved, folder, capsys):
    status, lines, _ = read(capsys, folder / "one.png", folder / "**" / "t*", "--model", saved, "--batch-size", "2")
    assert status == 0
    names = [line.split("\t")[0].rsplit("/", 1)[1] for line in lines]
    assert names == ["one.png", "three.webp", "two.JPG"]


def test_json_contains_path_and_characters(saved, folder, capsys):
    status, lines, _ = read(capsys, folder / "one.png", "--model", saved, "--json", "--characters")
    assert status == 0
    result = json.loads(lines[0])
    assert result["path"] == str(folder / "one.png")
    assert "".join(character["text"] for character in result["characters"]) == result["text"]


def test_characters_are_printed_below_their_text(saved, folder, capsys):
    _, lines, _ = read(capsys, folder / "one.png", "--model", saved, "--characters")
    text = lines[0].split("\t")[1]
    assert [line.split("\t")[1] for line in lines[1:]] == list(text)
    assert all(line.startswith("\t") and ".." in line for line in lines[1:])


def test_unreadable_files_are_reported_and_the_others_read(saved, folder, capsys):
    (folder / "broken.png").write_bytes(b"not an image")
    (folder / "empty.png").touch()
    status, lines, errors = read(capsys, folder, folder / "missing.png", "--model", saved)
    assert status == 1
    assert len(lines) == 3
    for name in ("broken.png", "empty.png", "missing.png"):
        assert any(f"{name}': " in line for line in errors.splitlines()), name
    assert "3 of 6 files could not be read." in errors


def test_errors_in_json(saved, folder, capsys):
    (folder / "broken.png").write_bytes(b"")
    status, lines, _ = read(capsys, folder, "--model", saved, "--json")
    assert status == 1
    results = [json.loads(line) for line in lines]
    assert [("error" in result) for result in results] == [True, False, False, False]


@pytest.mark.parametrize(("path", "message"), [("empty", "No images in the folder"), ("*.nothing", "No file matches")])
def test_place_without_images_is_an_error(saved, tmp_path, capsys, path, message):
    (tmp_path / "empty").mkdir()
    status, lines, errors = read(capsys, tmp_path / path, "--model", saved)
    assert (status, lines) == (1, [])
    assert message in errors


def test_places_without_images_do_not_prevent_reading_others(saved, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (folder / "scan.h5").write_bytes(b"not an image")
    (folder / "phone.HEIC").write_bytes(b"a photograph")
    (folder / "figure.eps").write_bytes(b"a program")
    places = (tmp_path / "empty", tmp_path / "*.nothing", folder)
    status, lines, errors = read(capsys, *places, "--model", saved, "--max-ratio", "40")
    assert (status, len(lines)) == (1, 3)
    assert "No images in the folder" in errors and "No file matches" in errors
    assert "2 images in" in errors and "figure.eps" in errors
    assert "scan.h5" not in errors


@pytest.mark.parametrize("name", ["./nothing", "nothing", "nothing/", "a/b/c"])
def test_model_that_is_neither_folder_nor_hub_id_is_an_error(folder, capsys, name):
    status, lines, errors = read(capsys, folder, "--model", name)
    assert (status, lines) == (1, [])
    assert errors.startswith("svtrv2: ") and f"Folder not found: {name}" in errors and len(errors.splitlines()) == 1


def test_model_without_its_processor_is_an_error(saved, folder, tmp_path, capsys):
    shutil.copytree(saved, tmp_path / "incomplete")
    (tmp_path / "incomplete" / "processor_config.json").unlink()
    assert main(["read", str(folder), "--model", str(tmp_path / "incomplete")]) == 1
    assert "has no processor_config.json" in capsys.readouterr().err


def test_program_prints_results_to_stdout(saved, folder):
    (folder / "one.png").rename(folder / "\u8f66\t.png")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [PROGRAM, "read", folder, "--model", saved]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [line.count("\t") for line in done.stdout.splitlines()] == [2, 2, 2]


def test_json_has_characters_that_the_terminal_cannot_show(saved, folder, monkeypatch):
    (folder / "one.png").rename(folder / "\u8f66\t.png")
    with io.TextIOWrapper(output := io.BytesIO(), encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(["read", str(folder), "--model", str(saved), "--json"]) == 0
        stream.flush()
        lines = output.getvalue().splitlines()
    assert "\u8f66\t.png" in {json.loads(line)["path"].rsplit("/", 1)[-1] for line in lines}


def test_closed_pipe_is_not_reported(saved, folder):
    command = f"'{PROGRAM}' read '{folder}' --model '{saved}' | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr


def test_special_files_are_skipped_with_a_message(saved, folder, capsys):
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    status, lines, errors = read(capsys, folder, "--model", saved)
    assert (status, len(lines)) == (1, 3)
    assert "pipe.png is not a regular file" in errors and "gone.png is a broken link" in errors
    status, lines, errors = read(capsys, folder / "*.png", folder / "pipe.png", "--model", saved)
    assert (status, len(lines)) == (1, 1)
    assert errors.count("pipe.png': ") == 2


def test_impossible_paths_are_reported(saved, folder, capsys):
    long = "x" * 5000
    status, lines, errors = read(capsys, "", long, f"{long}*", "file:///etc/hostname", folder, "--model", saved)
    assert (status, len(lines)) == (1, 3)
    assert "A path is empty" in errors and "too long" in errors and "file://" in errors


def test_control_characters_do_not_reach_the_terminal(saved, folder, capsys):
    name = "a\x1b[31m\r\n\u202e\x9b.png"
    (folder / "one.png").rename(folder / name)
    (folder / "b\x1b[2J.png").write_bytes(b"not an image")
    status, lines, errors = read(capsys, folder, folder / "c\x1b.png", "--model", saved)
    assert status == 1 and len(lines) == 3
    assert any("a\\u001b[31m\\u000d\\u000a\\u202e\\u009b.png\t" in line for line in lines)
    assert not set("\x1b\r\u202e\x9b") & set("".join(lines) + errors)
    _, lines, _ = read(capsys, folder / name, "--model", saved, "--json")
    assert json.loads(lines[0])["path"] == str(folder / name)
    assert not set("\x1b\r\u202e\x9b") & set(lines[0])


def test_lines_that_exceed_max_ratio_are_counted(saved, tmp_path, capsys):
    draw("a", width=1500, height=30).save(tmp_path / "line.png")
    status, lines, errors = read(capsys, tmp_path / "line.png", "--model", saved)
    assert (status, len(lines)) == (0, 1)
    assert "1 of 1 images are wider than 12 times their height" in errors and "--max-ratio auto" in errors
    status, _, errors = read(capsys, tmp_path / "line.png", "--model", saved, "--max-ratio", "auto")
    assert status == 0 and "wider" not in errors


def test_characters_that_change_the_direction_of_text_are_escaped():
    assert printable("a\u061c\u200e\u200f\u202e\u2066b") == "a\\u061c\\u200e\\u200f\\u202e\\u2066b"
    assert printable("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"  # a joiner is part of the word
