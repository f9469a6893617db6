"""Charsets and their tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from svtrv2_hf import ENGLISH_94, build_tokenizer, read_charset
from svtrv2_hf.charsets import charset_of


PRINTABLE = ENGLISH_94 + " "


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """As users get it: saved, and loaded by transformers alone."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(PRINTABLE).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_english_94():
    assert len(ENGLISH_94) == 94
    assert ENGLISH_94.startswith("0123456789abc")
    assert ENGLISH_94.endswith("{|}~")
    assert sorted(ENGLISH_94) == [chr(code) for code in range(33, 127)]


def test_ids(tokenizer):
    assert tokenizer.pad_token_id == 0
    assert tokenizer.convert_tokens_to_ids(list(PRINTABLE)) == list(range(1, 96))
    assert tokenizer.unk_token_id == 96
    assert charset_of(tokenizer) == list(PRINTABLE)


@given(text=st.text(alphabet=PRINTABLE, max_size=40))
def test_encoding_and_decoding_are_inverse(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("text", ["<unk>", "<blank>", "a<blank>b", "hello", "  ", " a  b "])
def test_nothing_is_special_in_a_label(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert 0 not in tokenizer(text)["input_ids"]


def test_characters_outside_are_unknown_one_by_one(tokenizer):
    assert tokenizer("aé中")["input_ids"] == [11, 96, 96]


@pytest.mark.parametrize(
    ("charset", "message"),
    [
        ("", "empty"),
        (["a", "bc"], "Entry 1 of the charset, 'bc'"),
        (["a", ""], "Entry 1"),
        (["a", "e\u0301"], r"Entry 1 .*: it is U\+0065 U\+0301\. Write it as the one character U\+00E9"),
        (["x\u0301"], r"U\+0078 U\+0301\.$"),
        (["abcdefghij"], r"U\+0068 \.\.\. \(10 characters\)"),
        ("abca", r"'a' \(U\+0061\) twice: entries 0 and 3"),
    ],
)
def test_what_is_no_charset(charset, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(charset)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_reading_a_file(tmp_path, ending, last):
    characters = ["a", "中", " ", "\u3000", "\x85", "|"]
    text = ending.join(characters) + (ending if last else "")
    path = tmp_path / "charset.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_charset(path) == characters


def test_dictionaries_of_other_programs(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xef\xbb\xbf0\t\r\na \n \r\n\r\n\n\t\nb \t\n\n\n")
    assert read_charset(path) == ["0", "a", " ", "\t", "b"]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ("a\nbc\n", "none", r"charset\.txt, line 2: 'bc' is not a single"),
        ("a\nb\na \n", "none", r"charset\.txt, line 3: 'a' repeats 'a' \(U\+0061\) of line 1"),
        ("e\u0301\n\u00e9\n", "nfc", r"line 2: '\u00e9' repeats '\u00e9' \(U\+00E9\) of line 1"),
        ("A\n\uff21\n", "nfkc", r"line 2: '\uff21' repeats 'A'"),
        ("\ufb01\n", "nfkc", r"line 1: '\ufb01' normalized by nfkc is not a single character: it is U\+0066 U\+0069"),
        ("\n", "none", "is empty"),
    ],
)
def test_files_that_are_no_charset(tmp_path, content, form, message):
    path = tmp_path / "charset.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_charset(path, form)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(ValueError, match=r"charset\.txt is not UTF-8"):
        read_charset(path)


def test_a_charset_is_normalized(tmp_path):
    path = tmp_path / "charset.txt"
    path.write_text("a\ne\u0301\n", encoding="utf-8")
    assert read_charset(path, "nfc") == ["a", "\u00e9"]
    with pytest.raises(ValueError, match="normalize='nfd' must be one of none, nfc, nfkc"):
        read_charset(path, "nfd")
