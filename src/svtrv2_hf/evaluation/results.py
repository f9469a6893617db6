# SPDX-License-Identifier: Apache-2.0
"""The result of the evaluation of one dataset: accuracies, by length and by aspect ratio, and properties of its labels."""

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

from .metrics import Score, rounded
from .prediction import Prediction, score_prediction
from .protocols import PROTOCOLS, EvaluationProtocol, length_as_published, normalize_text


class SetResult:
    """Accumulates the predictions of one dataset.

    Args:
        protocol: how predictions are compared with labels.
        charset: characters that the model can predict; labels with other characters are counted.
        max_label_length: maximum length of the labels that the authors of SVTRv2 evaluate, as counted by
            [`length_as_published`]; `None` for no limit.

    Attributes:
        score: score of all predictions. A label without compared characters (Chinese or punctuation under "alphanumeric") is
            correct if the prediction has none either, as in other evaluators.
        as_published: score of the labels that the authors of SVTRv2 do not exclude as empty or too long.
        correct_by_protocol: number of correct predictions under each protocol.
        by_length: scores by the number of characters of the label under the protocol.
        by_aspect_ratio: scores by width / height of the image, rounded half to even as in the image processor, at least 1.
        empty: number of labels without characters.
        cut: number of labels from which the protocol removes letters, digits, or everything; empty labels are not among them.
        outside_charset: number of labels with compared characters that are not in the charset.
        uncompared_outside_charset: number of other labels with characters outside the charset, spaces excepted, which the
            protocol ignores.
        unreadable: names of unreadable images. They count as errors in `score` and have no aspect ratio.
    """

    def __init__(self, protocol: EvaluationProtocol, charset: Collection[str], max_label_length: int | None = None):
        self.protocol = protocol
        self.max_label_length = max_label_length
        self.score = Score()
        self.as_published = Score()
        self.correct_by_protocol: Counter[EvaluationProtocol] = Counter()
        self.by_length: defaultdict[int, Score] = defaultdict(Score)
        self.by_aspect_ratio: defaultdict[int, Score] = defaultdict(Score)
        self.empty = 0
        self.cut = 0
        self.outside_charset = 0
        self.uncompared_outside_charset = 0
        self.unreadable: list[str] = []
        self._charset = {*charset, " "}
        self._known = set(normalize_text("".join(charset), protocol))

    def add(self, prediction: Prediction) -> bool:
        """Add a prediction, and return whether it is correct under the protocol."""
        label = prediction.sample.text
        normalized = normalize_text(label, self.protocol)
        score = score_prediction(prediction, self.protocol)
        if prediction.size is None:
            self.unreadable.append(prediction.sample.name)
        else:
            width, height = prediction.size
            self.by_aspect_ratio[max(1, round(width / height))] += score
            texts = (prediction.text, label)
            self.correct_by_protocol.update(
                p for p in PROTOCOLS if len({normalize_text(text, p) for text in texts}) == 1
            )
        self.score += score
        self.by_length[len(normalized)] += score
        if self.max_label_length is None or 0 < length_as_published(label, self.protocol) <= self.max_label_length:
            self.as_published += score
        ignored = {character for character in label if not normalize_text(character, self.protocol)}
        self.empty += not label.strip()
        self.cut += bool(label.strip()) and (not normalized or any(map(str.isalnum, ignored)))
        if not self._known.issuperset(normalized):
            self.outside_charset += 1
        elif ignored - self._charset:
            self.uncompared_outside_charset += 1
        return bool(score.correct)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures for a JSON file. Accuracies are from 0 to 1; undefined figures, as without samples, are `None`."""
        score = self.score
        emptied = {
            "samples": int(score.emptied),
            "correct": int(score.emptied_correct),
            "word_accuracy_without": _number(score.word_accuracy_without_emptied),
        }
        optional = {
            "emptied_labels": emptied if score.emptied else None,
            "as_published": _counts(self.as_published) if self.as_published.samples != score.samples else None,
            "empty_labels": self.empty,
            "cut_labels": self.cut,
            "outside_charset": self.outside_charset,
            "uncompared_outside_charset": self.uncompared_outside_charset,
            "unreadable": self.unreadable,
        }
        return {
            **_counts(score),
            "case_sensitive_accuracy": _number(score.case_sensitive_accuracy),
            "correct_by_protocol": {name: self.correct_by_protocol[name] for name in PROTOCOLS},
            "by_length": {str(length): _counts(self.by_length[length]) for length in sorted(self.by_length)},
            "by_aspect_ratio": {str(r): _counts(self.by_aspect_ratio[r]) for r in sorted(self.by_aspect_ratio)},
            **{name: value for name, value in optional.items() if value},
        }


def _counts(score: Score) -> dict[str, Any]:
    return {
        "samples": int(score.samples),
        "correct": int(score.correct),
        "word_accuracy": _number(score.word_accuracy),
        "edits": int(score.edits),
        "characters": int(score.characters),
        "cer": _number(score.cer),
        "one_minus_ned": _number(score.one_minus_ned),
    }


def _number(value: float) -> float | None:
    return None if value != value else rounded(value, 6)
