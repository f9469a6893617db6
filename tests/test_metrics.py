"""Word accuracy and edit similarity, against the reference's scores."""

import json
import math

import pytest
from conftest import GOLDEN

from svtrv2_hf.evaluation.metrics import Score, compare, normalize_text, usual_protocol


@pytest.mark.parametrize("protocol", ["english", "chinese"])
def test_agrees_with_the_reference(protocol):
    data = json.loads((GOLDEN / "metrics.json").read_text())
    readings, labels = zip(*data["pairs_prediction_reference"], strict=True)
    score = compare(readings, labels, protocol)
    number = len(readings)
    expected = data[f"{protocol}_protocol"]
    # the reference divides by the number plus 1e-5
    assert score.word_accuracy * number / (number + 1e-5) == pytest.approx(expected["acc"], abs=1e-9)
    distance = (1 - score.one_minus_ned) * number / (number + 1e-5)
    assert 1 - distance == pytest.approx(expected["norm_edit_dis"], abs=1e-9)


def test_what_counts():
    assert normalize_text("Don't, 4 U!", "english") == "dont4u"
    assert normalize_text("Straße 4", "english") == "strae4"
    assert normalize_text("Straße, 4", "chinese") == "straße,4"
    with pytest.raises(ValueError, match="no protocol 'french'"):
        normalize_text("a", "french")


def test_scores_add_up():
    whole = compare(["ab", "cd", "ef"], ["ab", "ce", "xy"])
    assert whole == compare(["ab"], ["ab"]) + compare(["cd", "ef"], ["ce", "xy"])
    assert whole == Score(samples=3, correct=1, correct_in_case=1, similarity=1.5)
    assert (Score(loss=6.0, loss_samples=3) + Score(loss=2.0, loss_samples=1)).mean_loss == 2.0
    assert math.isnan(Score().word_accuracy)
    with pytest.raises(ValueError, match="zip"):
        compare(["a"], [])


def test_labels_of_which_nothing_is_left_are_counted():
    assert compare(["", "a"], ["\ud55c\uad6d", "a"]).emptied == 1
    assert compare(["", "a"], ["\ud55c\uad6d", "a"], "chinese").emptied == 0


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
def test_the_usual_protocol_leaves_out_no_letters(charset, protocol):
    assert usual_protocol(charset) == protocol
