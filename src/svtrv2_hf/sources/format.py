# SPDX-License-Identifier: Apache-2.0
"""Definition of a source format: how to recognize it, what its options are, and how to open it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..data.sample import Source
from .place import Place
from .spec import Spec


class Option(NamedTuple):
    """A `key=value` setting of a source and its meaning."""

    key: str
    help: str


COMMON = (
    Option("weight", "share in a mixture of sources; without weights, an epoch contains every sample once"),
    Option("name", "name in logs and tables; by default that of the folder or file"),
)
SPLIT = Option("split", "split to read, or `all`; by default `train` for training and `test` for evaluation")
COLUMNS = (Option("image", "column of the images"), Option("text", "column of the labels"))
SAMPLES = Option("samples", "number of samples, if the data do not state it")


@dataclass(frozen=True)
class Format:
    """A format of labeled images.

    A format is selected by the prefix of a place or, without a prefix, by the files at the place. It must not import
    optional packages before `open` is called.

    Args:
        name: name in messages.
        help: description of the places that it reads, a noun phrase in Markdown for messages and the documentation.
        open: opens a source from a [`Spec`] and what `match` returned, or the rest of the place after the prefix.
        options: accepted settings in addition to those of all formats.
        prefix: prefix such as `hub:` that selects the format.
        match: returns the files of this format at a [`Place`], in order.
        search: like `match`, but called only if no format matches; for expensive or less specific searches.
        single_file: whether a source is a single file, so that a place with several is ambiguous.
        default_name: default name of sources.
    """

    name: str
    help: str
    open: Callable[[Spec, Sequence[str]], Source]
    options: tuple[Option, ...] = ()
    prefix: str | None = None
    match: Callable[[Place], list[str]] = lambda place: []  # noqa: ARG005
    search: Callable[[Place], list[str]] = lambda place: []  # noqa: ARG005
    single_file: bool = False
    default_name: str | None = None

    def check(self, options: Mapping[str, str], spec: str) -> None:
        """Raise ValueError unless the format has all of these options."""
        accepted = [option.key for option in (*COMMON, *self.options)]
        if unknown := [key for key in options if key not in accepted]:
            raise ValueError(
                f"{spec!r}: unknown option {', '.join(unknown)} for {self.name}; its options are {', '.join(accepted)}."
            )
