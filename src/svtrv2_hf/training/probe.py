# SPDX-License-Identifier: Apache-2.0
"""Looks through the data before training begins, so that what is wrong with them is found then and not hours later."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from tqdm import tqdm

from ..charsets import Normalization, normalize_unicode
from ..data.labels import LabelEncoder, UnknownCharactersError
from ..data.sample import Source
from ..evaluation.metrics import EvaluationProtocol, normalize_text
from ..image_processing_svtrv2 import UnreadableImageError, load_rgb


IMAGES = 8  # that are read of each evaluation set
REMOTE_LABELS = 10_000  # that are read of a source that is not on this machine, or is rendered


def check_not_empty(sources: Sequence[Source]) -> None:
    """Checks that every training set has samples.

    Raises:
        ValueError: one has none.
    """
    for source in sources:
        if source.num_samples == 0 or (source.num_samples is None and next(source.read(), None) is None):
            raise ValueError(f"The training set {source.name} has no samples.")


def check_characters(sources: Sequence[Source], encoder: LabelEncoder) -> None:
    """Looks for characters outside the charset in training labels.

    Every label of local sources is read, and the first 10,000 of others; training itself stops at any that is left.

    Raises:
        UnknownCharactersError: there are any; the message lists them, how often they occur, and what to do.
    """
    unknown: Counter[str] = Counter()
    solved: Counter[Normalization] = Counter()
    forms: tuple[Normalization, ...] = ("nfc", "nfkc")
    strange = looked_at = 0
    for source in sources:
        for text in _texts(source):
            looked_at += 1
            if found := encoder.unknown(text):
                strange += 1
                unknown.update(sorted(found))
                solved.update(form for form in forms if not encoder.unknown(normalize_unicode(text, form)))
    if strange:
        raise UnknownCharactersError(
            f"{strange} of {looked_at} labels have characters outside the charset: {_listed(unknown)}. Add them to the charset "
            "(--charset FILE), or pass --unknown_characters drop_sample or drop_character. `svtrv2 audit` lists the samples."
            + _normalization_hint(solved)
        )


def _normalization_hint(solved: Counter[Normalization]) -> str:
    """Which normalization form brings labels into the charset, if one does."""
    form: Normalization = "nfkc" if solved["nfkc"] > solved["nfc"] else "nfc"
    return f" With --normalize {form}, {solved[form]} of the labels are in the charset." if solved[form] else ""


def check_evaluation_set(source: Source, encoder: LabelEncoder, protocol: EvaluationProtocol) -> str | None:
    """Reads the first images of an evaluation set, and its labels as [`check_characters`] does.

    Returns:
        a sentence about labels with characters outside the charset, or `None` if there are none.

    Raises:
        ValueError: the set cannot be read, or has no samples, or none of the first images can be read.
    """
    try:
        _check_images(source)
        known = set(normalize_text("".join(encoder.ids), protocol))
        unknown: Counter[str] = Counter()
        labels = strange = never = 0
        for text in _texts(source):
            labels += 1
            if found := {character for character in encoder.unknown(text) if not character.isspace()}:
                strange += 1
                unknown.update(sorted(found))
                never += not known.issuperset(normalize_text(text, protocol))
    except (ValueError, OSError) as error:
        raise ValueError(f"The evaluation set {source.name} cannot be used: {error}") from error
    if not strange:
        return None
    return (
        f"Evaluation set {source.name}: {strange:,} of {labels:,} labels have characters outside the charset: {_listed(unknown)}. "
        f"{never:,} of them can never be right; of the others, the {protocol} protocol ignores these characters."
    )


def _check_images(source: Source) -> None:
    samples = list(islice(source.read(), IMAGES))
    if not samples:
        raise ValueError("it has no samples.")
    failures = []
    for sample in samples:
        try:
            load_rgb(sample.image, sample.name)
        except UnreadableImageError as error:
            failures.append(error)
    if len(failures) == len(samples):
        raise ValueError(f"none of its first {len(samples)} images can be read. {failures[0]}")


def _texts(source: Source) -> Iterator[str]:
    number = source.num_samples if source.local else REMOTE_LABELS
    texts = source.texts() if source.local else islice(source.texts(), number)
    return iter(tqdm(texts, f"Checking {source.name}", number, unit=" labels", delay=5))


def _listed(unknown: Counter[str]) -> str:
    return ", ".join(f"{character!r} ({number})" for character, number in unknown.most_common(50))
