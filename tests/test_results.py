"""What the evaluation of a set comes to."""

import json

import pytest
from conftest import GOLDEN

from svtrv2_hf.data.sources import Sample
from svtrv2_hf.evaluation.evaluator import Reading
from svtrv2_hf.evaluation.results import SetResult


ASCII = "".join(map(chr, range(32, 127)))


def reading(text, label, ratio=1, error=None):
    return Reading(Sample(b"", label, label), text, size=None if error else (ratio, 1), error=error)


@pytest.mark.parametrize("protocol", ["english", "chinese"])
def test_agrees_with_all_columns_of_the_reference(protocol):
    """Which divides by the number plus 1e-5, and puts lengths over 25 and ratios over 12 into the last place."""
    data = json.loads((GOLDEN / "metrics.json").read_text())
    expected = data[f"{protocol}_protocol"]
    result = SetResult(protocol, ASCII)
    for (text, label), ratio in zip(data["pairs_prediction_reference"], data["aspect_ratio"], strict=True):
        result.add(reading(text, label, ratio))
    found = result.to_dict()
    number = found["samples"]
    assert number == expected["num_samples"]

    def share(count):
        return pytest.approx(count / (number + 1e-5), abs=1e-9)

    assert expected["acc"] == share(found["correct"])
    assert expected["acc_real"] == share(found["agreeing"]["as_it_is"])
    assert expected["acc_lower"] == share(found["agreeing"]["but_for_case"])
    assert expected["acc_ignore_space"] == share(found["agreeing"]["but_for_spaces"])
    assert expected["acc_ignore_space_lower"] == share(found["agreeing"]["but_for_spaces_and_case"])
    assert expected["acc_ignore_space_symbol"] == share(result.score.correct_in_case)
    for name, parts, last in (("len", "by_length", 25), ("ratio", "by_aspect_ratio", 12)):
        counts = [[0, 0, 0.0] for _ in range(last)]
        for key, part in found[parts].items():
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


def test_labels_of_which_nothing_is_left_are_told():
    result = SetResult("english", ASCII)
    for text, label in (("", "!?"), ("a", "\u4e2d"), ("ab", "ab"), ("ac", "ab")):
        result.add(reading(text, label))
    found = result.to_dict()
    assert (found["samples"], found["correct"]) == (4, 2)
    assert found["emptied_labels"] == {"samples": 2, "correct": 1, "word_accuracy_without": 0.5}


def test_the_accuracy_that_the_authors_would_have_published_stands_beside():
    """They leave out labels of more than 25 characters, spaces aside, and empty ones; of punctuation alone they do not."""
    result = SetResult("english", ASCII, max_label_length=25)
    labels = ["a" * 25, "a " * 25, "a" * 26, "a" * 25 + "!", "", "\u4e2d", "?"]
    for label in labels:
        result.add(reading("" if label == "?" else "x", label))
    result.add(reading("a", "a"))
    found = result.to_dict()
    assert (found["samples"], found["correct"]) == (8, 2)
    kept = found["as_published"]
    assert (kept["samples"], kept["correct"], kept["word_accuracy"]) == (4, 2, 0.5)

    everything = SetResult("english", ASCII)
    everything.add(reading("x", "a" * 26))
    assert "as_published" not in everything.to_dict()
    short = SetResult("english", ASCII, max_label_length=25)
    short.add(reading("x", "a"))
    assert "as_published" not in short.to_dict()


def test_unreadable_images_are_errors_even_where_nothing_was_to_be_read():
    result = SetResult("english", ASCII)
    assert not result.add(reading("", "...", error="it is no image"))
    assert result.add(reading("a", "A"))
    found = result.to_dict()
    assert (found["samples"], found["correct"], found["unreadable"]) == (2, 1, ["..."])
    assert found["emptied_labels"] == {"samples": 1, "correct": 0, "word_accuracy_without": 1}
    assert sum(part["samples"] for part in found["by_aspect_ratio"].values()) == 1


def test_labels_of_which_the_protocol_leaves_out_letters_are_counted():
    labels = ["\u4eacA12", "caf\u00e9", "!?", "", "it's 1"]
    for protocol, cut in (("english", 4), ("chinese", 1)):
        result = SetResult(protocol, ASCII)
        for label in labels:
            result.add(reading("a", label))
        found = result.to_dict()
        assert (found["cut_labels"], found["empty_labels"]) == (cut, 1)


def test_labels_that_cannot_be_read_are_counted():
    """By what the protocol compares: an accent counts, a letter of the other case or a space does not."""
    result = SetResult("chinese", "abc")
    for label in ("A b", "caf\u00e9", "abc"):
        result.add(reading("abc", label))
    assert result.to_dict()["outside_charset"] == 1
    assert "uncompared_outside_charset" not in result.to_dict()
    result = SetResult("english", "abcf")
    for label in ("A b", "caf\u00e9", "d\u00e9"):
        result.add(reading("abc", label))
    assert (result.to_dict()["outside_charset"], result.to_dict()["uncompared_outside_charset"]) == (1, 1)


def test_an_empty_set_has_no_accuracy():
    found = SetResult("english", ASCII).to_dict()
    assert (found["samples"], found["word_accuracy"], found["by_length"]) == (0, None, {})
