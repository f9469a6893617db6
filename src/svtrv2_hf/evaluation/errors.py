# SPDX-License-Identifier: Apache-2.0
"""What a model misreads: kinds of errors, confused characters, calibration, and examples to look at."""

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
from ..data.audit_report import is_space
from .evaluator import Reading
from .metrics import Protocol, normalize_text


CLOSE = (
    0.5  # similarity, 1 - edit distance / length of the longer text, from which a wrong reading is still of this text
)
BINS = 20  # of scores, of equal width
SUMMARIZED = 100  # confusions in a summary
UNREADABLE_NAMED = 100  # images a set whose names and errors are kept


class ErrorKind(StrEnum):
    """How a reading is wrong under its protocol: the first of these that fits. The values are keys of results."""

    UNREADABLE = "unreadable"
    """The image cannot be opened."""
    NOTHING_READ = "nothing_read"
    """Nothing that the protocol compares was read."""
    ONE_WRONG = "one_wrong"
    """One character is another."""
    ONE_MISSING = "one_missing"
    """One character is missing."""
    ONE_TOO_MANY = "one_too_many"
    """There is one character that does not belong there."""
    ANOTHER_TEXT = "another_text"
    """Less than half of the longer text agrees: a word invented or guessed, a wrong label, or a bad crop."""
    SEVERAL_WRONG = "several_wrong"
    """Two characters or more are wrong, but at least half agree."""


def kind_of(reading: Reading, protocol: Protocol) -> ErrorKind | None:
    """What is wrong with a reading, or `None` if it is right."""
    if reading.error is not None:
        return ErrorKind.UNREADABLE
    true, read = normalize_text(reading.sample.text, protocol), normalize_text(reading.text, protocol)
    if true == read:
        return None
    if not read:
        return ErrorKind.NOTHING_READ
    edits = [edit.tag for edit in Levenshtein.editops(true, read)]
    if len(edits) == 1:
        return {
            "replace": ErrorKind.ONE_WRONG,
            "delete": ErrorKind.ONE_MISSING,
            "insert": ErrorKind.ONE_TOO_MANY,
        }[edits[0]]
    close = Levenshtein.normalized_similarity(true, read) >= CLOSE
    return ErrorKind.SEVERAL_WRONG if close else ErrorKind.ANOTHER_TEXT


@dataclass(frozen=True)
class Column:
    """What stands at one place of a label and of a reading that are aligned.

    Attributes:
        true: the character of the label; `None` where the reading has one too many.
        read: the character of the reading; `None` where it misses one.
        compared: whether the protocol compares it.
        wrong: whether the two differ under the protocol.
        score: confidence of the character that was read, 0..1; `None` where there is none.
    """

    true: str | None
    read: str | None
    compared: bool
    wrong: bool
    score: float | None


def align(reading: Reading, protocol: Protocol) -> list[Column]:
    """Sets a reading below its label with the fewest edits under the protocol; what it ignores goes along."""
    true, read = _keys(reading.sample.text, protocol), _keys(reading.text, protocol)
    scores = [character["score"] for character in reading.characters for _ in character["text"]]
    columns: list[Column] = []
    i = j = 0

    def put(with_true: bool, with_read: bool, compared: bool = True, wrong: bool = False) -> None:
        nonlocal i, j
        columns.append(
            Column(
                true[i][0] if with_true else None,
                read[j][0] if with_read else None,
                compared,
                wrong,
                scores[j] if with_read and j < len(scores) else None,
            )
        )
        i, j = i + with_true, j + with_read

    def put_ignored() -> None:
        while (with_true := i < len(true) and not true[i][1]) | (with_read := j < len(read) and not read[j][1]):
            put(with_true, with_read, compared=False)

    compared_true, compared_read = [key for _, key in true if key], [key for _, key in read if key]
    for operation in Levenshtein.opcodes(compared_true, compared_read):
        sides = zip_longest(
            range(operation.src_start, operation.src_end), range(operation.dest_start, operation.dest_end)
        )
        for place_in_true, place_in_read in sides:
            put_ignored()
            put(place_in_true is not None, place_in_read is not None, wrong=operation.tag != "equal")
    put_ignored()
    return columns


def _keys(text: str, protocol: Protocol) -> list[tuple[str, str]]:
    """Each character with what the protocol compares of it; that is empty where it ignores the character."""
    normalized, keys, start = normalize_text(text, protocol), [], 0
    for character in text:
        end = start + len(normalize_text(character, protocol))  # some letters are two in lower case
        keys.append((character, normalized[start:end]))
        start = end
    return keys


def visible(character: str) -> str:
    """A character as it can be seen when it stands alone."""
    category = unicodedata.category(character)
    if is_space(character):
        return "␣"
    if category[0] == "M":  # an accent needs something to stand on
        return f"◌{character}"
    return code_point(character) if category[0] in "CZ" else character


@dataclass(frozen=True, eq=False)
class Mistake:
    """A wrong reading that is kept to be shown.

    Attributes:
        set_name: of the set it is from.
        protocol: under which it is wrong.
        kind: how it is wrong.
        reading: with the image as it is stored.
        chance: a number that follows from the seed and the sample, as if drawn at random.
    """

    set_name: str
    protocol: Protocol
    kind: ErrorKind
    reading: Reading
    chance: int

    def columns(self) -> list[Column]:
        """Label and reading, aligned."""
        return align(self.reading, self.protocol)


@dataclass
class SetErrors:
    """What is wrong in one set.

    Attributes:
        protocol: what texts must agree in.
        samples: readings, those of unreadable images included.
        right: those that agree with their label under the protocol.
        wrong_case: those of them whose case differs from that of the label, which the protocol ignores.
        kinds: errors by kind.
        worst: the most confident errors, the worst first.
        typical: errors drawn at random, in the order of their draw.
        unreadable: name and error of images that cannot be opened, the first `UNREADABLE_NAMED` by name.
    """

    protocol: Protocol
    samples: int = 0
    right: int = 0
    wrong_case: int = 0
    kinds: Counter[ErrorKind] = field(default_factory=Counter)
    worst: list[Mistake] = field(default_factory=list)
    typical: list[Mistake] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Readings that do not agree with their label."""
        return self.samples - self.right

    @property
    def shown(self) -> list[Mistake]:
        """The mistakes that are kept, each once: the worst, then the typical ones."""
        return list(dict.fromkeys([*self.worst, *self.typical]))


@dataclass
class Bin:
    """Readings whose scores lie in one interval: how many, the sum of their scores, and how many are right."""

    samples: int = 0
    score: float = 0.0
    right: int = 0


class Errors:
    """Collects what is misread, in any order of the readings.

    Only counts and the mistakes to be shown are kept, so that memory does not grow with the number of samples: at most
    `2 * kept` images for each set, as they are stored.

    Confusions are counted where a reading is right or of a kind that says which characters were confused: not of
    unreadable images, where nothing was read, and of readings that are another text altogether, whose alignment is chance.

    Args:
        kept: mistakes kept of each set, of the most confident and as many of random ones.
        seed: of the random ones.

    Attributes:
        sets: by name, in the order in which they came.
        characters: how often each occurs in the labels whose characters were compared with those read.
        confusions: how often a character of a label was read as another; `None` stands for nothing: (None, c) is a character
            too many, (c, None) a missing one. Characters are as the protocol compares them.
        bins: readings by score, `BINS` intervals of equal width from 0 to 1; unreadable images have no score.
    """

    def __init__(self, kept: int = 24, seed: int = 0):
        self.kept = kept
        self.seed = seed
        self.sets: dict[str, SetErrors] = {}
        self.characters: Counter[str] = Counter()
        self.confusions: Counter[tuple[str | None, str | None]] = Counter()
        self.bins = [Bin() for _ in range(BINS)]

    def add(self, set_name: str, reading: Reading, protocol: Protocol) -> None:
        """Counts a reading, and keeps it if it is among those to be shown.

        Raises:
            ValueError: the set was begun under another protocol, or the score is not in 0..1.
        """
        one_set = self.sets.setdefault(set_name, SetErrors(protocol))
        if one_set.protocol != protocol:
            raise ValueError(
                f"{set_name} was begun under the protocol {one_set.protocol!r}, not {protocol!r}. Give sets that are "
                "compared differently names of their own."
            )
        if not 0 <= reading.score <= 1:
            raise ValueError(
                f"{set_name}, {reading.sample.name}: the score {reading.score} is not in 0..1. The model's outputs are "
                "unusable; look for NaN in its weights."
            )
        kind = kind_of(reading, protocol)
        one_set.samples += 1
        if kind is ErrorKind.UNREADABLE:
            bisect.insort(one_set.unreadable, (reading.sample.name, str(reading.error)))
            del one_set.unreadable[UNREADABLE_NAMED:]
        else:
            score_bin = self.bins[min(int(reading.score * BINS), BINS - 1)]
            score_bin.samples += 1
            score_bin.score += reading.score
            score_bin.right += kind is None
            self._compare(reading, protocol, kind)
        if kind is None:
            one_set.right += 1
            exact = [normalize_text(text, protocol, keep_case=True) for text in (reading.sample.text, reading.text)]
            one_set.wrong_case += exact[0] != exact[1]
            return
        one_set.kinds[kind] += 1
        if kind is not ErrorKind.UNREADABLE:
            self._keep(one_set, Mistake(set_name, protocol, kind, reading, self._chance(reading)))

    def _compare(self, reading: Reading, protocol: Protocol, kind: ErrorKind | None) -> None:
        if kind in (ErrorKind.NOTHING_READ, ErrorKind.ANOTHER_TEXT):
            return
        true, read = normalize_text(reading.sample.text, protocol), normalize_text(reading.text, protocol)
        self.characters.update(true)
        for operation in Levenshtein.editops(true, read) if kind is not None else ():
            self.confusions[
                None if operation.tag == "insert" else true[operation.src_pos],
                None if operation.tag == "delete" else read[operation.dest_pos],
            ] += 1

    def _chance(self, reading: Reading) -> int:
        # Of the image, too, since names may repeat.
        digest = blake2b(f"{self.seed} {reading.sample.name!r} {reading.sample.text!r} ".encode(), digest_size=8)
        digest.update(reading.sample.image)
        return int.from_bytes(digest.digest())

    def _keep(self, one_set: SetErrors, mistake: Mistake) -> None:
        bisect.insort(one_set.worst, mistake, key=lambda one: (-one.reading.score, one.chance))
        bisect.insort(one_set.typical, mistake, key=lambda one: one.chance)
        del one_set.worst[self.kept :], one_set.typical[self.kept :]

    @property
    def samples(self) -> int:
        """Readings of all sets, those of unreadable images included."""
        return sum(one_set.samples for one_set in self.sets.values())

    @property
    def right(self) -> int:
        """Readings of all sets that agree with their label."""
        return sum(one_set.right for one_set in self.sets.values())

    @property
    def wrong(self) -> int:
        """Readings of all sets that do not agree with their label."""
        return self.samples - self.right

    @property
    def expected_calibration_error(self) -> float | None:
        """Mean distance of score and word accuracy over the bins, each by its samples; `None` without samples.

        As of Guo et al., 2017, "On Calibration of Modern Neural Networks".
        """
        samples = sum(one.samples for one in self.bins)
        return sum(abs(one.right - one.score) for one in self.bins) / samples if samples else None

    def ranked_confusions(self) -> Iterator[tuple[str | None, str | None, int]]:
        """Character of the label, character read, and how often; the most frequent first, then in the order of Unicode."""
        order = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
        for (true, read), count in order:
            yield true, read, count

    def summary(self) -> dict[str, Any]:
        """What JSON can hold of it: all but the mistakes themselves, and of the confusions the first `SUMMARIZED`.

        `null` stands for nothing: no character in confusions, no mean where there are no samples.
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
                        "right": one.right,
                        "mean_score": round(one.score / one.samples, 6) if one.samples else None,
                    }
                    for number, one in enumerate(self.bins)
                ],
                "expected_calibration_error": None if error is None else round(error, 6),
            },
        }
