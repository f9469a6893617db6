# SPDX-License-Identifier: Apache-2.0
"""Unicode normalization of labels."""

from collections.abc import Iterator

from ..charsets import Normalization, normalize_unicode
from .sample import Sample, Source


class NormalizedSource(Source):
    """A source with normalized labels.

    Args:
        source: source of the samples.
        form: normalization form.
    """

    def __init__(self, source: Source, form: Normalization):
        self.source = source
        self.form = form
        self.name, self.weight, self.num_samples = source.name, source.weight, source.num_samples
        self.local = source.local

    @property
    def fingerprint(self) -> list[object]:
        """The fingerprint of the source, and the form."""
        return [self.form, self.source.fingerprint]

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        for sample in self.source.read(part, parts, seed, epoch):
            yield sample._replace(text=normalize_unicode(sample.text, self.form))

    def texts(self) -> Iterator[str]:
        return (normalize_unicode(text, self.form) for text in self.source.texts())
