# SPDX-License-Identifier: Apache-2.0
"""Building blocks of printed reports and Markdown pages: tables, percentages and counts."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "lr") -> str:
    """A Markdown table whose columns also line up as plain text.

    Args:
        header: column titles.
        rows: cells of each row, as many as there are titles. `None` is an empty cell.
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
    """A percentage with one decimal, rounded down, so that 100.0 means all; `-` if there is nothing to divide by.

    >>> percent(2, 3), percent(1999, 2000), percent(0, 0)
    ('66.6', '99.9', '-')
    """
    return f"{part * 1000 // whole / 10:.1f}" if whole else "-"


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "label"), plural(2000, "label")
    ('1 label', '2,000 labels')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
