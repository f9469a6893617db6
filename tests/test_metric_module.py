"""The metric for the `evaluate` library, loaded like by its users."""

import sys
from pathlib import Path

import pytest

import svtrv2_hf
from svtrv2_hf.evaluation.metrics import compare


evaluate = pytest.importorskip("evaluate")
FOLDER = Path(svtrv2_hf.__file__).parent / "evaluation" / "text_recognition"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", cache / "modules")
        patch.setattr(evaluate.config, "HF_EVALUATE_CACHE", cache / "evaluate")
        patch.setattr(sys, "path", [*sys.path])  # loading adds to it
        yield evaluate.load(str(FOLDER), cache_dir=str(cache / "metrics"))


PREDICTIONS = ["Hello!", "wor1d", "a b-c", ""]
LABELS = ["hello", "world", "abC", "x"]


@pytest.mark.parametrize("protocol", ["exact", "case_insensitive", "alphanumeric", "no_spaces"])
def test_the_metric_equals_compare(metric, protocol):
    expected = compare(PREDICTIONS, LABELS, protocol)
    assert metric.compute(predictions=PREDICTIONS, references=LABELS, protocol=protocol) == {
        "word_accuracy": expected.word_accuracy,
        "cer": expected.cer,
        "one_minus_ned": expected.one_minus_ned,
        "case_sensitive_accuracy": expected.case_sensitive_accuracy,
        "samples": 4,
        "emptied": 0,
        "word_accuracy_without_emptied": expected.word_accuracy,
    }


def test_known_values(metric):
    assert metric.compute(predictions=PREDICTIONS, references=LABELS)["word_accuracy"] == 0  # exact by default
    result = metric.compute(predictions=PREDICTIONS, references=LABELS, protocol="alphanumeric")
    assert result == {
        "word_accuracy": 2 / 4,
        "cer": 2 / 14,
        "one_minus_ned": pytest.approx((1 + 4 / 5 + 1 + 0) / 4),
        "case_sensitive_accuracy": 0,
        "samples": 4,
        "emptied": 0,
        "word_accuracy_without_emptied": 2 / 4,
    }
    result = metric.compute(predictions=["Ab c.", "ab"], references=["Abc", "AB"], protocol="alphanumeric")
    assert (result["word_accuracy"], result["case_sensitive_accuracy"]) == (1, 0.5)


def test_references_without_compared_characters_are_reported(metric):
    """As in other evaluators, an empty prediction is correct; the accuracy without them is also returned."""
    texts = {"predictions": ["", "x", "a", "b"], "references": ["\u4eac", "!", "a", "a"]}
    result = metric.compute(**texts, protocol="alphanumeric")
    assert (result["word_accuracy"], result["emptied"], result["word_accuracy_without_emptied"]) == (2 / 4, 2, 1 / 2)


def test_batches_add_up(metric):
    for prediction, label in zip(PREDICTIONS, LABELS, strict=True):
        metric.add_batch(predictions=[prediction], references=[label])
    assert metric.compute() == metric.compute(predictions=PREDICTIONS, references=LABELS)


def test_an_unknown_protocol_raises(metric):
    with pytest.raises(ValueError, match="Unknown protocol 'english': choose exact"):
        metric.compute(predictions=["a"], references=["a"], protocol="english")
