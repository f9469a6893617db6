"""The command line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import draw

from svtrv2_hf.cli import main
from svtrv2_hf.console import printable


@pytest.fixture
def folder(tmp_path):
    """Images at two depths, and a file that is none."""
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


def test_a_folder(saved, folder, capsys):
    status, lines, _ = read(capsys, folder, "--model", saved)
    assert status == 0
    columns = [line.split("\t") for line in lines]
    assert [path for path, _, _ in columns] == [
        str(folder / "more" / "three.webp"),
        str(folder / "more" / "two.JPG"),
        str(folder / "one.png"),
    ]
    assert all(0 <= float(score) <= 1 for _, _, score in columns)


def test_files_and_globs(saved, folder, capsys):
    status, lines, _ = read(capsys, folder / "one.png", folder / "**" / "t*", "--model", saved, "--batch-size", "2")
    assert status == 0
    names = [line.split("\t")[0].rsplit("/", 1)[1] for line in lines]
    assert names == ["one.png", "three.webp", "two.JPG"]


def test_json(saved, folder, capsys):
    status, lines, _ = read(capsys, folder / "one.png", "--model", saved, "--json", "--characters")
    assert status == 0
    result = json.loads(lines[0])
    assert result["path"] == str(folder / "one.png")
    assert "".join(character["text"] for character in result["characters"]) == result["generated_text"]


def test_characters(saved, folder, capsys):
    _, lines, _ = read(capsys, folder / "one.png", "--model", saved, "--characters")
    text = lines[0].split("\t")[1]
    assert [line.split("\t")[1] for line in lines[1:]] == list(text)
    assert all(line.startswith("\t") and ".." in line for line in lines[1:])


def test_failures_are_told_and_the_rest_is_read(saved, folder, capsys):
    (folder / "broken.png").write_bytes(b"not an image")
    (folder / "empty.png").touch()
    status, lines, errors = read(capsys, folder, folder / "missing.png", "--model", saved)
    assert status == 1
    assert len(lines) == 3
    for name, reason in (("broken.png", "no image format"), ("empty.png", "empty"), ("missing.png", "no such file")):
        assert any(name in line and reason in line for line in errors.splitlines()), name
    assert "3 of 6 files could not be read." in errors


def test_failures_in_json(saved, folder, capsys):
    (folder / "broken.png").write_bytes(b"")
    status, lines, _ = read(capsys, folder, "--model", saved, "--json")
    assert status == 1
    results = [json.loads(line) for line in lines]
    assert [("error" in result) for result in results] == [True, False, False, False]


@pytest.mark.parametrize(("path", "message"), [("empty", "no image in the folder"), ("*.nothing", "No file matches")])
def test_nothing_to_read(saved, tmp_path, capsys, path, message):
    (tmp_path / "empty").mkdir()
    status, lines, errors = read(capsys, tmp_path / path, "--model", saved)
    assert (status, lines) == (1, [])
    assert message in errors


def test_no_such_model(folder, capsys):
    status, lines, errors = read(capsys, folder, "--model", folder / "nothing")
    assert (status, lines) == (1, [])
    assert "nothing" in errors


def test_as_a_program(saved, folder):
    """Readings on stdout, the progress bar on stderr."""
    program = shutil.which("svtrv2", path=str(sys.prefix) + "/bin")
    assert program, "the package installs the command svtrv2"
    done = subprocess.run([program, "read", str(folder), "--model", str(saved)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    told = capsys.readouterr().out
    assert all(command in told for command in ("read", "convert", "train"))


def test_one_bad_place_does_not_keep_the_others_from_being_read(saved, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (folder / "scan.h5").write_bytes(b"no picture")
    (folder / "phone.HEIC").write_bytes(b"a photograph")
    (folder / "figure.eps").write_bytes(b"a program")
    status, lines, errors = read(
        capsys, tmp_path / "empty", tmp_path / "*.nothing", folder, "--model", saved, "--max_ratio", "40"
    )
    assert (status, len(lines)) == (1, 3)
    assert "no image in the folder" in errors and "No file matches" in errors
    assert "2 images in" in errors and "figure.eps the first" in errors
    assert "scan.h5" not in errors


@pytest.mark.parametrize("name", ["./nothing", "nothing", "nothing/", "a/b/c"])
def test_a_model_that_can_be_neither_folder_nor_name(folder, capsys, name):
    assert main(["read", str(folder), "--model", name]) == 1
    assert f"Folder not found: {name}" in capsys.readouterr().err


def test_a_model_without_its_processor(saved, folder, tmp_path, capsys):
    shutil.copytree(saved, tmp_path / "model")
    (tmp_path / "model" / "processor_config.json").unlink()
    assert main(["read", str(folder), "--model", str(tmp_path / "model")]) == 1
    assert "has no processor_config.json" in capsys.readouterr().err


def test_what_the_terminal_cannot_show_ends_no_run(saved, folder):
    (folder / "one.png").rename(folder / "\u8f66\t.png")
    program = shutil.which("svtrv2", path=str(sys.prefix) + "/bin")
    command, environment = (
        [program, "read", str(folder), "--model", str(saved)],
        {**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [line.count("\t") for line in done.stdout.splitlines()] == [2, 2, 2]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment)
    assert "\u8f66\t.png" in {json.loads(line)["path"].rsplit("/", 1)[-1] for line in done.stdout.splitlines()}


def test_the_reader_of_the_output_may_leave(saved, folder):
    program = shutil.which("svtrv2", path=str(sys.prefix) + "/bin")
    command = f"'{program}' read '{folder}' --model '{saved}' | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Broken pipe" not in done.stderr and "Traceback" not in done.stderr


def test_what_is_not_a_regular_file_is_skipped_by_name(saved, folder, capsys):
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    status, lines, errors = read(capsys, folder, "--model", saved)
    assert (status, len(lines)) == (1, 3)
    assert "pipe.png is not a regular file" in errors and "gone.png is a link that leads nowhere" in errors
    status, lines, errors = read(capsys, folder / "*.png", folder / "pipe.png", "--model", saved)
    assert (status, len(lines)) == (1, 1)
    assert errors.count("pipe.png': it is not a regular file") == 2


def test_paths_that_cannot_be_do_not_end_the_command(saved, folder, capsys):
    long = "x" * 5000
    status, lines, errors = read(capsys, "", long, f"{long}*", "file:///etc/hostname", folder, "--model", saved)
    assert (status, len(lines)) == (1, 3)
    assert "A path is empty" in errors and "too long" in errors and "file:// are not supported" in errors


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


def test_squeezed_lines_are_counted(saved, tmp_path, capsys):
    draw("a", width=1500, height=30).save(tmp_path / "line.png")
    status, lines, errors = read(capsys, tmp_path / "line.png", "--model", saved)
    assert (status, len(lines)) == (0, 1)
    assert "1 of 1 images are wider than 12 times their height" in errors and "--max_ratio auto" in errors
    status, _, errors = read(capsys, tmp_path / "line.png", "--model", saved, "--max-ratio", "auto")
    assert status == 0 and "wider" not in errors


def test_marks_that_turn_the_direction_of_text_are_escaped():
    assert printable("a\u061c\u200e\u200f\u202e\u2066b") == "a\\u061c\\u200e\\u200f\\u202e\\u2066b"
    assert printable("\u0645\u06cc\u200c\u062e") == "\u0645\u06cc\u200c\u062e"  # a joiner is part of the word
