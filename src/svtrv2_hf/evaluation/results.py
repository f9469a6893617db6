# SPDX-License-Identifier: Apache-2.0
"""What the evaluation of one set comes to: accuracies, by length and by aspect ratio, and what to know about the labels."""

from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

from .evaluator import Reading
from .metrics import Protocol, Score, compare, length_as_published, normalize_text, rounded


# What must agree besides the characters that all of them compare: the reference's columns `acc_real`, `acc_lower`,
# `acc_ignore_space` and `acc_ignore_space_lower`, none of which filters characters.
STRICTNESS = {
    "as_it_is": lambda text: text,
    "but_for_case": str.lower,
    "but_for_spaces": lambda text: text.replace(" ", ""),
    "but_for_spaces_and_case": lambda text: text.replace(" ", "").lower(),
}


class SetResult:
    """Adds up the readings of one set.

    Args:
        protocol: what readings must agree in.
        charset: the characters that the model can read; labels with others are counted.
        max_label_length: the longest labels that the authors of SVTRv2 evaluate, as [`length_as_published`] counts; `None` for all.

    Attributes:
        score: of all readings. The labels of which the protocol leaves nothing (Chinese or punctuation under the English one)
            count as read if nothing is left of the reading either; the field's evaluators have it so.
        as_published: score of the labels that the authors of SVTRv2 do not leave out as empty or too long.
        agreeing: readings that agree with their label as `STRICTNESS` says, by its keys.
        by_length: scores by the number of characters of the label under the protocol.
        by_aspect_ratio: scores by width / height of the image, rounded half to even as the image processor does, from 1.
        empty: labels without a character.
        cut: labels of which the protocol leaves out letters or digits, or everything.
        outside_charset: labels with characters, of those that the protocol compares, that the model cannot read.
        uncompared_outside_charset: other labels with characters that the model cannot read, which the protocol leaves out; but for spaces.
        unreadable: names of the images that could not be read. They are in `score` as errors, and have no aspect ratio.
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

    def add(self, reading: Reading) -> bool:
        """Counts a reading, and tells whether it is right under the protocol."""
        label = reading.sample.text
        normalized = normalize_text(label, self.protocol)
        one = compare([reading.text], [label], self.protocol)
        if reading.size is None:
            # An image that could not be read is no reading of an empty label.
            one = Score(samples=1, unreadable=1, emptied=not normalized)
            self.unreadable.append(reading.sample.name)
        else:
            width, height = reading.size
            self.by_aspect_ratio[max(1, round(width / height))] += one
            self.agreeing.update(name for name, form in STRICTNESS.items() if form(reading.text) == form(label))
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
        """As JSON holds it. Accuracies are in 0..1, and null where there are no samples."""
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
