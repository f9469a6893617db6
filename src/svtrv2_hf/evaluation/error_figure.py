# SPDX-License-Identifier: Apache-2.0
"""The most confident errors of a model as one figure, for model cards."""

from itertools import chain, zip_longest
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure

from ..charsets import code_point
from ..image_processing_svtrv2 import load_rgb
from .errors import Errors


COLUMNS, SHOWN = 4, 24  # cells in a row, and in all
FONT = "DejaVu Sans Mono"  # comes with matplotlib, and distinguishes I and l, O and 0
LONGEST = 32  # characters of a text that are shown


def write_figure(errors: Errors, path: str | Path, title: str) -> None:
    """Write the most confident errors of all datasets in turn, with label, prediction and score, to an image file.

    Args:
        errors: collected errors.
        path: file to write; the extension selects the format, as in `matplotlib.figure.Figure.savefig`.
        title: title of the figure, plain text.
    """
    ranked = zip_longest(*(dataset.worst for dataset in errors.sets.values()))
    in_turn = (sorted(filter(None, mistakes), key=lambda mistake: -mistake.prediction.score) for mistakes in ranked)
    mistakes = list(chain.from_iterable(in_turn))[:SHOWN]
    rows = max(1, -(-len(mistakes) // COLUMNS))
    figure = Figure(figsize=(16, 1.9 * rows + 0.7), layout="constrained")
    figure.suptitle(_shown(title, 100), family=FONT, parse_math=False)
    for axes in figure.subplots(rows, COLUMNS, squeeze=False).flat:
        axes.set_axis_off()
    for axes, mistake in zip(figure.axes, mistakes, strict=False):
        sample, text = mistake.prediction.sample, mistake.prediction.text
        axes.imshow(load_rgb(sample.image, sample.name))
        facts = f"{mistake.prediction.score:.3f} {_shown(mistake.set_name, 24)}"
        caption = f"label: {_shown(sample.text)}\ntext:  {_shown(text)}\n{facts}"
        axes.set_title(caption, family=FONT, fontsize=11, loc="left", parse_math=False)
    figure.savefig(path, dpi=100)


def _shown(text: str, longest: int = LONGEST) -> str:
    """Shorten a text, and replace characters that the font does not have by code points."""
    font = font_manager.get_font(font_manager.findfont(FONT))
    text = "".join(c if c.isprintable() and font.get_char_index(ord(c)) else code_point(c) for c in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
