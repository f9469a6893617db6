# SPDX-License-Identifier: Apache-2.0
"""Word accuracy and edit similarity under the usual protocols of text recognition benchmarks."""

import string
import unicodedata
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein


EvaluationProtocol = Literal["english", "chinese"]
PROTOCOLS: dict[EvaluationProtocol, str] = {
    "english": "letters and digits, case ignored",
    "chinese": "everything except spaces, case ignored",
}

LETTERS_AND_DIGITS = frozenset(string.ascii_letters + string.digits)


def normalize_text(text: str, protocol: EvaluationProtocol, keep_case: bool = False) -> str:
    """Return the part of a text that a protocol compares.

    As in Topdu/OpenOCR at ae934e5, `openrec/metrics/rec_metric.py`, with and without `is_filter`.

    Args:
        text: label or prediction.
        protocol: "english" for ASCII letters and digits, case ignored; "chinese" for everything except spaces, case ignored.
        keep_case: do not convert to lower case.

    Raises:
        ValueError: the protocol is unknown.
    """
    if protocol == "english":
        text = "".join(character for character in text if character in LETTERS_AND_DIGITS)
    elif protocol != "chinese":
        raise ValueError(f'Unknown protocol {protocol!r}; choose "english" or "chinese".')
    text = text.replace(" ", "")
    return text if keep_case else text.lower()


def rounded(share: float, digits: int) -> float:
    """Round a share from 0 to 1 to a number of digits; the result is 1 only for 1, and 0 only for 0.

    >>> rounded(399_999 / 400_000, 4), rounded(1.0, 4), rounded(0.00001, 4), rounded(2 / 3, 4)
    (0.9999, 1.0, 0.0001, 0.6667)
    """
    step = 10.0**-digits
    return share if share in (0, 1) else round(min(max(share, step), 1 - step), digits)


def length_as_published(label: str, protocol: EvaluationProtocol) -> int:
    """Return the length of a label as the authors of SVTRv2 count it to exclude long and empty labels.

    Spaces do not count, nor, under "english", characters without an ASCII form: `é` counts as `e`, Chinese characters do not
    count. As in Topdu/OpenOCR at ae934e5, `tools/data/ratio_dataset_tvresize_test.py`; for "chinese",
    `openrec/preprocess/ctc_label_encode.py`, which does not count characters outside the charset either.

    >>> length_as_published("Caf\u00e9 12!", "english"), length_as_published("\u4e2d\u6587 A", "english")
    (7, 1)
    """
    text = "".join(label.split())
    if protocol == "english":
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return len(text)


def usual_protocol(charset: Iterable[str]) -> EvaluationProtocol:
    """Return the default protocol for a charset: "chinese" if it has letters or digits that the English one does not compare.

    >>> usual_protocol("abc123!?"), usual_protocol("abc\u00e9")
    ('english', 'chinese')
    """
    others = any(character.isalnum() and character not in LETTERS_AND_DIGITS for character in charset)
    return "chinese" if others else "english"


@dataclass
class Score:
    """Sums over samples; scores of parts of a dataset, or of ranks, can be added.

    Attributes:
        samples: number of predictions, unreadable images included.
        correct: predictions that match their label under the protocol.
        correct_in_case: correct predictions whose letters also match in case.
        similarity: sum of 1 - edit distance / length of the longer text, both normalized by the protocol.
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
        """Word accuracy with case; `acc_ignore_space_symbol` in the reference."""
        return _mean(self.correct_in_case, self.samples)

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


def compare(predictions: Iterable[str], labels: Iterable[str], protocol: EvaluationProtocol = "english") -> Score:
    """Score predictions against labels.

    >>> score = compare(["Hello!", "wor1d"], ["hello", "world"])
    >>> score.word_accuracy, score.case_sensitive_accuracy, score.one_minus_ned
    (0.5, 0.0, 0.9)

    Raises:
        ValueError: the numbers of predictions and labels differ.
    """
    score = Score()
    for prediction, label in zip(predictions, labels, strict=True):
        predicted, true = (normalize_text(text, protocol, keep_case=True) for text in (prediction, label))
        score.samples += 1
        score.emptied += not true
        score.correct_in_case += predicted == true
        predicted, true = predicted.lower(), true.lower()
        score.correct += predicted == true
        score.emptied_correct += predicted == true == ""
        score.similarity += Levenshtein.normalized_similarity(predicted, true)
    return score
