# SPDX-License-Identifier: Apache-2.0
"""Specification of a source: `PLACE?key=value&key=value`."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from ..redaction import redact
from .splits import SplitChoice


@dataclass(frozen=True)
class Spec:
    """A parsed specification.

    Attributes:
        place: location of the data, possibly with secrets; `str(spec)` is without.
        name: name in logs and tables.
        options: values by key.
        split: split to read.
    """

    place: str
    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    split: SplitChoice = field(default_factory=SplitChoice)

    def __str__(self) -> str:
        return redact(self.place)

    @property
    def weight(self) -> float | None:
        """Weight in a mixture of sources."""
        return self.number("weight")

    @property
    def num_samples(self) -> int | None:
        """Number of samples according to the option `samples`."""
        number = self.number("samples")
        if number is not None and number != int(number):
            raise self._error("samples", "a whole number")
        return None if number is None else int(number)

    def number(self, key: str) -> float | None:
        """Return the value of an option, a finite number above 0, or `None` if it is not given; otherwise raise ValueError."""
        if key not in self.options:
            return None
        try:
            number = float(self.options[key])
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise self._error(key, "a number above 0")
        return number

    def flag(self, key: str, default: bool) -> bool:
        """Return the value of an option that is 0 or 1; otherwise raise ValueError."""
        value = self.options.get(key, str(int(default)))
        if value not in ("0", "1"):
            raise self._error(key, "0 or 1")
        return value == "1"

    def _error(self, key: str, expected: str) -> ValueError:
        return ValueError(f"{self}: {key} must be {expected}, not {self.options[key]!r}.")


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split a specification into place and options, and decode percent-encoded values.

    Raises:
        ValueError: an option is repeated or has no value.
    """
    place, _, query = spec.rpartition("?")
    if not place or not re.fullmatch(r"\w+=[^&]*(&\w+=[^&]*)*", query):
        return spec, {}
    options: dict[str, str] = {}
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key in options or not value:
            raise ValueError(f"{redact(spec)!r}: {key} {'is repeated' if key in options else 'has no value'}.")
        options[key] = unquote(value)
    return place, options
