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
    """Saved, and loaded by transformers only."""
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer(PRINTABLE).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_english_94_is_the_printable_ascii_in_order():
    assert len(ENGLISH_94) == 94
    assert ENGLISH_94.startswith("0123456789abc")
    assert ENGLISH_94.endswith("{|}~")
    assert sorted(ENGLISH_94) == [chr(code) for code in range(33, 127)]


def test_ids_follow_the_charset(tokenizer):
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
def test_special_tokens_in_labels_are_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert 0 not in tokenizer(text)["input_ids"]


def test_each_character_outside_the_charset_is_unknown(tokenizer):
    assert tokenizer("aé中")["input_ids"] == [11, 96, 96]


@pytest.mark.parametrize(
    ("charset", "message"),
    [
        ("", "empty"),
        (["a", "bc"], r"'bc' \(entry 1 of the charset\) is not a single character: U\+0062 U\+0063\.$"),
        (["a", ""], r"entry 1 of the charset\) is not a single character\.$"),
        (["a", "e\u0301"], r"entry 1 .*: U\+0065 U\+0301\. Use the single character U\+00E9"),
        (["x\u0301"], r"U\+0078 U\+0301\.$"),
        (["abcdefghij"], r"U\+0068 \.\.\. \(10 characters\)"),
        ("abca", r"'a' \(U\+0061\) is repeated: entry 0 of the charset and entry 3 of"),
    ],
)
def test_invalid_charset_raises(charset, message):
    with pytest.raises(ValueError, match=message):
        build_tokenizer(charset)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_file_has_one_character_per_line(tmp_path, ending, last):
    characters = ["a", "中", " ", "\u3000", "\x85", "|"]
    text = ending.join(characters) + (ending if last else "")
    path = tmp_path / "charset.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_charset(path) == characters


def test_dictionaries_of_paddleocr_are_read(tmp_path):
    path = tmp_path / "keys.txt"
    path.write_bytes(b"\xef\xbb\xbf0\t\r\na \n \r\n\r\n\n\t\nb \t\n\n\n")
    assert read_charset(path) == ["0", "a", " ", "\t", "b"]


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        ("a\nbc\n", "none", r"'bc' \(line 2 of .*charset\.txt\) is not a single"),
        ("a\nb\na \n", "none", r"'a' \(U\+0061\) is repeated: line 1 of .*charset\.txt and line 3 of"),
        ("e\u0301\n\u00e9\n", "nfc", r"U\+00E9\) is repeated: line 1 of .*charset\.txt in nfc and line 2"),
        (
            "A\n\uff21\n",
            "nfkc",
            r"'A' \(U\+0041\) is repeated: line 1 of .*charset\.txt and line 2 of .*charset\.txt in nfkc\.",
        ),
        ("\ufb01\n", "nfkc", r"'fi' \(line 1 of .* in nfkc\) is not a single character: U\+0066 U\+0069"),
        ("\n", "none", "is empty"),
    ],
)
def test_invalid_file_raises(tmp_path, content, form, message):
    path = tmp_path / "charset.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_charset(path, form)


def test_file_that_is_not_utf8_raises(tmp_path):
    (tmp_path / "charset.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(ValueError, match=r"charset\.txt is not UTF-8"):
        read_charset(tmp_path / "charset.txt")


def test_entries_are_normalized(tmp_path):
    path = tmp_path / "charset.txt"
    path.write_text("a\ne\u0301\n", encoding="utf-8")
    assert read_charset(path, "nfc") == ["a", "\u00e9"]
    with pytest.raises(ValueError, match="normalize='nfd' must be one of none, nfc, nfkc"):
        read_charset(path, "nfd")
