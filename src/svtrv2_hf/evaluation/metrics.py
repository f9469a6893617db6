# SPDX-License-Identifier: Apache-2.0
"""Word accuracy and edit similarity under the field's protocols."""

import string
import unicodedata
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein


Protocol = Literal["english", "chinese"]

_LETTERS_AND_DIGITS = frozenset(string.ascii_letters + string.digits)


def normalize_text(text: str, protocol: Protocol, keep_case: bool = False) -> str:
    """What two texts must agree in.

    "english": ASCII letters and digits, case ignored. "chinese": everything but spaces, case ignored. `keep_case` leaves
    the case as it is.
    As in Topdu/OpenOCR at ae934e5, `openrec/metrics/rec_metric.py`, with and without `is_filter`.
    """
    if protocol == "english":
        text = "".join(character for character in text if character in _LETTERS_AND_DIGITS)
    elif protocol != "chinese":
        raise ValueError(f'There is no protocol {protocol!r}; there are "english" and "chinese".')
    text = text.replace(" ", "")
    return text if keep_case else text.lower()


def rounded(share: float, digits: int) -> float:
    """A share from 0 to 1 to so many digits; 1 only if it is all, and 0 only if it is none.

    >>> rounded(399_999 / 400_000, 4), rounded(1.0, 4), rounded(0.00001, 4), rounded(2 / 3, 4)
    (0.9999, 1.0, 0.0001, 0.6667)
    """
    step = 10.0**-digits
    return share if share in (0, 1) else round(min(max(share, step), 1 - step), digits)


def length_as_published(label: str, protocol: Protocol) -> int:
    """The characters of a label, as the authors of SVTRv2 count them to leave out long and empty ones.

    Spaces do not count, and under "english" nothing that has no ASCII form: `é` counts as `e`, a Chinese character not at all.
    As in Topdu/OpenOCR at ae934e5, `tools/data/ratio_dataset_tvresize_test.py`; for "chinese" `openrec/preprocess/
    ctc_label_encode.py`, where characters outside the charset do not count either.

    >>> length_as_published("Caf\u00e9 12!", "english"), length_as_published("\u4e2d\u6587 A", "english")
    (7, 1)
    """
    text = "".join(label.split())
    if protocol == "english":
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return len(text)


def usual_protocol(charset: Iterable[str]) -> Protocol:
    """The protocol for readings in a charset: "chinese" where it has letters or digits that the English one leaves out.

    >>> usual_protocol("abc123!?"), usual_protocol("abc\u00e9")
    ('english', 'chinese')
    """
    others = any(character.isalnum() and character not in _LETTERS_AND_DIGITS for character in charset)
    return "chinese" if others else "english"


@dataclass
class Score:
    """Sums over samples, which parts of a data set, or ranks, can add up.

    Attributes:
        samples: texts compared, those included whose image could not be read.
        correct: texts that agree under the protocol.
        correct_in_case: texts that agree under the protocol, and whose letters also agree in case.
        similarity: sum of 1 - edit distance / length of the longer text, of the texts under the protocol.
        loss: sum of the losses of samples.
        loss_samples: samples that have a loss: their label is in the charset and fits into the frames.
        unreadable: images that could not be read; they count as read wrongly.
        emptied: labels of which the protocol leaves nothing, so that an empty reading agrees with them.
        emptied_correct: those of them that count as correct.
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
        """Share of texts read without error, 0 to 1; as the reference's `acc`."""
        return self._mean(self.correct, self.samples)

    @property
    def word_accuracy_without_emptied(self) -> float:
        """Word accuracy over the labels of which the protocol leaves something."""
        return self._mean(self.correct - self.emptied_correct, self.samples - self.emptied)

    @property
    def case_sensitive_accuracy(self) -> float:
        """Word accuracy where case counts; as the reference's `acc_ignore_space_symbol`."""
        return self._mean(self.correct_in_case, self.samples)

    @property
    def one_minus_ned(self) -> float:
        """Mean similarity, 0 to 1; as the reference's `norm_edit_dis`."""
        return self._mean(self.similarity, self.samples)

    @property
    def mean_loss(self) -> float:
        """Mean over the samples that have a loss."""
        return self._mean(self.loss, self.loss_samples)

    @staticmethod
    def _mean(total: float, number: float) -> float:
        return total / number if number else float("nan")


def compare(readings: Iterable[str], labels: Iterable[str], protocol: Protocol = "english") -> Score:
    """Scores readings against labels.

    >>> score = compare(["Hello!", "wor1d"], ["hello", "world"])
    >>> score.word_accuracy, score.case_sensitive_accuracy, score.one_minus_ned
    (0.5, 0.0, 0.9)

    Raises:
        ValueError: the numbers of readings and labels differ.
    """
    score = Score()
    for reading, label in zip(readings, labels, strict=True):
        read, true = (normalize_text(text, protocol, keep_case=True) for text in (reading, label))
        score.samples += 1
        score.emptied += not true
        score.correct_in_case += read == true
        read, true = read.lower(), true.lower()
        score.correct += read == true
        score.emptied_correct += read == true == ""
        score.similarity += Levenshtein.normalized_similarity(read, true)
    return score
