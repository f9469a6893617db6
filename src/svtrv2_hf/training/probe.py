# SPDX-License-Identifier: Apache-2.0
"""Checks of the data before training, so that errors do not occur hours later."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from tqdm import tqdm

from ..charsets import Normalization, normalize_unicode
from ..data.labels import LabelEncoder, UnknownCharactersError
from ..data.sample import Source
from ..evaluation.protocols import EvaluationProtocol, normalize_text
from ..image_processing_svtrv2 import UnreadableImageError, load_rgb
from ..reporting import plural


IMAGES = 8  # to read from each evaluation dataset
REMOTE_LABELS = 10_000  # to read from a source that is remote or rendered


def check_not_empty(sources: Sequence[Source]) -> None:
    """Check that every training dataset has samples.

    Raises:
        ValueError: a dataset has no samples.
    """
    for source in sources:
        if source.num_samples == 0 or (source.num_samples is None and next(source.read(), None) is None):
            raise ValueError(f"Training dataset {source.name} has no samples.")


def check_characters(sources: Sequence[Source], encoder: LabelEncoder) -> None:
    """Search training labels for characters outside the charset: all labels of local sources, the first 10,000 of others.

    Raises:
        UnknownCharactersError: with the characters, their frequencies, and solutions.
    """
    unknown: Counter[str] = Counter()
    solved: Counter[Normalization] = Counter()
    forms: tuple[Normalization, ...] = ("nfc", "nfkc")
    labels = invalid = 0
    for text in (text for source in sources for text in _texts(source)):
        labels += 1
        if characters := encoder.unknown(text):
            invalid += 1
            unknown.update(sorted(characters))
            solved.update(form for form in forms if not encoder.unknown(normalize_unicode(text, form)))
    if invalid:
        form: Normalization = "nfkc" if solved["nfkc"] > solved["nfc"] else "nfc"
        hint = f" With --normalize {form}, {solved[form]} of the labels are in the charset." if solved[form] else ""
        raise UnknownCharactersError(
            f"{invalid} of {labels} labels have characters outside the charset: {_list(unknown)}. Add them to the charset "
            "(--charset FILE), or pass --unknown_characters drop_sample or drop_character. `svtrv2 audit` lists the samples."
            + hint
        )


def check_evaluation_set(source: Source, encoder: LabelEncoder, protocol: EvaluationProtocol) -> str | None:
    """Read the first images of an evaluation dataset, and as many labels as [`check_characters`].

    Returns:
        a sentence about labels with characters outside the charset; `None` if there are none.

    Raises:
        ValueError: the dataset cannot be read, has no samples, or none of the first images is readable.
    """
    unknown: Counter[str] = Counter()
    labels = invalid = impossible = 0
    try:
        _check_images(source)
        known = set(normalize_text("".join(encoder.ids), protocol))
        for text in _texts(source):
            labels += 1
            characters = encoder.unknown(text)
            if characters := {c for c in characters if not c.isspace() or normalize_text(c, protocol)}:
                invalid += 1
                unknown.update(sorted(characters))
                impossible += not known.issuperset(normalize_text(text, protocol))
    except (ValueError, OSError) as error:
        raise ValueError(f"Evaluation dataset {source.name} cannot be used: {error}") from error
    if not invalid:
        return None
    ignored = f"; in the others, the {protocol} protocol ignores these characters" if impossible < invalid else ""
    return (
        f"Evaluation dataset {source.name}: {invalid:,} of {plural(labels, 'label')} have characters outside the charset: "
        f"{_list(unknown)}. {impossible:,} of them cannot be predicted{ignored}."
    )


def _check_images(source: Source) -> None:
    samples = list(islice(source.read(), IMAGES))
    if not samples:
        raise ValueError("it has no samples.")
    for sample in samples:
        try:
            load_rgb(sample.image, sample.name)
            return
        except UnreadableImageError as error:
            failure = error
    raise ValueError(f"none of its first {len(samples)} images is readable. {failure}")


def _texts(source: Source) -> Iterator[str]:
    number = source.num_samples if source.local else REMOTE_LABELS
    texts = source.texts() if source.local else islice(source.texts(), number)
    return iter(tqdm(texts, f"Checking {source.name}", number, unit=" labels", delay=5))


def _list(unknown: Counter[str]) -> str:
    return ", ".join(f"{character!r} ({number})" for character, number in unknown.most_common(50))
