"""Word accuracy, character error rate and edit similarity, also against the reference's scores."""

import json
import math
from typing import get_args

import pytest
from conftest import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from svtrv2_hf.evaluation.metrics import Score, compare, rounded
from svtrv2_hf.evaluation.protocols import PROTOCOLS, EvaluationProtocol, length_as_published, normalize_text


ASCII_PAIRS = st.lists(st.tuples(*[st.text("aAbB1 .-", max_size=4)] * 2), min_size=1, max_size=6)
PAIRS = st.lists(st.tuples(*[st.text("aA\u00e9e\u0301\u4eac\u0130\u03a3 .", max_size=4)] * 2), min_size=1, max_size=6)


@pytest.mark.parametrize("protocol", ["alphanumeric", "no_spaces"])
def test_agrees_with_the_reference(protocol):
    data = json.loads((GOLDEN / "metrics.json").read_text())
    predictions, labels = zip(*data["pairs_prediction_reference"], strict=True)
    score = compare(predictions, labels, protocol)
    number = len(predictions)
    expected = data[protocol]
    # the reference divides by the number plus 1e-5
    assert score.word_accuracy * number / (number + 1e-5) == pytest.approx(expected["acc"], abs=1e-9)
    distance = (1 - score.one_minus_ned) * number / (number + 1e-5)
    assert 1 - distance == pytest.approx(expected["norm_edit_dis"], abs=1e-9)


@pytest.mark.parametrize(
    ("text", "exact", "case_insensitive", "alphanumeric", "no_spaces"),
    [
        ("Don't, 4 U!", "Don't, 4 U!", "don't, 4 u!", "dont4u", "don't,4u!"),
        ("Stra\u00dfe 4", "Stra\u00dfe 4", "stra\u00dfe 4", "strae4", "stra\u00dfe4"),
        ("E\u0301 \u00c9", "E\u0301 \u00c9", "e\u0301 \u00e9", "e", "e\u0301\u00e9"),  # not normalized to NFC
        ("a\u00a0b\tc", "a\u00a0b\tc", "a\u00a0b\tc", "abc", "a\u00a0b\tc"),  # only the ASCII space is a space
        ("", "", "", "", ""),
    ],
)
def test_normalized_texts(text, exact, case_insensitive, alphanumeric, no_spaces):
    expected = {
        "exact": exact,
        "case_insensitive": case_insensitive,
        "alphanumeric": alphanumeric,
        "no_spaces": no_spaces,
    }
    assert {protocol: normalize_text(text, protocol) for protocol in PROTOCOLS} == expected


def test_protocols_have_one_definition():
    assert tuple(PROTOCOLS) == get_args(EvaluationProtocol)


@pytest.mark.parametrize("name", ["english", "chinese", "french"])
def test_unknown_protocol_raises(name):
    message = f"Unknown protocol '{name}': choose exact, case_insensitive, alphanumeric or no_spaces\\."
    for function in (lambda: normalize_text("a", name), lambda: compare(["a"], ["a"], name)):
        with pytest.raises(ValueError, match=message):
            function()


def test_punctuation_matters_by_default():
    assert compare(["1250", "no 4711 b", "EXIT"], ["$12.50", "No. 4711-B", "exit!"]).correct == 0
    assert compare(["1250", "no 4711 b", "EXIT"], ["$12.50", "No. 4711-B", "exit!"], "alphanumeric").correct == 3


@pytest.mark.parametrize(
    ("prediction", "label", "protocol", "edits", "characters"),
    [
        ("alo", "allo", "exact", 1, 4),  # doubled letter
        ("allo", "alo", "exact", 1, 3),
        ("", "abc", "exact", 3, 3),  # empty prediction
        ("abc", "", "exact", 3, 0),  # empty label
        ("Ab-1", "ab 1", "exact", 2, 4),
        ("Ab-1", "ab 1", "case_insensitive", 1, 4),
        ("Ab-1", "ab 1", "alphanumeric", 0, 3),
        ("Ab-1", "ab 1", "no_spaces", 1, 3),
        ("e\u0301", "\u00e9", "exact", 2, 1),  # a combining mark is a character
        ("e", "e\u0301", "exact", 1, 2),
        ("e", "e\u0301", "alphanumeric", 0, 1),
        ("\u4eac", "\u6caa", "alphanumeric", 0, 0),
    ],
)
def test_edits_and_characters(prediction, label, protocol, edits, characters):
    score = compare([prediction], [label], protocol)
    assert (score.edits, score.characters) == (edits, characters)
    assert score.cer == pytest.approx(edits / characters if characters else math.nan, nan_ok=True)
    assert score.correct == (edits == 0)


def test_character_error_rate_is_that_of_all_characters_together():
    """Not the mean over the samples; long predictions make it exceed 1, and count although their label is empty."""
    score = compare(["a", "abcdefghij"], ["b", "abcdefghij"])
    assert score.cer == 1 / 11
    assert compare(["abcd", "x"], ["z", ""]).cer == 5


@given(PAIRS, st.sampled_from(get_args(EvaluationProtocol)), st.integers(0, 6))
def test_scores_of_parts_add_up(pairs, protocol, middle):
    scores = [compare(*zip(*part, strict=True), protocol) if part else Score() for part in
              (pairs, pairs[:middle], pairs[middle:])]  # fmt: skip
    whole, parts = scores[0], scores[1] + scores[2]
    assert whole.similarity == pytest.approx(parts.similarity)
    whole.similarity = parts.similarity = 0
    assert whole == parts


@given(PAIRS, st.sampled_from(get_args(EvaluationProtocol)))
def test_error_rate_is_0_only_if_all_texts_match(pairs, protocol):
    score = compare(*zip(*pairs, strict=True), protocol)
    all_match = score.correct == score.samples
    assert (score.edits == 0) == all_match
    if score.characters:
        assert (score.cer == 0) == all_match
    assert (score.one_minus_ned == pytest.approx(1)) == all_match
    assert score.correct_in_case <= score.correct <= score.samples


@given(PAIRS)
def test_exact_match_is_the_strictest_protocol(pairs):
    correct = {protocol: compare(*zip(*pairs, strict=True), protocol).correct for protocol in PROTOCOLS}
    assert correct["exact"] == sum(prediction == label for prediction, label in pairs) == min(correct.values())


@given(ASCII_PAIRS)
def test_order_of_the_protocols_for_ascii(pairs):
    """Beyond ASCII, case may depend on the next letter (Greek sigma), so that ignoring a space may add an error."""
    correct = {protocol: compare(*zip(*pairs, strict=True), protocol).correct for protocol in PROTOCOLS}
    assert correct["exact"] <= correct["case_insensitive"] <= correct["no_spaces"] <= correct["alphanumeric"]


def test_scores_add_up():
    whole = compare(["ab", "cd", "ef"], ["ab", "ce", "xy"])
    assert whole == compare(["ab"], ["ab"]) + compare(["cd", "ef"], ["ce", "xy"])
    assert whole == Score(samples=3, correct=1, correct_in_case=1, similarity=1.5, edits=3, characters=6)
    assert (Score(loss=6.0, loss_samples=3) + Score(loss=2.0, loss_samples=1)).mean_loss == 2.0
    assert math.isnan(Score().word_accuracy)
    with pytest.raises(ValueError, match="zip"):
        compare(["a"], [])


def test_labels_without_compared_characters_are_counted():
    assert compare(["", "a"], ["\ud55c\uad6d", "a"], "alphanumeric").emptied == 1
    assert compare(["", "a"], ["\ud55c\uad6d", "a"]).emptied == 0


def test_accuracy_without_labels_that_have_no_compared_characters():
    score = compare(["", "?", "a", "ab", "x"], ["\ud55c", "!", "-", "ab", "y"], "alphanumeric")
    assert (score.emptied, score.emptied_correct, score.correct) == (3, 2, 3)
    assert (score.word_accuracy, score.word_accuracy_without_emptied) == (0.6, 0.5)
    assert math.isnan(compare([""], ["!"], "alphanumeric").word_accuracy_without_emptied)


@pytest.mark.parametrize(
    ("label", "alphanumeric", "no_spaces"),
    [
        ("two words", 8, 8),
        ("caf\u00e9!", 5, 5),
        ("\u4e2d\u6587A", 1, 3),
        ("\uff21\uff11", 2, 2),  # full-width
        (" \t", 0, 0),
        ("\u4e2d", 0, 1),
    ],
)
def test_label_lengths_are_counted_as_by_the_authors(label, alphanumeric, no_spaces):
    """They exclude labels of more than 25 characters; tools/data/ratio_dataset_tvresize_test.py of OpenOCR."""
    assert length_as_published(label, "alphanumeric") == alphanumeric
    assert length_as_published(label, "no_spaces") == no_spaces


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (1, 1),
        (0, 0),
        (399_999 / 400_000, 0.9999),
        (1 / 400_000, 0.0001),
        (0.99994, 0.9999),
        (0.12344, 0.1234),
        (1.00001, 1.0001),
        (2.5, 2.5),
    ],
)
def test_only_1_rounds_to_1_and_only_0_to_0(share, expected):
    assert rounded(share, 4) == expected
