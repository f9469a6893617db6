# SPDX-License-Identifier: Apache-2.0
"""The result of the evaluation of one dataset: accuracies, by length and by aspect ratio, and properties of its labels."""

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

from .evaluator import Prediction
from .metrics import Protocol, Score, compare, length_as_published, normalize_text, rounded


# Stricter comparisons, without a filter of characters: the columns `acc_real`, `acc_lower`, `acc_ignore_space` and
# `acc_ignore_space_lower` of the reference. The names are keys of results files.
STRICTNESS = {
    "as_it_is": lambda text: text,
    "but_for_case": str.lower,
    "but_for_spaces": lambda text: text.replace(" ", ""),
    "but_for_spaces_and_case": lambda text: text.replace(" ", "").lower(),
}


class SetResult:
    """Accumulates the predictions of one dataset.

    Args:
        protocol: how predictions are compared with labels.
        charset: characters that the model can predict; labels with other characters are counted.
        max_label_length: maximum length of the labels that the authors of SVTRv2 evaluate, as counted by
            [`length_as_published`]; `None` for no limit.

    Attributes:
        score: score of all predictions. A label without compared characters (Chinese or punctuation under the English
            protocol) is correct if the prediction has none either, as in other evaluators.
        as_published: score of the labels that the authors of SVTRv2 do not exclude as empty or too long.
        agreeing: number of predictions that match their label under each comparison of `STRICTNESS`.
        by_length: scores by the number of characters of the label under the protocol.
        by_aspect_ratio: scores by width / height of the image, rounded half to even as in the image processor, at least 1.
        empty: number of labels without characters.
        cut: number of labels from which the protocol removes letters, digits, or everything.
        outside_charset: number of labels with compared characters that are not in the charset.
        uncompared_outside_charset: number of other labels with characters outside the charset, spaces excepted, which the
            protocol ignores.
        unreadable: names of unreadable images. They count as errors in `score` and have no aspect ratio.
    """

    def __init__(self, protocol: Protocol, charset: Collection[str], max_label_length: int | None = None):
        self.protocol = protocol
        self.max_label_length = max_label_length
        self.score = Score()
        self.as_published = Score()
        self.agreeing: Counter[str] = Counter()
        self.by_length: defaultdict[int, Score] = defaultdict(Score)
        self.by_aspect_ratio: defaultdict[int, Score] = defaultdict(Score)
        self.empty = 0
        self.cut = 0
        self.outside_charset = 0
        self.uncompared_outside_charset = 0
        self.unreadable: list[str] = []
        self._charset = set(charset)
        self._known = set(normalize_text("".join(charset), protocol))

    def add(self, prediction: Prediction) -> bool:
        """Adds a prediction, and returns whether it is correct under the protocol."""
        label = prediction.sample.text
        normalized = normalize_text(label, self.protocol)
        one = compare([prediction.text], [label], self.protocol)
        if prediction.size is None:
            # An unreadable image is an error, even if the label is empty.
            one = Score(samples=1, unreadable=1, emptied=not normalized)
            self.unreadable.append(prediction.sample.name)
        else:
            width, height = prediction.size
            self.by_aspect_ratio[max(1, round(width / height))] += one
            self.agreeing.update(name for name, form in STRICTNESS.items() if form(prediction.text) == form(label))
        self.score += one
        self.by_length[len(normalized)] += one
        if self.max_label_length is None or 0 < length_as_published(label, self.protocol) <= self.max_label_length:
            self.as_published += one
        self.empty += not label.strip()
        self.cut += not normalized or any(c.isalnum() and not normalize_text(c, self.protocol) for c in label)
        if not self._known.issuperset(normalized):
            self.outside_charset += 1
        elif any(not normalize_text(character, self.protocol) for character in {*label} - self._charset - {" "}):
            self.uncompared_outside_charset += 1
        return bool(one.correct)

    def to_dict(self) -> dict[str, Any]:
        """The figures for a JSON file. Accuracies are from 0 to 1, and `None` without samples."""
        score = self.score
        result = {
            **_counts(score),
            "case_sensitive_accuracy": _number(score.case_sensitive_accuracy),
            "agreeing": {name: self.agreeing[name] for name in STRICTNESS},
            "by_length": {str(length): _counts(self.by_length[length]) for length in sorted(self.by_length)},
            "by_aspect_ratio": {str(r): _counts(self.by_aspect_ratio[r]) for r in sorted(self.by_aspect_ratio)},
        }
        if score.emptied:
            result["emptied_labels"] = {
                "samples": int(score.emptied),
                "correct": int(score.emptied_correct),
                "word_accuracy_without": _number(score.word_accuracy_without_emptied),
            }
        if self.as_published.samples != score.samples:
            result["as_published"] = _counts(self.as_published)
        if self.empty:
            result["empty_labels"] = self.empty
        if self.cut:
            result["cut_labels"] = self.cut
        if self.outside_charset:
            result["outside_charset"] = self.outside_charset
        if self.uncompared_outside_charset:
            result["uncompared_outside_charset"] = self.uncompared_outside_charset
        if self.unreadable:
            result["unreadable"] = self.unreadable
        return result


def _counts(score: Score) -> dict[str, Any]:
    return {
        "samples": int(score.samples),
        "correct": int(score.correct),
        "word_accuracy": _number(score.word_accuracy),
        "one_minus_ned": _number(score.one_minus_ned),
    }


def _number(value: float) -> float | None:
    return None if value != value else rounded(value, 6)
