"""Results of the evaluation of one dataset."""

import json

import pytest
from conftest import GOLDEN

from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.prediction import Prediction
from svtrv2_hf.evaluation.results import SetResult


ASCII = "".join(map(chr, range(32, 127)))


def prediction(text, label, ratio=1, error=None):
    return Prediction(Sample(b"", label, label), text, size=None if error else (ratio, 1), error=error)


@pytest.mark.parametrize("protocol", ["alphanumeric", "no_spaces"])
def test_agrees_with_all_columns_of_the_reference(protocol):
    """The reference divides by the number plus 1e-5, and counts lengths over 25 and ratios over 12 in the last place."""
    data = json.loads((GOLDEN / "metrics.json").read_text())
    expected = data[protocol]
    result = SetResult(protocol, ASCII)
    for (text, label), ratio in zip(data["pairs_prediction_reference"], data["aspect_ratio"], strict=True):
        result.add(prediction(text, label, ratio))
    figures = result.to_dict()
    number = figures["samples"]
    assert number == expected["num_samples"]

    def share(count):
        return pytest.approx(count / (number + 1e-5), abs=1e-9)

    assert expected["acc"] == share(figures["correct"])
    correct = figures["correct_by_protocol"]
    assert expected["acc_real"] == share(correct["exact"])
    assert expected["acc_lower"] == share(correct["case_insensitive"])
    assert expected["acc_ignore_space_lower"] == share(correct["no_spaces"])
    assert correct[protocol] == figures["correct"]
    with_case = {"alphanumeric": "acc_ignore_space_symbol", "no_spaces": "acc_ignore_space"}[protocol]
    assert expected[with_case] == share(result.score.correct_in_case)
    for name, parts, last in (("len", "by_length", 25), ("ratio", "by_aspect_ratio", 12)):
        counts = [[0, 0, 0.0] for _ in range(last)]
        for key, part in figures[parts].items():
            place = counts[min(max(int(key), 1), last) - 1]
            place[0] += part["samples"]
            place[1] += part["correct"]
            place[2] += part["samples"] * (1 - part["one_minus_ned"])
        assert [samples for samples, _, _ in counts] == expected[f"each_{name}_num"]
        for (samples, correct, distance), accuracy, similarity in zip(
            counts, expected[f"each_{name}_acc"], expected[f"each_{name}_norm_edit_dis"], strict=True
        ):
            assert accuracy == pytest.approx(correct / (samples + 1e-5), abs=1e-6)
            assert similarity == pytest.approx(1 - distance / (samples + 1e-5), abs=1e-5)


def test_labels_without_compared_characters_are_reported():
    result = SetResult("alphanumeric", ASCII)
    for text, label in (("", "!?"), ("a", "\u4e2d"), ("ab", "ab"), ("ac", "ab")):
        result.add(prediction(text, label))
    figures = result.to_dict()
    assert (figures["samples"], figures["correct"]) == (4, 2)
    assert figures["emptied_labels"] == {"samples": 2, "correct": 1, "word_accuracy_without": 0.5}


def test_accuracy_as_published_is_reported():
    """The authors exclude empty labels and labels of more than 25 characters without spaces, but not punctuation only."""
    result = SetResult("alphanumeric", ASCII, max_label_length=25)
    labels = ["a" * 25, "a " * 25, "a" * 26, "a" * 25 + "!", "", "\u4e2d", "?"]
    for label in labels:
        result.add(prediction("" if label == "?" else "x", label))
    result.add(prediction("a", "a"))
    figures = result.to_dict()
    assert (figures["samples"], figures["correct"]) == (8, 2)
    kept = figures["as_published"]
    assert (kept["samples"], kept["correct"], kept["word_accuracy"]) == (4, 2, 0.5)

    everything = SetResult("alphanumeric", ASCII)
    everything.add(prediction("x", "a" * 26))
    assert "as_published" not in everything.to_dict()
    short = SetResult("alphanumeric", ASCII, max_label_length=25)
    short.add(prediction("x", "a"))
    assert "as_published" not in short.to_dict()


def test_unreadable_images_are_errors_even_if_the_label_has_no_compared_characters():
    result = SetResult("alphanumeric", ASCII)
    assert not result.add(prediction("", "...", error="not an image"))
    assert result.add(prediction("a", "A"))
    figures = result.to_dict()
    assert (figures["samples"], figures["correct"], figures["unreadable"]) == (2, 1, ["..."])
    assert figures["emptied_labels"] == {"samples": 1, "correct": 0, "word_accuracy_without": 1}
    assert sum(part["samples"] for part in figures["by_aspect_ratio"].values()) == 1


def test_labels_with_letters_that_the_protocol_ignores_are_counted():
    labels = ["\u4eacA12", "caf\u00e9", "!?", "", "it's 1"]
    for protocol, cut in (("alphanumeric", 3), ("no_spaces", 0), ("case_insensitive", 0), ("exact", 0)):
        result = SetResult(protocol, ASCII)
        for label in labels:
            result.add(prediction("a", label))
        figures = result.to_dict()
        assert (figures.get("cut_labels", 0), figures["empty_labels"]) == (cut, 1)


def test_parts_have_the_sums_of_the_character_error_rate():
    result = SetResult("exact", ASCII)
    for text, label, ratio in (("ab", "aB", 1), ("", "abc", 5), ("abc", "abc", 5)):
        result.add(prediction(text, label, ratio))
    result.add(prediction("", "xyz", error="not an image"))  # all characters are missing
    figures = result.to_dict()
    sums = [(part["edits"], part["characters"]) for part in (figures, *figures["by_length"].values())]
    assert sums == [(7, 11), (1, 2), (6, 9)]
    assert (figures["cer"], figures["by_length"]["3"]["cer"]) == (0.636364, 0.666667)
    assert {ratio: part["cer"] for ratio, part in figures["by_aspect_ratio"].items()} == {"1": 0.5, "5": 0.5}


def test_error_rate_above_1_is_not_cut_off():
    result = SetResult("exact", ASCII)
    result.add(prediction("abcd", "z"))
    assert result.to_dict()["cer"] == 4


def test_labels_outside_the_charset_are_counted():
    """Only compared characters matter: an accent does, case and spaces do not."""
    result = SetResult("no_spaces", "abc")
    for label in ("A b", "caf\u00e9", "abc"):
        result.add(prediction("abc", label))
    assert result.to_dict()["outside_charset"] == 1
    assert "uncompared_outside_charset" not in result.to_dict()
    result = SetResult("exact", "abc")
    for label in ("A b", "a b", "a", "abc"):  # upper case and the space are compared
        result.add(prediction("abc", label))
    assert result.to_dict()["outside_charset"] == 2
    result = SetResult("alphanumeric", "abcf")
    for label in ("A b", "caf\u00e9", "d\u00e9"):
        result.add(prediction("abc", label))
    assert (result.to_dict()["outside_charset"], result.to_dict()["uncompared_outside_charset"]) == (1, 1)


def test_empty_set_has_no_accuracy():
    figures = SetResult("alphanumeric", ASCII).to_dict()
    assert (figures["samples"], figures["word_accuracy"], figures["cer"], figures["by_length"]) == (0, None, None, {})
