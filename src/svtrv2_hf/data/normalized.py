# SPDX-License-Identifier: Apache-2.0
"""Labels in a Unicode normalization form."""

from collections.abc import Iterator
from typing import Any

from ..charsets import Normalization, normalize_unicode
from .sample import Sample, Source


class NormalizedSource(Source):
    """A source whose labels are normalized as they are read.

    Args:
        source: where the samples come from.
        form: the normalization form.
    """

    def __init__(self, source: Source, form: Normalization):
        self.source = source
        self.form = form
        self.name, self.weight, self.num_samples, self.local = (
            source.name,
            source.weight,
            source.num_samples,
            source.local,
        )

    @property
    def fingerprint(self) -> Any:
        """That of the source, and the form."""
        return [self.form, self.source.fingerprint]

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        """As the source reads them, with normalized labels."""
        for sample in self.source.read(part, parts, seed, epoch):
            yield sample._replace(text=normalize_unicode(sample.text, self.form))

    def texts(self) -> Iterator[str]:
        """The normalized labels."""
        return (normalize_unicode(text, self.form) for text in self.source.texts())
