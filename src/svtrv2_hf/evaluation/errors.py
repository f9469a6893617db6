# SPDX-License-Identifier: Apache-2.0
"""Error analysis: kinds of errors, confused characters, calibration, and wrong predictions to look at."""

import bisect
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

from rapidfuzz.distance import Levenshtein

from ..charsets import code_point
from .prediction import Prediction, score_prediction
from .protocols import EvaluationProtocol, normalize_text


# Similarity (1 - edit distance / length of the longer text) from which a wrong prediction still counts as the same text.
CLOSE = 0.5
BINS = 20  # of scores, of equal width
SUMMARIZED = 100  # confusions in a summary
UNREADABLE_NAMED = 100  # unreadable images of each dataset whose names and errors are kept


class ErrorKind(StrEnum):
    """Kinds of errors, see `DESCRIPTIONS`; a prediction is of the first kind that fits. The values are keys of results files."""

    UNREADABLE = "unreadable"
    EMPTY_PREDICTION = "empty_prediction"
    ONE_WRONG = "one_wrong"
    ONE_MISSING = "one_missing"
    ONE_TOO_MANY = "one_too_many"
    ANOTHER_TEXT = "another_text"
    SEVERAL_WRONG = "several_wrong"


DESCRIPTIONS = {
    ErrorKind.UNREADABLE: "the image cannot be opened",
    ErrorKind.EMPTY_PREDICTION: "no compared character was recognized",
    ErrorKind.ONE_WRONG: "one character is replaced by another",
    ErrorKind.ONE_MISSING: "one character is missing",
    ErrorKind.ONE_TOO_MANY: "one extra character",
    ErrorKind.ANOTHER_TEXT: "less than half of the text agrees",
    ErrorKind.SEVERAL_WRONG: "two or more are wrong, at least half agree",
}
_SINGLE_EDITS = {
    "replace": ErrorKind.ONE_WRONG,
    "delete": ErrorKind.ONE_MISSING,
    "insert": ErrorKind.ONE_TOO_MANY,
}


def kind_of(prediction: Prediction, protocol: EvaluationProtocol) -> ErrorKind | None:
    """Return the kind of error of a prediction; `None` if the prediction is correct."""
    if prediction.error is not None:
        return ErrorKind.UNREADABLE
    true, predicted = (normalize_text(text, protocol) for text in (prediction.sample.text, prediction.text))
    if true == predicted:
        return None
    if not predicted:
        return ErrorKind.EMPTY_PREDICTION
    edits = [edit.tag for edit in Levenshtein.editops(true, predicted)]
    if len(edits) == 1:
        return _SINGLE_EDITS[edits[0]]
    close = Levenshtein.normalized_similarity(true, predicted) >= CLOSE
    return ErrorKind.SEVERAL_WRONG if close else ErrorKind.ANOTHER_TEXT


@dataclass(frozen=True)
class Column:
    """One position of an aligned label and prediction."""

    true: str | None  # character of the label; None if the prediction has an extra character
    predicted: str | None  # character of the prediction; None if it is missing
    compared: bool  # by the protocol
    wrong: bool  # under the protocol
    score: float | None  # confidence of the predicted character, 0 to 1


def align(prediction: Prediction, protocol: EvaluationProtocol) -> list[Column]:
    """Align a prediction with its label with the fewest edits under the protocol; ignored characters are kept in place."""
    true, predicted = _keys(prediction.sample.text, protocol), _keys(prediction.text, protocol)
    scores = [character["score"] for character in prediction.characters for _ in character["text"]]
    columns: list[Column] = []
    i = j = 0

    def put(with_true: bool, with_predicted: bool, compared: bool = True, wrong: bool = False) -> None:
        nonlocal i, j
        score = scores[j] if with_predicted and j < len(scores) else None
        characters = true[i][0] if with_true else None, predicted[j][0] if with_predicted else None
        columns.append(Column(*characters, compared, wrong, score))
        i, j = i + with_true, j + with_predicted

    def put_ignored() -> None:
        while (with_true := i < len(true) and not true[i][1]) | (
            with_predicted := j < len(predicted) and not predicted[j][1]
        ):
            put(with_true, with_predicted, compared=False)

    compared_true, compared_predicted = ([key for _, key in keys if key] for keys in (true, predicted))
    for operation in Levenshtein.opcodes(compared_true, compared_predicted):
        sides = zip_longest(
            range(operation.src_start, operation.src_end), range(operation.dest_start, operation.dest_end)
        )
        for in_true, in_predicted in sides:
            put_ignored()
            put(in_true is not None, in_predicted is not None, wrong=operation.tag != "equal")
    put_ignored()
    return columns


def _keys(text: str, protocol: EvaluationProtocol) -> list[tuple[str, str]]:
    """Return each character with its normalized form, which is empty if the protocol ignores the character."""
    normalized, keys, start = normalize_text(text, protocol), [], 0
    for character in text:
        end = start + len(normalize_text(character, protocol))  # some letters have two characters in lower case
        keys.append((character, normalized[start:end]))
        start = end
    return keys


def visible(character: str) -> str:
    """Return a visible form of a character: spaces, combining marks and unprintable characters are replaced."""
    category = unicodedata.category(character)
    if category == "Zs":
        return "␣"
    if category[0] == "M":  # a combining mark needs a base
        return f"◌{character}"
    return code_point(character) if category[0] in "CZ" else character


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong prediction that is kept to be shown."""

    set_name: str
    protocol: EvaluationProtocol
    kind: ErrorKind
    prediction: Prediction
    chance: int  # pseudorandom number that depends only on the seed and the sample

    def columns(self) -> list[Column]:
        """Return the aligned label and prediction."""
        return align(self.prediction, self.protocol)


@dataclass
class SetErrors:
    """Counts of one dataset, its most confident errors (`worst`), and a random sample of its errors (`typical`)."""

    protocol: EvaluationProtocol
    samples: int = 0  # with unreadable images
    correct: int = 0
    edits: int = 0  # sum of the edit distances of predictions and labels
    characters: int = 0  # of the labels
    wrong_case: int = 0  # correct predictions that differ from the label in case
    kinds: Counter[ErrorKind] = field(default_factory=Counter)
    worst: list[Mistake] = field(default_factory=list)
    typical: list[Mistake] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(
        default_factory=list
    )  # name and error, the first UNREADABLE_NAMED by name

    @property
    def wrong(self) -> int:
        """Predictions that do not match their label."""
        return self.samples - self.correct

    @property
    def cer(self) -> float | None:
        """Character error rate, edits / characters; `None` without characters."""
        return self.edits / self.characters if self.characters else None

    @property
    def shown(self) -> list[Mistake]:
        """The mistakes that are kept, without duplicates: the worst first, then the typical ones."""
        return list(dict.fromkeys([*self.worst, *self.typical]))


@dataclass
class Bin:
    """Predictions with scores in an interval."""

    samples: int = 0
    score: float = 0.0  # sum
    correct: int = 0


class Errors:
    """Collects the errors of predictions, which may come in any order.

    Only counts and the mistakes to be shown are kept: at most `2 * kept` images for each dataset.

    Confusions are counted only if the alignment is meaningful: not for unreadable images, empty predictions, and
    predictions of another text.

    Args:
        kept: number of mistakes kept for each dataset: that many of the most confident, and as many at random.
        seed: seed of the random sample.

    Attributes:
        sets: errors by dataset name, in the order of arrival.
        characters: how often each character occurs in the labels from which confusions are counted.
        confusions: counts by (true, predicted) character, normalized by the protocol. `None` means no character: (None, c)
            is an extra character, (c, None) a missing one.
        bins: predictions by score, in `BINS` intervals of equal width from 0 to 1; unreadable images have no score.
    """

    def __init__(self, kept: int = 24, seed: int = 0):
        self.kept = kept
        self.seed = seed
        self.sets: dict[str, SetErrors] = {}
        self.characters: Counter[str] = Counter()
        self.confusions: Counter[tuple[str | None, str | None]] = Counter()
        self.bins = [Bin() for _ in range(BINS)]

    def add(self, set_name: str, prediction: Prediction, protocol: EvaluationProtocol) -> None:
        """Count a prediction, and keep it if it is among those to be shown.

        Raises:
            ValueError: the dataset already has predictions under another protocol, or the score is not in 0..1.
        """
        errors = self.sets.setdefault(set_name, SetErrors(protocol))
        sample = prediction.sample
        if errors.protocol != protocol:
            raise ValueError(
                f"{set_name} already has predictions under the protocol {errors.protocol!r}, not {protocol!r}. Use a "
                "separate dataset name for each protocol."
            )
        if not 0 <= prediction.score <= 1:
            raise ValueError(
                f"{set_name}, {sample.name}: the score {prediction.score} is not in 0..1. Check the weights of "
                "the model for NaN."
            )
        kind = kind_of(prediction, protocol)
        score = score_prediction(prediction, protocol)
        errors.samples += 1
        errors.edits += int(score.edits)
        errors.characters += int(score.characters)
        if kind is ErrorKind.UNREADABLE:
            errors.kinds[kind] += 1
            bisect.insort(errors.unreadable, (sample.name, str(prediction.error)))
            del errors.unreadable[UNREADABLE_NAMED:]
            return
        score_bin = self.bins[min(int(prediction.score * BINS), BINS - 1)]
        score_bin.samples += 1
        score_bin.score += prediction.score
        score_bin.correct += kind is None
        self._count_confusions(prediction, protocol, kind)
        if kind is None:
            errors.correct += 1
            errors.wrong_case += not score.correct_in_case
            return
        errors.kinds[kind] += 1
        mistake = Mistake(set_name, protocol, kind, prediction, self._chance(prediction))
        bisect.insort(errors.worst, mistake, key=lambda mistake: (-mistake.prediction.score, mistake.chance))
        bisect.insort(errors.typical, mistake, key=lambda mistake: mistake.chance)
        del errors.worst[self.kept :], errors.typical[self.kept :]

    def _count_confusions(self, prediction: Prediction, protocol: EvaluationProtocol, kind: ErrorKind | None) -> None:
        if kind in (ErrorKind.EMPTY_PREDICTION, ErrorKind.ANOTHER_TEXT):
            return
        true, predicted = (normalize_text(text, protocol) for text in (prediction.sample.text, prediction.text))
        self.characters.update(true)
        for operation in Levenshtein.editops(true, predicted) if kind is not None else ():
            self.confusions[
                None if operation.tag == "insert" else true[operation.src_pos],
                None if operation.tag == "delete" else predicted[operation.dest_pos],
            ] += 1

    def _chance(self, prediction: Prediction) -> int:
        # The image is hashed as well, since names may repeat.
        sample = prediction.sample
        digest = blake2b(f"{self.seed} {sample.name!r} {sample.text!r} ".encode(), digest_size=8)
        digest.update(sample.image)
        return int.from_bytes(digest.digest())

    @property
    def total(self) -> SetErrors:
        """The counts of all datasets together."""
        total = SetErrors("exact")  # the protocol is not used
        for errors in self.sets.values():
            total.samples += errors.samples
            total.correct += errors.correct
            total.edits += errors.edits
            total.characters += errors.characters
            total.wrong_case += errors.wrong_case
            total.kinds.update(errors.kinds)
        return total

    @property
    def expected_calibration_error(self) -> float | None:
        """Mean absolute difference of score and word accuracy over the bins, weighted by samples; `None` without samples.

        As in Guo et al., 2017, "On Calibration of Modern Neural Networks".
        """
        samples = sum(score_bin.samples for score_bin in self.bins)
        difference = sum(abs(score_bin.correct - score_bin.score) for score_bin in self.bins)
        return difference / samples if samples else None

    def ranked_confusions(self) -> list[tuple[str | None, str | None, int]]:
        """Return true character, predicted character and count; the most frequent first, ties in Unicode order."""
        triples = [(true, predicted, count) for (true, predicted), count in self.confusions.items()]
        return sorted(triples, key=lambda triple: (-triple[2], triple[0] or "", triple[1] or ""))

    def summary(self) -> dict[str, Any]:
        """Return everything except the mistakes for a JSON file, with the first `SUMMARIZED` confusions.

        `None` means no character in confusions, and no mean without samples.
        """
        error, total = self.expected_calibration_error, self.total
        bins = [
            {
                "from": number / BINS,
                "to": (number + 1) / BINS,
                "samples": score_bin.samples,
                "correct": score_bin.correct,
                "mean_score": round(score_bin.score / score_bin.samples, 6) if score_bin.samples else None,
            }
            for number, score_bin in enumerate(self.bins)
        ]
        return {
            "samples": total.samples,
            "errors": total.wrong,
            "kinds": {
                name: {kind.value: errors.kinds[kind] for kind in ErrorKind} for name, errors in self.sets.items()
            },
            "wrong_case": {name: errors.wrong_case for name, errors in self.sets.items()},
            "confusions": [list(confusion) for confusion in self.ranked_confusions()[:SUMMARIZED]],
            "calibration": {
                "bins": bins,
                "expected_calibration_error": None if error is None else round(error, 6),
            },
        }
