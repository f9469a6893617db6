# SPDX-License-Identifier: Apache-2.0
"""Word accuracy, character error rate and edit similarity of recognized texts."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass

from rapidfuzz.distance import Levenshtein

from .protocols import EvaluationProtocol, normalize_text


def rounded(figure: float, digits: int) -> float:
    """Round a share or an error rate, 0 or more; the result is 1 only for 1, and 0 only for 0.

    >>> rounded(399_999 / 400_000, 4), rounded(1.0, 4), rounded(0.00001, 4), rounded(2 / 3, 4), rounded(1.00001, 4)
    (0.9999, 1.0, 0.0001, 0.6667, 1.0001)
    """
    step = 10.0**-digits
    if figure in (0, 1):
        return figure
    return round(min(max(figure, step), 1 - step) if figure < 1 else max(figure, 1 + step), digits)


@dataclass
class Score:
    """Sums over samples; scores of parts of a dataset, or of processes, can be added.

    Attributes:
        samples: number of predictions, unreadable images included.
        correct: predictions that match their label under the protocol.
        correct_in_case: correct predictions whose letters also match in case.
        similarity: sum of 1 - edit distance / length of the longer text, both normalized by the protocol.
        edits: sum of the edit distances of predictions and labels, both normalized by the protocol.
        characters: sum of the lengths of labels, normalized by the protocol.
        loss: sum of the losses of samples.
        loss_samples: samples with a loss: their label is in the charset and fits into the frames.
        unreadable: unreadable images, which count as errors.
        emptied: labels without a character that the protocol compares, which an empty prediction matches.
        emptied_correct: correct predictions of such labels.
    """

    samples: float = 0
    correct: float = 0
    correct_in_case: float = 0
    similarity: float = 0
    edits: float = 0
    characters: float = 0
    loss: float = 0
    loss_samples: float = 0
    unreadable: float = 0
    emptied: float = 0
    emptied_correct: float = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def word_accuracy(self) -> float:
        """Share of correct predictions, 0 to 1; `acc` in the reference."""
        return _mean(self.correct, self.samples)

    @property
    def word_accuracy_without_emptied(self) -> float:
        """Word accuracy over the labels that have a character that the protocol compares."""
        return _mean(self.correct - self.emptied_correct, self.samples - self.emptied)

    @property
    def case_sensitive_accuracy(self) -> float:
        """Word accuracy with case; `acc_ignore_space_symbol` in the reference. Under "exact" it is the word accuracy."""
        return _mean(self.correct_in_case, self.samples)

    @property
    def cer(self) -> float:
        """Character error rate: edits / characters of the labels. It exceeds 1 if predictions are much too long.

        NaN if no label has a character that the protocol compares.
        """
        return _mean(self.edits, self.characters)

    @property
    def one_minus_ned(self) -> float:
        """Mean similarity, 0 to 1; `norm_edit_dis` in the reference."""
        return _mean(self.similarity, self.samples)

    @property
    def mean_loss(self) -> float:
        """Mean loss of the samples with a loss."""
        return _mean(self.loss, self.loss_samples)


def _mean(total: float, number: float) -> float:
    return total / number if number else float("nan")


def compare(predictions: Iterable[str], labels: Iterable[str], protocol: EvaluationProtocol = "exact") -> Score:
    """Score predictions against labels.

    >>> score = compare(["Hello!", "wor1d"], ["hello", "world"])
    >>> score.word_accuracy, score.cer
    (0.0, 0.3)
    >>> score = compare(["Hello!", "wor1d"], ["hello", "world"], "alphanumeric")
    >>> score.word_accuracy, score.cer, score.one_minus_ned, score.case_sensitive_accuracy
    (0.5, 0.1, 0.9, 0.0)

    Raises:
        ValueError: the numbers of predictions and labels differ, or the protocol is unknown.
    """
    score = Score()
    for prediction, label in zip(predictions, labels, strict=True):
        with_case = [normalize_text(text, protocol, keep_case=True) for text in (prediction, label)]
        predicted, true = (normalize_text(text, protocol) for text in (prediction, label))
        score.samples += 1
        score.emptied += not true
        score.correct += predicted == true
        score.correct_in_case += with_case[0] == with_case[1]
        score.emptied_correct += predicted == true == ""
        score.similarity += Levenshtein.normalized_similarity(predicted, true)
        score.edits += Levenshtein.distance(predicted, true)
        score.characters += len(true)
    return score
