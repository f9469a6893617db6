# SPDX-License-Identifier: Apache-2.0
"""Checks of the data before training, so that errors do not occur hours later."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat

from tqdm import tqdm

from ..charsets import Normalization, normalize_unicode
from ..data.labels import LabelEncoder, RejectedSampleError, Rejection, UnknownCharactersError, frames_needed
from ..data.sample import Sample, Source
from ..evaluation.protocols import EvaluationProtocol, normalize_text
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb, open_image, upright_size
from ..reporting import plural


IMAGES = 8  # to read from each evaluation dataset
REMOTE_LABELS = 10_000  # to read from a source that is remote or rendered
SIZES = 2_000  # images of a source whose sizes are read
FORMS: tuple[Normalization, ...] = ("nfc", "nfkc")


def check_not_empty(sources: Sequence[Source]) -> None:
    """Check that every training dataset has samples.

    Raises:
        ValueError: a dataset has no samples.
    """
    for source in sources:
        if source.num_samples == 0 or (source.num_samples is None and next(source.read(), None) is None):
            raise ValueError(f"Training dataset {source.name} has no samples.")


class SourceCheck:
    """The samples of a training dataset that training uses or skips.

    The labels of local sources are all checked, and of others the first 10,000; the sizes of images, if there are at most 2,000.

    Attributes:
        source: the dataset.
        labels: number of labels checked.
        is_complete: whether these are all labels.
        skipped: number of samples that training skips, by reason.
        examples: name and label of the first such sample.
        unknown: number of labels with each character outside the charset.
        invalid: number of labels with such characters.
        solved: number of them that a Unicode normalization form would bring into the charset.
    """

    def __init__(self, source: Source, encoder: LabelEncoder, image_processor: SVTRv2ImageProcessor):
        self.source, self.encoder, self.image_processor = source, encoder, image_processor
        self.labels = self.invalid = 0
        self.skipped: Counter[Rejection] = Counter()
        self.examples: dict[Rejection, tuple[str, str]] = {}
        self.unknown: Counter[str] = Counter()
        self.solved: Counter[Normalization] = Counter()
        with_sizes = source.local and source.num_samples is not None and source.num_samples <= SIZES
        samples: Iterable[Sample | None] = source.read() if with_sizes else repeat(None)
        for number, (text, sample) in enumerate(zip(_texts(source), samples, strict=False), start=1):
            self._add(text, f"sample {number}" if sample is None else sample.name, sample)
        self.is_complete = source.local or self.labels == source.num_samples

    def _add(self, text: str, name: str, sample: Sample | None) -> None:
        self.labels += 1
        if characters := self.encoder.unknown(text):
            self.invalid += 1
            self.unknown.update(sorted(characters))
            self.solved.update(form for form in FORMS if not self.encoder.unknown(normalize_unicode(text, form)))
        try:
            ids = self.encoder.encode(text)
            if sample is not None and frames_needed(ids) > self._frames(sample):
                raise RejectedSampleError(Rejection.UNALIGNABLE, repr(text))
        except UnknownCharactersError:
            pass
        except (RejectedSampleError, UnreadableImageError) as error:
            reason = getattr(error, "reason", Rejection.UNREADABLE)
            self.skipped[reason] += 1
            self.examples.setdefault(reason, (name, text))

    def _frames(self, sample: Sample) -> int:
        size = upright_size(open_image(sample.image, sample.name), sample.name)
        return self.image_processor.target_size(*size)[1] // self.image_processor.pixels_per_frame

    @property
    def usable(self) -> int:
        """Number of the checked samples that training uses."""
        return self.labels - self.skipped.total()

    def describe_skipped(self) -> str:
        """Return the numbers of skipped samples with the first of each, or an empty string."""
        return ", ".join(
            f"{count:,} {str(reason).replace('_', ' ')} (first: {name}, {text if len(text) <= 30 else text[:30] + '...'!r})"
            for reason, count in self.skipped.most_common()
            for name, text in [self.examples[reason]]
        )


def check_labels(
    sources: Sequence[Source], encoder: LabelEncoder, image_processor: SVTRv2ImageProcessor
) -> list[SourceCheck]:
    """Check training datasets by the rules for labels.

    Raises:
        UnknownCharactersError: labels have characters outside the charset, and `encoder` regards them as an error; with the
            characters, their frequencies, and solutions.
        ValueError: training would skip all samples.
    """
    checks = [SourceCheck(source, encoder, image_processor) for source in sources]
    labels, invalid = sum(check.labels for check in checks), sum(check.invalid for check in checks)
    if invalid and encoder.unknown_characters == "error":
        unknown = sum((check.unknown for check in checks), Counter[str]())
        solved = sum((check.solved for check in checks), Counter[Normalization]())
        form: Normalization = "nfkc" if solved["nfkc"] > solved["nfc"] else "nfc"
        hint = f" With --normalize {form}, {solved[form]} of the labels are in the charset." if solved[form] else ""
        raise UnknownCharactersError(
            f"{invalid} of {labels} labels have characters outside the charset: {_list(unknown)}. Add them to the charset "
            "(`svtrv2 charset` writes a file for --charset from labels), or pass --unknown_characters drop_sample or "
            "drop_character. `svtrv2 audit` lists the samples." + hint
        )
    for check in checks:
        if not check.usable:
            raise ValueError(
                f"Training dataset {check.source.name}: none of {plural(check.labels, 'sample')} can be trained on: "
                f"{check.describe_skipped()}."
            )
    return checks


def check_evaluation_set(source: Source, encoder: LabelEncoder, protocol: EvaluationProtocol) -> str | None:
    """Read the first images of an evaluation dataset, and as many labels as [`check_labels`].

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
