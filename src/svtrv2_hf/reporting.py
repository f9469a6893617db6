# SPDX-License-Identifier: Apache-2.0
"""Building blocks of reports and pages: tables, percentages, counts and images."""

import base64
import io
from collections.abc import Iterable, Sequence

from PIL import Image


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "lr") -> str:
    """Render a Markdown table whose columns are also aligned as plain text.

    Args:
        header: column titles.
        rows: cells of each row, one per title. `None` is an empty cell.
        align: `l` (left) or `r` (right) for each column; the last letter applies to all further columns.

    Returns:
        the lines of the table, without a final newline.

    >>> print(markdown_table(["set", "images"], [["SVT", 647], ["own", None]]))
    | set | images |
    |-----|-------:|
    | SVT |    647 |
    | own |        |

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    cells = [[_cell(value) for value in row] for row in (header, *rows)]
    align = align.ljust(len(header), align[-1])[: len(header)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pad = {"l": str.ljust, "r": str.rjust}
    lines = [
        f"| {' | '.join(pad[side](cell, width) for cell, side, width in zip(row, align, widths, strict=True))} |"
        for row in cells
    ]
    rule = "|".join("-" * (width + 1) + {"l": "-", "r": ":"}[side] for side, width in zip(align, widths, strict=True))
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _cell(value: object) -> str:
    return "" if value is None else " ".join(str(value).split("\n")).replace("|", "\\|")


def percent(part: int, whole: int) -> str:
    """Format a percentage with one decimal, rounded down, so that 100.0 means all; `-` if `whole` is 0.

    >>> percent(2, 3), percent(1999, 2000), percent(0, 0)
    ('66.6', '99.9', '-')
    """
    return f"{part * 1000 // whole / 10:.1f}" if whole else "-"


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "label"), plural(2000, "label")
    ('1 label', '2,000 labels')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def first(names: Sequence[str], limit: int = 3) -> str:
    """Join the first names of a list, followed by an ellipsis if there are more.

    >>> first(["a", "b"]), first(["a", "b", "c"], limit=2)
    ('a, b', 'a, b, ...')
    """
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])


def data_url(image: Image.Image, max_size: tuple[int, int]) -> str:
    """Encode an image, reduced to a maximum width and height in pixels, as a `data:` URL for HTML."""
    small = image.copy()
    small.thumbnail(max_size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
