# SPDX-License-Identifier: Apache-2.0
"""Synthetic text."""

from collections.abc import Sequence

from ..data.sample import Source
from .format import Format, Option
from .spec import Spec


def _open(spec: Spec, files: Sequence[str]) -> Source:
    from ..charsets import synthetic_charset
    from ..synthetic.source import SyntheticSource

    return SyntheticSource(
        atlas=files[0] or None,
        charset=synthetic_charset(spec.options.get("charset") or None),
        difficulty=spec.number("difficulty") or 1.0,
        num_samples=spec.num_samples or 1_000_000,
        lines=spec.flag("lines", True),
        words=spec.options.get("words"),
        name=spec.name,
        weight=spec.weight,
        allow_unknown_license=spec.flag("allow_unknown_license", False),
    )


FORMAT = Format(
    name="synthetic text",
    help="`synthetic:`, text rendered during training in the fonts of this machine, or `synthetic:ATLAS`, in those of an atlas",
    options=(
        Option("samples", "images per epoch, 1,000,000 by default"),
        Option("difficulty", "strength of the distortions, 1 by default"),
        Option("lines", "0 for words only"),
        Option("charset", "file with the characters of the texts, one per line; by default printable ASCII"),
        Option("words", "file with additional words, one per line"),
        Option("allow_unknown_license", "1 to use fonts that are not in the curated list of licenses"),
    ),
    prefix="synthetic:",
    open=_open,
    default_name="synthetic",
)
