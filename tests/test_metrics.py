"""Word accuracy, against the reference's scores."""

import json

import pytest
from conftest import GOLDEN

from svtrv2_hf.evaluation.metrics import normalize_text, word_accuracy


@pytest.mark.parametrize("protocol", ["english", "chinese"])
def test_agrees_with_the_reference(protocol):
    data = json.loads((GOLDEN / "metrics.json").read_text())
    readings, labels = zip(*data["pairs_prediction_reference"], strict=True)
    number = len(readings)
    # the reference divides by the number plus 1e-5
    assert word_accuracy(readings, labels, protocol) * number / (number + 1e-5) == pytest.approx(
        data[f"{protocol}_protocol"]["acc"], abs=1e-9
    )


def test_what_counts():
    assert normalize_text("Don't, 4 U!", "english") == "dont4u"
    assert normalize_text("Straße 4", "english") == "strae4"
    assert normalize_text("Straße, 4", "chinese") == "straße,4"
    with pytest.raises(ValueError, match="no protocol 'french'"):
        normalize_text("a", "french")


def test_nothing_to_score():
    with pytest.raises(ValueError, match="no text"):
        word_accuracy([], [])
    with pytest.raises(ValueError, match="zip"):
        word_accuracy(["a"], [])
