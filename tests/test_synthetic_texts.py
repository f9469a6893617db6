"""Text source: reproducible, within the charset, and of all kinds."""

import pickle
from collections import Counter

import pytest

from svtrv2_hf import ENGLISH_94
from svtrv2_hf.synthetic.texts import DATA, DEFAULT_WEIGHTS, TextSource


CHARSET = ENGLISH_94 + " "
FIRST_TEXTS = ["sdatoiommatlis", "onion", "IT IS EASY TO", "COMFORT", "Good", "Silences, Unpick", "[M20]", "ClAViCLE"]


@pytest.fixture(scope="module")
def source():
    return TextSource(CHARSET)


def only(kind, **options):
    return TextSource(CHARSET, weights={**dict.fromkeys(DEFAULT_WEIGHTS, 0), kind: 1}, **options)


def test_text_depends_only_on_seed_and_index(source):
    texts = source.texts(seed=3, start=100, count=50)
    assert [source.text(3, index) for index in reversed(range(100, 150))] == texts[::-1]
    assert TextSource(CHARSET).texts(3, 90, 60)[10:] == texts
    assert pickle.loads(pickle.dumps(source)).texts(3, 100, 50) == texts
    assert source.texts(4, 100, 50) != texts
    assert source.texts(0, (1 << 64) - 1, 1) != source.texts(1, (1 << 64) - 1, 1)


def test_texts_are_the_same_in_all_python_versions(source):
    assert source.texts(seed=0, start=0, count=8) == FIRST_TEXTS


def test_every_character_occurs(source):
    texts = source.texts(0, 0, 3000)
    counts = Counter("".join(texts))
    assert set(counts) == set(CHARSET)
    assert min(counts[character] for character in ENGLISH_94) >= 3


def test_lengths_and_spaces(source):
    texts = source.texts(1, 0, 5000)
    assert all(text and text == " ".join(text.split()) for text in texts)
    assert max(len(text) for text in texts if " " not in text) == 25
    assert max(len(text) for text in texts) > 55
    assert all(len(text) <= 60 for text in texts)
    short = TextSource(CHARSET, max_length=8, max_line_length=20).texts(1, 0, 2000)
    assert max(len(text) for text in short if " " not in text) == 8
    assert max(len(text) for text in short) == 20


def test_cases_are_mixed(source):
    words = [text for text in source.texts(2, 0, 5000) if text.isalpha()]
    assert 0.25 < sum(word.isupper() for word in words) / len(words) < 0.5
    assert sum(word.istitle() for word in words) > 500
    assert sum(word.islower() for word in words) > 500


def test_characters_outside_the_charset_are_converted_or_removed():
    for charset in (ENGLISH_94[:36], "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "λ字", "a"):
        texts = TextSource(charset).texts(0, 0, 300)
        assert set("".join(texts)) == set(charset)
        assert all(texts)
    words = TextSource(ENGLISH_94[:36], weights={**dict.fromkeys(DEFAULT_WEIGHTS, 0), "sign": 1}).texts(0, 0, 100)
    assert "sandwich" in words  # of "Sandwich Exit"


@pytest.mark.parametrize("kind", DEFAULT_WEIGHTS)
def test_each_kind_produces_many_texts(kind):
    texts = only(kind).texts(0, 0, 200)
    assert len(set(texts)) > 100
    assert set("".join(texts)) <= set(CHARSET)


def test_kinds_match_their_names():
    assert all(
        any(character.isdigit() for character in text)
        for kind in ("number", "price", "phone")
        for text in only(kind).texts(0, 0, 300)
    )
    assert sum(" " in text for text in only("line").texts(0, 0, 100)) == 100
    assert not any(
        " " in text for kind in ("common", "word", "pseudo", "random") for text in only(kind).texts(0, 0, 300)
    )
    common = Counter(text.lower() for text in only("common").texts(0, 0, 20000))
    assert common["the"] > 10 * common["clinical"] > 0


def test_custom_weights_and_words(tmp_path):
    (tmp_path / "words.txt").write_text("zyzzogeton\n\n" * 50_000, encoding="utf-8")
    texts = only("word", words=tmp_path / "words.txt").texts(0, 0, 200)
    assert 50 < sum("zyzzogeton" in text.lower() for text in texts) < 150
    no_lines = TextSource(CHARSET, weights={"line": 0, "phrase": 0}).texts(0, 0, 3000)
    assert sum(text.count(" ") > 4 for text in no_lines) == 0
    with pytest.raises(ValueError, match=r"Unknown kinds of text \['lines'\]; the kinds are \['common'"):
        TextSource(CHARSET, weights={"lines": 1})
    with pytest.raises(ValueError, match="not all 0"):
        TextSource(CHARSET, weights=dict.fromkeys(DEFAULT_WEIGHTS, 0))
    with pytest.raises(ValueError, match="0 or more"):
        TextSource(CHARSET, weights={"line": -1})
    with pytest.raises(ValueError, match="no visible characters"):
        TextSource(" ")
    with pytest.raises(FileNotFoundError, match=r"Word list .*absent\.txt"):
        TextSource(CHARSET, words=tmp_path / "absent.txt")


def test_lines_require_a_space_in_the_charset():
    with pytest.raises(ValueError, match="not all 0"):
        TextSource("abc", weights={**dict.fromkeys(DEFAULT_WEIGHTS, 0), "line": 1})
    assert all(" " in text for text in only("line", max_line_length=40).texts(5, 0, 50))


def test_word_lists_are_clean_and_their_origin_is_documented():
    lists = sorted(path.name for path in DATA.iterdir() if path.suffix in (".txt", ".tsv"))
    read_me = (DATA / "README.md").read_text(encoding="utf-8")
    for name in lists:
        text = (DATA / name).read_text(encoding="ascii")
        assert text.endswith("\n"), name
        if name != "SCOWL-COPYRIGHT.txt":
            entries = text.splitlines()
            assert len(set(entries)) == len(entries), name
            assert all(entry == entry.strip() != "" for entry in entries), name
            assert name in read_me or name.startswith("patterns"), name
    assert "Kevin Atkinson" in (DATA / "SCOWL-COPYRIGHT.txt").read_text(encoding="ascii")
    assert "https://creativecommons.org/licenses/by/3.0/" in read_me
