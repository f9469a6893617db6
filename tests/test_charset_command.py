"""`svtrv2 charset`."""

import io
import sys

import pytest
from conftest import make_folder, write_rows

from svtrv2_hf.charsets import format_charset, read_charset
from svtrv2_hf.cli import main


@pytest.fixture
def listing(tmp_path):
    """Return a function that writes a dataset of labels; all of them have the same image."""

    def write(name, *labels):
        folder = make_folder(tmp_path / name, ["x"])
        write_rows(folder / "metadata.jsonl", [("0.png", label) for label in labels])
        (folder / "labels.tsv").unlink()
        return folder

    return write


def charset(capsys, *words):
    status = main(["charset", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_output_is_the_sorted_charset_of_all_sources(listing, tmp_path, capsys):
    first, second = listing("first", "b a", "\u4eac1", ""), listing("second", "a", "\u00e9")
    status, out, errors = charset(capsys, first, second)
    assert (status, out) == (0, " \n1\na\nb\n\u00e9\n\u4eac\n")
    (tmp_path / "charset.txt").write_text(out, encoding="utf-8")
    assert read_charset(tmp_path / "charset.txt") == list(" 1ab\u00e9\u4eac")
    assert "6 characters in 5 labels, 1 of them empty." in errors


def test_rarest_characters_are_reported(listing, capsys):
    _, _, errors = charset(capsys, listing("data", "aab", "aab", "c" * 9, "defghijklmn" * 2, "\u00e9"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in errors.splitlines() if line.startswith("|")]
    assert rows[0] == ["character", "code point", "name", "count"]
    assert rows[2] == ["\u00e9", "U+00E9", "LATIN SMALL LETTER E WITH ACUTE", "1"]
    assert [row[0] for row in rows[3:]] == list("bdefghijk"), "ten rows, the rarest first"


def test_labels_are_normalized(listing, capsys):
    folder = listing("data", "e\u0301", "\uff21")
    _, out, errors = charset(capsys, folder)
    assert out == "e\n\u0301\n\uff21\n"
    assert "1 label not in Unicode's NFC" in errors and "--normalize nfc" in errors
    _, out, errors = charset(capsys, folder, "--normalize", "nfkc")
    assert out == "A\n\u00e9\n"
    assert "NFC" not in errors


def test_characters_that_a_file_cannot_contain_are_reported(listing, capsys):
    _, out, errors = charset(capsys, listing("data", "a\rb", "a\nb"))
    assert out == "a\nb\n"
    assert "Not written, because a charset file cannot contain them: U+000A (1), U+000D (1)." in errors
    with pytest.raises(ValueError, match=r"A charset file cannot contain U\+000A"):
        format_charset("a\n")


def test_errors_are_one_sentence(listing, tmp_path, capsys):
    status, out, errors = charset(capsys, tmp_path / "nowhere")
    assert (status, out) == (1, "") and "No such file or folder" in errors
    status, out, errors = charset(capsys, listing("data", "", ""))
    assert (status, out) == (1, "") and "have no characters" in errors


def test_output_is_utf8_on_any_terminal(listing, monkeypatch):
    buffer = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="ascii"))
    assert main(["charset", str(listing("data", "\u4eac"))]) == 0
    sys.stdout.flush()
    assert buffer.getvalue() == "\u4eac\n".encode()
