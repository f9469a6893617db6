"""Word accuracy and edit similarity, against the reference's scores."""

import json
import math

import pytest
from conftest import GOLDEN

from svtrv2_hf.evaluation.metrics import Score, compare, length_as_published, normalize_text, rounded, usual_protocol


@pytest.mark.parametrize("protocol", ["english", "chinese"])
def test_agrees_with_the_reference(protocol):
    data = json.loads((GOLDEN / "metrics.json").read_text())
    predictions, labels = zip(*data["pairs_prediction_reference"], strict=True)
    score = compare(predictions, labels, protocol)
    number = len(predictions)
    expected = data[f"{protocol}_protocol"]
    # the reference divides by the number plus 1e-5
    assert score.word_accuracy * number / (number + 1e-5) == pytest.approx(expected["acc"], abs=1e-9)
    distance = (1 - score.one_minus_ned) * number / (number + 1e-5)
    assert 1 - distance == pytest.approx(expected["norm_edit_dis"], abs=1e-9)


def test_normalized_texts():
    assert normalize_text("Don't, 4 U!", "english") == "dont4u"
    assert normalize_text("Straße 4", "english") == "strae4"
    assert normalize_text("Straße, 4", "chinese") == "straße,4"
    with pytest.raises(ValueError, match="Unknown protocol 'french'"):
        normalize_text("a", "french")


def test_scores_add_up():
    whole = compare(["ab", "cd", "ef"], ["ab", "ce", "xy"])
    assert whole == compare(["ab"], ["ab"]) + compare(["cd", "ef"], ["ce", "xy"])
    assert whole == Score(samples=3, correct=1, correct_in_case=1, similarity=1.5)
    assert (Score(loss=6.0, loss_samples=3) + Score(loss=2.0, loss_samples=1)).mean_loss == 2.0
    assert math.isnan(Score().word_accuracy)
    with pytest.raises(ValueError, match="zip"):
        compare(["a"], [])


def test_labels_without_compared_characters_are_counted():
    assert compare(["", "a"], ["\ud55c\uad6d", "a"]).emptied == 1
    assert compare(["", "a"], ["\ud55c\uad6d", "a"], "chinese").emptied == 0


def test_accuracy_without_labels_that_have_no_compared_characters():
    score = compare(["", "?", "a", "ab", "x"], ["\ud55c", "!", "-", "ab", "y"])
    assert (score.emptied, score.emptied_correct, score.correct) == (3, 2, 3)
    assert (score.word_accuracy, score.word_accuracy_without_emptied) == (0.6, 0.5)
    assert math.isnan(compare([""], ["!"]).word_accuracy_without_emptied)


@pytest.mark.parametrize(
    ("label", "english", "chinese"),
    [
        ("two words", 8, 8),
        ("caf\u00e9!", 5, 5),
        ("\u4e2d\u6587A", 1, 3),
        ("\uff21\uff11", 2, 2),  # full-width
        (" \t", 0, 0),
        ("\u4e2d", 0, 1),
    ],
)
def test_label_lengths_are_counted_as_by_the_authors(label, english, chinese):
    """They exclude labels of more than 25 characters; tools/data/ratio_dataset_tvresize_test.py of OpenOCR."""
    assert length_as_published(label, "english") == english
    assert length_as_published(label, "chinese") == chinese


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1, 1), (0, 0), (399_999 / 400_000, 0.9999), (1 / 400_000, 0.0001), (0.99994, 0.9999), (0.12344, 0.1234)],
)
def test_only_1_rounds_to_1_and_only_0_to_0(share, expected):
    assert rounded(share, 4) == expected


@pytest.mark.parametrize(
    ("charset", "protocol"),
    [
        ("abc012", "english"),
        ("a-!? ", "english"),
        ("ab\u00e9", "chinese"),
        ("\ud55c", "chinese"),
        ("\u0661", "chinese"),
    ],
)
def test_default_protocol_compares_all_letters_of_the_charset(charset, protocol):
    assert usual_protocol(charset) == protocol
