"""Building blocks of reports: tables, percentages, counts and images."""

import base64
import doctest
import io

import pytest
from conftest import draw
from PIL import Image

from svtrv2_hf import reporting


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(reporting).failed == 0


def test_the_last_alignment_applies_to_all_further_columns():
    lines = reporting.markdown_table(["a", "b", "c"], [["x", 1, 10], ["xx", 20, 2]], align="rl").splitlines()
    assert lines == ["|  a | b  | c  |", "|---:|----|----|", "|  x | 1  | 10 |", "| xx | 20 | 2  |"]


def test_line_breaks_and_pipes_do_not_break_a_table():
    table = reporting.markdown_table(["name"], [["two\nlines | one cell"], [None], [0]])
    assert table.splitlines()[2:] == [
        "| two lines \\| one cell |",
        "|                       |",
        "| 0                     |",
    ]


def test_a_table_without_rows_is_its_header():
    assert reporting.markdown_table(["a", "b"], []) == "| a | b |\n|---|--:|"


def test_rows_must_have_a_cell_for_every_column():
    with pytest.raises(ValueError, match="zip"):
        reporting.markdown_table(["a", "b"], [["x"]])


def test_data_url_contains_the_reduced_image():
    image = draw("word", width=400, height=100)
    kind, data = reporting.data_url(image, (200, 200)).split(",")
    assert kind == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (200, 50)
    assert image.size == (400, 100)
