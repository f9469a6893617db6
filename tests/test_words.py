"""The check for words that docs/style.md replaces."""

import runpy
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
CHECK = runpy.run_path(str(ROOT / "scripts" / "check_words.py"))


@pytest.fixture(scope="module")
def words():
    return CHECK["read_words"]((ROOT / "docs" / "style.md").read_text("utf-8"))


def test_style_guide_lists_words_to_avoid(words):
    assert len(words) > 20
    assert {"drawn", "nobody", "there is no"} <= set(words)  # words: ok


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a model\nNobody knows", [(2, "Nobody")]),  # words: ok
        ("samples_told = 1", [(1, "told")]),  # words: ok
        ("--leave_out, and there is no x", [(1, "leave_out"), (1, "there is no")]),  # words: ok
        ("families, withdrawn, retelling", []),
        ('key = "colour"  # words: ok', []),
    ],
)
def test_words_are_found_in_text_and_identifiers(words, text, found):
    assert CHECK["find_words"](text, words) == found
