# SPDX-License-Identifier: Apache-2.0
"""Error analysis: kinds of errors, confused characters, calibration, and wrong predictions to look at."""

import bisect
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from itertools import zip_longest
from typing import Any

from rapidfuzz.distance import Levenshtein

from ..data.audit import code_point
from .evaluator import Prediction
from .metrics import Protocol, normalize_text


# Similarity (1 - edit distance / length of the longer text) from which a wrong prediction still counts as the same text.
CLOSE = 0.5
BINS = 20  # of scores, of equal width
SUMMARIZED = 100  # confusions in a summary
UNREADABLE_NAMED = 100  # unreadable images of each set whose names and errors are kept


class ErrorKind(StrEnum):
    """Kinds of errors under a protocol; a prediction is of the first kind that fits. The values are keys of results files."""

    UNREADABLE = "unreadable"
    """The image cannot be opened."""
    NOTHING_READ = "nothing_read"
    """The prediction has no character that the protocol compares."""
    ONE_WRONG = "one_wrong"
    """One character is replaced by another."""
    ONE_MISSING = "one_missing"
    """One character is missing."""
    ONE_TOO_MANY = "one_too_many"
    """There is one extra character."""
    ANOTHER_TEXT = "another_text"
    """Less than half of the longer text agrees: an invented word, a wrong label, or a bad crop."""
    SEVERAL_WRONG = "several_wrong"
    """Two or more characters are wrong, but at least half of the longer text agrees."""


def kind_of(prediction: Prediction, protocol: Protocol) -> ErrorKind | None:
    """The kind of error of a prediction; `None` if the prediction is correct."""
    if prediction.error is not None:
        return ErrorKind.UNREADABLE
    true, predicted = (normalize_text(text, protocol) for text in (prediction.sample.text, prediction.text))
    if true == predicted:
        return None
    if not predicted:
        return ErrorKind.NOTHING_READ
    edits = [edit.tag for edit in Levenshtein.editops(true, predicted)]
    if len(edits) == 1:
        return {
            "replace": ErrorKind.ONE_WRONG,
            "delete": ErrorKind.ONE_MISSING,
            "insert": ErrorKind.ONE_TOO_MANY,
        }[edits[0]]
    close = Levenshtein.normalized_similarity(true, predicted) >= CLOSE
    return ErrorKind.SEVERAL_WRONG if close else ErrorKind.ANOTHER_TEXT


@dataclass(frozen=True)
class Column:
    """One position of an aligned label and prediction.

    Attributes:
        true: character of the label; `None` if the prediction has an extra character here.
        predicted: character of the prediction; `None` if it is missing.
        compared: whether the protocol compares this position.
        wrong: whether the two characters differ under the protocol.
        score: confidence of the predicted character, 0 to 1; `None` if unknown.
    """

    true: str | None
    predicted: str | None
    compared: bool
    wrong: bool
    score: float | None


def align(prediction: Prediction, protocol: Protocol) -> list[Column]:
    """Aligns a prediction with its label with the fewest edits under the protocol; ignored characters are kept in place."""
    true, predicted = _keys(prediction.sample.text, protocol), _keys(prediction.text, protocol)
    scores = [character["score"] for character in prediction.characters for _ in character["text"]]
    columns: list[Column] = []
    i = j = 0

    def put(with_true: bool, with_predicted: bool, compared: bool = True, wrong: bool = False) -> None:
        nonlocal i, j
        columns.append(
            Column(
                true[i][0] if with_true else None,
                predicted[j][0] if with_predicted else None,
                compared,
                wrong,
                scores[j] if with_predicted and j < len(scores) else None,
            )
        )
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


def _keys(text: str, protocol: Protocol) -> list[tuple[str, str]]:
    """Each character with its normalized form, which is empty if the protocol ignores the character."""
    normalized, keys, start = normalize_text(text, protocol), [], 0
    for character in text:
        end = start + len(normalize_text(character, protocol))  # some letters have two characters in lower case
        keys.append((character, normalized[start:end]))
        start = end
    return keys


def visible(character: str) -> str:
    """A form of a character that is visible on its own: spaces, combining marks and unprintable characters are replaced."""
    category = unicodedata.category(character)
    if category == "Zs":
        return "␣"
    if category[0] == "M":  # a combining mark needs a base
        return f"◌{character}"
    return code_point(character) if category[0] in "CZ" else character


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong prediction that is kept to be shown.

    Attributes:
        set_name: name of its dataset.
        protocol: protocol under which it is wrong.
        kind: kind of error.
        prediction: the prediction, with the image as it is stored.
        chance: pseudorandom number that depends only on the seed and the sample.
    """

    set_name: str
    protocol: Protocol
    kind: ErrorKind
    prediction: Prediction
    chance: int

    def columns(self) -> list[Column]:
        """The aligned label and prediction."""
        return align(self.prediction, self.protocol)


@dataclass
class SetErrors:
    """Errors of one dataset.

    Attributes:
        protocol: how predictions are compared with labels.
        samples: number of predictions, unreadable images included.
        correct: predictions that match their label under the protocol.
        wrong_case: correct predictions whose letter case differs from the label's.
        kinds: number of errors by kind.
        worst: the most confident errors, the most confident one first.
        typical: a random sample of the errors.
        unreadable: name and error of images that cannot be opened; the first `UNREADABLE_NAMED` by name.
    """

    protocol: Protocol
    samples: int = 0
    correct: int = 0
    wrong_case: int = 0
    kinds: Counter[ErrorKind] = field(default_factory=Counter)
    worst: list[Mistake] = field(default_factory=list)
    typical: list[Mistake] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Predictions that do not match their label."""
        return self.samples - self.correct

    @property
    def shown(self) -> list[Mistake]:
        """The mistakes that are kept, without duplicates: the worst first, then the typical ones."""
        return list(dict.fromkeys([*self.worst, *self.typical]))


@dataclass
class Bin:
    """Predictions whose scores are in one interval: their number, the sum of their scores, and how many are correct."""

    samples: int = 0
    score: float = 0.0
    correct: int = 0


class Errors:
    """Collects the errors of predictions, which may come in any order.

    Only counts and the mistakes to be shown are kept, so memory does not grow with the number of samples: at most
    `2 * kept` images for each set, as they are stored.

    Confusions are counted only if the alignment is meaningful: not for unreadable images, empty predictions, and
    predictions of another text.

    Args:
        kept: number of mistakes kept for each set: that many of the most confident, and as many at random.
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

    def add(self, set_name: str, prediction: Prediction, protocol: Protocol) -> None:
        """Counts a prediction, and keeps it if it is among those to be shown.

        Raises:
            ValueError: the set already has predictions under another protocol, or the score is not in 0..1.
        """
        one_set = self.sets.setdefault(set_name, SetErrors(protocol))
        if one_set.protocol != protocol:
            raise ValueError(
                f"{set_name} already has predictions under the protocol {one_set.protocol!r}, not {protocol!r}. Use a "
                "separate set name for each protocol."
            )
        if not 0 <= prediction.score <= 1:
            raise ValueError(
                f"{set_name}, {prediction.sample.name}: the score {prediction.score} is not in 0..1. Check the weights of "
                "the model for NaN."
            )
        kind = kind_of(prediction, protocol)
        one_set.samples += 1
        if kind is ErrorKind.UNREADABLE:
            bisect.insort(one_set.unreadable, (prediction.sample.name, str(prediction.error)))
            del one_set.unreadable[UNREADABLE_NAMED:]
        else:
            score_bin = self.bins[min(int(prediction.score * BINS), BINS - 1)]
            score_bin.samples += 1
            score_bin.score += prediction.score
            score_bin.correct += kind is None
            self._compare(prediction, protocol, kind)
        if kind is None:
            one_set.correct += 1
            exact = [
                normalize_text(text, protocol, keep_case=True) for text in (prediction.sample.text, prediction.text)
            ]
            one_set.wrong_case += exact[0] != exact[1]
            return
        one_set.kinds[kind] += 1
        if kind is not ErrorKind.UNREADABLE:
            self._keep(one_set, Mistake(set_name, protocol, kind, prediction, self._chance(prediction)))

    def _compare(self, prediction: Prediction, protocol: Protocol, kind: ErrorKind | None) -> None:
        if kind in (ErrorKind.NOTHING_READ, ErrorKind.ANOTHER_TEXT):
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

    def _keep(self, one_set: SetErrors, mistake: Mistake) -> None:
        bisect.insort(one_set.worst, mistake, key=lambda one: (-one.prediction.score, one.chance))
        bisect.insort(one_set.typical, mistake, key=lambda one: one.chance)
        del one_set.worst[self.kept :], one_set.typical[self.kept :]

    @property
    def samples(self) -> int:
        """Number of predictions of all sets, unreadable images included."""
        return sum(one_set.samples for one_set in self.sets.values())

    @property
    def correct(self) -> int:
        """Predictions of all sets that match their label."""
        return sum(one_set.correct for one_set in self.sets.values())

    @property
    def wrong(self) -> int:
        """Predictions of all sets that do not match their label."""
        return self.samples - self.correct

    @property
    def expected_calibration_error(self) -> float | None:
        """Mean absolute difference of score and word accuracy over the bins, weighted by samples; `None` without samples.

        As in Guo et al., 2017, "On Calibration of Modern Neural Networks".
        """
        samples = sum(one.samples for one in self.bins)
        return sum(abs(one.correct - one.score) for one in self.bins) / samples if samples else None

    def ranked_confusions(self) -> Iterator[tuple[str | None, str | None, int]]:
        """True character, predicted character and count; the most frequent first, ties in Unicode order."""
        order = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
        for (true, predicted), count in order:
            yield true, predicted, count

    def summary(self) -> dict[str, Any]:
        """Everything except the mistakes themselves, for a JSON file, with the first `SUMMARIZED` confusions.

        `None` means no character in confusions, and no mean if there are no samples.
        """
        error = self.expected_calibration_error
        return {
            "samples": self.samples,
            "errors": self.wrong,
            "kinds": {
                name: {kind.value: one_set.kinds[kind] for kind in ErrorKind} for name, one_set in self.sets.items()
            },
            "right_but_for_case": {name: one_set.wrong_case for name, one_set in self.sets.items()},
            "confusions": [list(confusion) for confusion in self.ranked_confusions()][:SUMMARIZED],
            "calibration": {
                "bins": [
                    {
                        "from": number / BINS,
                        "to": (number + 1) / BINS,
                        "samples": one.samples,
                        "right": one.correct,
                        "mean_score": round(one.score / one.samples, 6) if one.samples else None,
                    }
                    for number, one in enumerate(self.bins)
                ],
                "expected_calibration_error": None if error is None else round(error, 6),
            },
        }
