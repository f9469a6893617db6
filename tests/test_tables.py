"""The tables of an evaluation, in Markdown and as CSV."""

import pytest

from svtrv2_hf.data.sample import Sample
from svtrv2_hf.evaluation.benchmarks import BENCHMARKS, averages, wilson_interval
from svtrv2_hf.evaluation.prediction import Prediction
from svtrv2_hf.evaluation.results import SetResult
from svtrv2_hf.evaluation.tables import csv_rows, markdown


ASCII = "".join(map(chr, range(32, 127)))


def one_set(pairs, protocol="alphanumeric", max_label_length=None, **more):
    """The results of `evaluate_set` for pairs of label and prediction."""
    result = SetResult(protocol, ASCII, max_label_length)
    for label, text in pairs:
        result.add(Prediction(Sample(b"", label, label), text, size=(1, 1)))
    return {"protocol": protocol, "max_ratio": 12, **result.to_dict(), **more}


def counted(name, share, **more):
    """The results of a complete benchmark with a share of correct predictions."""
    samples = BENCHMARKS[name].samples
    correct = round(share * samples)
    figures = {"samples": samples, "correct": correct, "word_accuracy": correct / samples, "one_minus_ned": 0.5}
    more = {
        "case_sensitive_accuracy": 0.25,
        "correct_by_protocol": {"case_insensitive": 0},
        "by_length": {},
        **more,
    }
    return {"protocol": BENCHMARKS[name].protocol, "max_ratio": 12, **figures, **more}


def results(sets, **more):
    """The results that `svtrv2 evaluate` writes."""
    return {
        "model": "mine",
        "parameters": 1_234_567,
        "date": "today",
        "commit": None,
        "machine": "a machine",
        "sets": sets,
        "averages": averages({name: (one["samples"], one["correct"]) for name, one in sets.items()}),
        **more,
    }


def tables(evaluated):
    """The rows of the Markdown tables by name, as dictionaries by column title."""
    rows, header = {}, None
    for line in markdown(evaluated).splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if header is None:
            header = cells
        elif not set(line) <= set("|-:"):
            rows[cells[0]] = dict(zip(header, cells, strict=True))
    return rows


def csv_table(evaluated):
    """The rows of the CSV file, likewise."""
    header, *rows = csv_rows(evaluated)
    return {row[0] if row[0] not in ("arithmetic average", "weighted average") else f"{row[1]}: {row[0]}":
            dict(zip(header, row, strict=True)) for row in rows}  # fmt: skip


LTB = [("a" * 30, "a" * 30), ("a" * 26, "b"), ("a" * 35, "a" * 35), ("a" * 36, "a" * 36), ("a" * 60, "")]


def test_each_length_group_of_ltb_has_a_row_and_published_results_are_those_of_the_first():
    evaluated = results({"LTB": one_set(LTB)})
    rows = tables(evaluated)
    assert list(rows) == ["LTB", "LTB 26-35", "LTB 36-55", "LTB 56+"]
    assert [(row["samples"], row["word accuracy"]) for row in rows.values()] == [
        ("5", "60.00"),
        ("3", "66.67"),
        ("1", "100.00"),
        ("1", "0.00"),
    ]
    assert {name: row["SVTRv2-B [1]"] for name, row in rows.items()} == {
        "LTB": "",
        "LTB 26-35": "50.23",
        "LTB 36-55": "",
        "LTB 56+": "",
    }
    assert float(rows["LTB 26-35"]["1-NED"]) == pytest.approx(100 * 2 / 3, abs=0.01)
    assert float(rows["LTB 26-35"]["CER"]) == pytest.approx(100 * 26 / 91, abs=0.01)
    assert "[1] Published by the authors, trained on Union14M-L-Filter." in markdown(evaluated)

    lines = csv_table(evaluated)
    assert list(lines) == list(rows)
    assert lines["LTB 26-35"]["SVTRv2-B (Union14M-L-Filter)"] == pytest.approx(0.5023)
    assert lines["LTB"]["SVTRv2-B (Union14M-L-Filter)"] == ""
    assert (lines["LTB 26-35"]["samples"], lines["LTB 26-35"]["correct"]) == (3, 2)


def test_published_results_and_averages_of_the_six_common_sets():
    common = [name for name, benchmark in BENCHMARKS.items() if benchmark.group == "Common"]
    evaluated = results(
        {name: counted(name, share) for name, share in zip(common, [1, 0.5, 0.5, 0, 0, 0], strict=True)}
    )
    rows = tables(evaluated)
    assert list(rows) == [*common, "arithmetic average", "weighted average"]
    # As in table 1 of the paper; the README of OpenOCR swaps the two columns.
    assert [rows[name]["SVTRv2-B [1]"] for name in ("IIIT5k", "SVT", "IC13_857")] == ["99.2", "98.0", "98.7"]
    assert rows["SVT"]["SVTRv2-B [2]"] == "94.0"
    assert rows["arithmetic average"]["SVTRv2-T [1]"] == "94.78"
    assert rows["arithmetic average"]["word accuracy"] == f"{100 * (1 + 324 / 647 + 428 / 857) / 6:.2f}"
    assert rows["weighted average"]["word accuracy"] == f"{100 * (3000 + 324 + 428) / 7248:.2f}"
    assert rows["weighted average"]["SVTRv2-T [1]"] == ""
    low, high = wilson_interval(324, 647)
    assert rows["SVT"]["95 %"] == f"{100 * low:.1f} to {100 * high:.1f}"
    assert "[2] Published by the authors, trained on MJ+ST." in markdown(evaluated)
    lines = csv_table(evaluated)
    assert lines["Common: arithmetic average"]["SVTRv2-T (Union14M-L-Filter)"] == pytest.approx(0.9478)
    assert lines["SVT"]["low_95"] == pytest.approx(low, abs=1e-6)


def test_average_of_some_sets_has_no_published_result():
    rows = tables(results({"IIIT5k": counted("IIIT5k", 1), "SVT": counted("SVT", 0)}))
    assert rows["arithmetic average of 2 datasets"]["word accuracy"] == "50.00"
    assert rows["arithmetic average of 2 datasets"]["SVTRv2-T [1]"] == ""
    assert rows["IIIT5k"]["SVTRv2-T [1]"] == "98.6"
    assert "average" not in markdown(results({"SVT": counted("SVT", 0)}))


def test_only_the_average_of_ost_is_published():
    rows = tables(results({name: counted(name, 0.5) for name in ("OST-Weak", "OST-Heavy")}))
    assert rows["arithmetic average"]["SVTRv2-B [1]"] == "80.0"
    assert rows["OST-Weak"]["SVTRv2-B [1]"] == ""


def test_chinese_benchmarks_and_other_sets_have_separate_tables():
    sets = {
        "SVT": counted("SVT", 1),
        "BCTR-Web": counted("BCTR-Web", 1),
        "plates": one_set([("\u4eacA", "\u4eacA")], "no_spaces"),
        "words": one_set([("a|b", "a|b")], "exact"),
    }
    text = markdown(results(sets))
    headings = [line for line in text.splitlines() if line.startswith("**")]
    assert headings == [
        "**Common** (alphanumeric: ASCII letters and digits, case ignored)",
        "**Chinese** (no_spaces: all characters except spaces, case ignored)",
        "**Other datasets** (no_spaces: all characters except spaces, case ignored)",
        "**Other datasets** (exact: all characters including spaces and case)",
    ]
    rows = tables(results(sets))
    assert rows["BCTR-Web"]["SVTRv2-B [3]"] == "83.3"
    assert not any("SVTRv2" in column for column in rows["plates"])


@pytest.mark.parametrize(
    ("protocol", "columns"),
    [
        ("exact", ["CER", "1-NED"]),
        ("case_insensitive", ["case-sensitive", "CER", "1-NED"]),
        ("alphanumeric", ["case-sensitive", "with punctuation and spaces", "CER", "1-NED"]),
        ("no_spaces", ["case-sensitive", "with punctuation and spaces", "CER", "1-NED"]),
    ],
)
def test_tables_have_the_columns_of_their_protocol(protocol, columns):
    evaluated = results({"words": one_set([("Ab-1 ", "ab 1"), ("x", "x!xx")], protocol)})
    row = tables(evaluated)["words"]
    assert list(row)[4:] == columns
    cer = {"exact": 6 / 6, "case_insensitive": 5 / 6, "alphanumeric": 2 / 4, "no_spaces": 4 / 5}[protocol]
    assert float(row["CER"]) == pytest.approx(100 * cer, abs=0.01)
    assert csv_table(evaluated)["words"]["cer"] == pytest.approx(cer, abs=1e-6)


def test_results_without_error_rate_are_valid():
    """Results files of earlier versions have no CER."""
    evaluated = results({"SVT": counted("SVT", 0.5)})
    assert "CER" not in tables(evaluated)["SVT"]
    assert csv_table(evaluated)["SVT"]["cer"] == ""


def test_unknown_protocol_raises():
    with pytest.raises(ValueError, match="Unknown protocol 'english': choose exact, "):
        markdown(results({"words": {**one_set([("a", "a")]), "protocol": "english"}}))


def test_published_results_are_hidden_if_a_set_was_evaluated_differently():
    common = [name for name, benchmark in BENCHMARKS.items() if benchmark.group == "Common"]
    evaluated = results({name: counted(name, 0.5) for name in common})
    evaluated["sets"]["SVT"]["unlike_published"] = "read at a max ratio of 4, not 12"
    evaluated["sets"]["SVT"]["max_ratio"] = 4
    rows = tables(evaluated)
    assert (rows["SVT"]["SVTRv2-T [1]"], rows["SVTP"]["SVTRv2-T [1]"]) == ("", "90.5")
    assert rows["arithmetic average"]["SVTRv2-T [1]"] == ""
    text = markdown(evaluated)
    assert "- SVT was read at a max ratio of 4, not 12, so published results are not shown." in text
    assert text.startswith(
        f"mine, 1.23 M parameters, max ratio 12 on {' and '.join(n for n in common if n != 'SVT')}, "
    )
    assert "max ratio 4 on SVT; today, commit unknown, a machine." in text
    assert csv_table(evaluated)["SVT"]["max_ratio"] == 4

    alone = results({"SVT": evaluated["sets"]["SVT"]})
    assert not any("SVTRv2" in column for column in tables(alone)["SVT"])
    assert markdown(alone).startswith("mine, 1.23 M parameters, max ratio 4; today")


def test_one_error_in_400000_is_not_rounded_away():
    evaluated = results({"U14M-General": counted("U14M-General", 399_999 / 400_000), "SVT": counted("SVT", 1)})
    rows = tables(evaluated)
    assert (rows["U14M-General"]["word accuracy"], rows["SVT"]["word accuracy"]) == ("99.99", "100.00")
    assert (
        tables(results({"U14M-General": counted("U14M-General", 1 / 400_000)}))["U14M-General"]["word accuracy"]
        == "0.01"
    )
    many = SetResult("alphanumeric", "a")
    many.score.samples, many.score.correct = 3_000_000, 2_999_999
    assert many.to_dict()["word_accuracy"] == 0.999999


def test_sets_that_were_not_evaluated_are_listed():
    evaluated = results({"words": one_set([("a", "a")])}, unfinished={"SVT": "OSError: no connection"})
    assert "- SVT was not evaluated: OSError: no connection" in markdown(evaluated)
    line = csv_table(evaluated)["SVT"]
    assert (line["word_accuracy"], line["notes"]) == ("", "SVT was not evaluated: OSError: no connection")
    nothing = results({}, unfinished={"SVT": "not reached"})
    assert markdown(nothing).splitlines() == [
        "mine, 1.23 M parameters; today, commit unknown, a machine.", "", "- SVT was not evaluated: not reached",
    ]  # fmt: skip
    assert [row[0] for row in csv_rows(nothing)] == ["set", "SVT"]


def test_set_without_samples_has_empty_cells():
    rows = tables(results({"empty": one_set([])}))
    assert rows["empty"] == {
        "dataset": "empty", "samples": "0", "word accuracy": "", "95 %": "", "case-sensitive": "",
        "with punctuation and spaces": "", "1-NED": "",
    }  # fmt: skip
    assert csv_table(results({"empty": one_set([])}))["empty"]["word_accuracy"] == ""


def test_notes_report_unusual_labels():
    odd = one_set([("!?", ""), ("\u4e2d", "a"), ("ab", "ab"), ("ac", "ab")])
    assert "odd: 2 labels have no character that the protocol compares; 1 of them count as correct" in markdown(
        results({"odd": odd})
    )
    assert "without them the accuracy is 50.00" in markdown(results({"odd": odd}))
    assert "blank: 1 label has no character that the protocol compares (1 without any character)" in markdown(
        results({"blank": one_set([("", "a")])})
    )
    long = one_set([("a" * 26, "b"), ("", "b"), ("a", "a"), ("a", "b")], max_label_length=25)
    assert (
        "IIIT5k: the authors of SVTRv2 exclude 2 labels, empty or longer than 25 characters; without them the accuracy is 50.00."
        in markdown(results({"IIIT5k": long}))
    )
    assert csv_table(results({"IIIT5k": long}))["IIIT5k"]["accuracy_as_published"] == 0.5
    line = csv_table(results({"odd": {**odd, "labels": "labels_official.tsv"}}))["odd"]
    assert (line["accuracy_without_emptied_labels"], line["labels"]) == (0.5, "labels_official.tsv")
    assert line["notes"].startswith("odd: 2 labels have no character that the protocol compares; 1 of them")
    unknown = one_set([("caf\u00e9", "cafe")], "no_spaces")
    assert "cafes: 1 label has characters outside the charset of the model" in markdown(results({"cafes": unknown}))
    ignored = one_set([("caf\u00e9", "cafe")], "alphanumeric")
    assert "outside the charset of the model that the protocol ignores." in markdown(results({"cafes": ignored}))
    assert "- something is wrong" in markdown(results({"bad": {**unknown, "warnings": ["something is wrong"]}}))
