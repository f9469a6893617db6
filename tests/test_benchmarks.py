"""The registry of benchmarks, finding datasets, averages, and published results."""

import math
from pathlib import Path

import pytest
from conftest import make_folder

from svtrv2_hf.evaluation.benchmarks import (
    AVERAGED,
    BENCHMARKS,
    PUBLISHED,
    averages,
    find_sets,
    wilson_interval,
)
from svtrv2_hf.sources import open_source


UPSTREAM = [
    *(
        f"test/{name}"
        for name in ("IIIT5k", "SVT", "IC13_857", "IC15_1811", "SVTP", "CUTE80", "IC13_1015", "IC15_2077")
    ),
    *(
        f"u14m/{name}"
        for name in ("curve", "multi_oriented", "artistic", "contextless", "salient", "multi_words", "general")
    ),
    *("OST/weak", "OST/heavy", "wordart_test", "ltb/long_lmdb"),
    *(f"benchmark_bctr/benchmark_bctr_test/{name}_test" for name in ("scene", "web", "document", "handwriting")),
]


def make_sets(root, *folders):
    for folder in folders:
        (root / folder).mkdir(parents=True)
        (root / folder / "data.mdb").touch()
    return root


def test_all_sets_in_the_reference_layout_are_found_in_table_order(tmp_path):
    sets = find_sets(make_sets(tmp_path, *UPSTREAM))
    assert list(sets) == list(BENCHMARKS)
    assert sets["U14M-Multi-Oriented"] == tmp_path / "u14m/multi_oriented"
    assert sets["BCTR-Web"] == tmp_path / "benchmark_bctr/benchmark_bctr_test/web_test"
    assert sets["LTB"] == tmp_path / "ltb"


def test_set_names_ignore_case(tmp_path):
    assert list(find_sets(make_sets(tmp_path, *map(str.upper, BENCHMARKS)))) == list(BENCHMARKS)


def test_other_folders_with_data_are_custom_sets_after_the_benchmarks(tmp_path):
    make_sets(tmp_path, "zebra", "SVT", "general", ".cache", "deeper/plates", "training/part1")
    make_folder(tmp_path / "Apples", ["apple", "pear"])
    (tmp_path / "pictures").mkdir()
    (tmp_path / "CUTE80").mkdir()  # the name of a benchmark, but empty
    sets = find_sets(tmp_path)
    assert list(sets) == ["SVT", "Apples", "general", "zebra"]
    assert open_source(str(sets["Apples"])).num_samples == 2


def test_name_of_the_root_counts_as_a_parent_folder(tmp_path):
    root = make_sets(tmp_path / "U14M", "general", "own")
    assert find_sets(root) == {"U14M-General": root / "general", "own": root / "own"}


def test_only_the_selected_sets_are_found(tmp_path):
    make_sets(tmp_path, "test/SVT", "OST/weak", "OST/heavy", "plates")
    assert list(find_sets(tmp_path, ["plates", "ost-weak", "svt"])) == ["SVT", "OST-Weak", "plates"]
    with pytest.raises(
        FileNotFoundError, match=r"LTB, curve not found in \S+ \(found: SVT, OST-Weak, OST-Heavy, plates\)\."
    ):
        find_sets(tmp_path, ["SVT", "LTB", "curve"])


def test_duplicate_set_raises_unless_other_sets_are_selected(tmp_path):
    make_sets(tmp_path, "test/SVT", "evaluation/SVT", "test/CUTE80")
    with pytest.raises(ValueError, match=r"SVT was found more than once: .*evaluation/SVT, .*test/SVT"):
        find_sets(tmp_path)
    assert list(find_sets(tmp_path, ["CUTE80"])) == ["CUTE80"]


def test_root_without_sets_raises(tmp_path):
    make_sets(tmp_path, "one/two/three/SVT")
    with pytest.raises(FileNotFoundError, match="No dataset found in"):
        find_sets(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Folder .*nowhere not found"):
        find_sets(tmp_path / "nowhere")


@pytest.mark.parametrize("names", [None, ["own"]])
def test_error_for_a_root_that_is_a_dataset_says_how_to_evaluate_it(tmp_path, names):
    make_folder(tmp_path / "own", ["one"])
    with pytest.raises(FileNotFoundError, match=r"own is itself a dataset; evaluate it as NAME=\S*own\."):
        find_sets(tmp_path / "own", names)


def test_folder_with_data_in_two_formats_raises(tmp_path):
    (make_sets(tmp_path, "plates") / "plates" / "labels.tsv").touch()
    with pytest.raises(ValueError, match="plates contains several datasets"):
        find_sets(tmp_path)


def test_every_benchmark_has_addresses_of_its_paper_and_data():
    """The guide has these addresses in a table, which scripts/render_cards.py --check compares."""
    guide = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for benchmark in BENCHMARKS.values():
        for address in (benchmark.paper, benchmark.data):
            assert address.startswith("https://") and f"({address})" in guide


def test_averages_are_complete_only_with_all_samples_of_all_sets():
    common = {name: (b.samples, b.samples // 2) for name, b in BENCHMARKS.items() if b.group == "Common"}
    groups = averages({**common, "OST-Weak": (2416, 604), "LTB": (3376, 1), "plates": (10, 10)})
    assert list(groups) == ["Common", "OST"]
    assert groups["Common"]["complete"] and groups["Common"]["sets"] == list(common)
    assert not groups["OST"]["complete"] and groups["OST"]["arithmetic"] == 0.25

    ost = averages({"OST-Heavy": (100, 10), "OST-Weak": (300, 270)})["OST"]
    assert ost["sets"] == ["OST-Weak", "OST-Heavy"] and not ost["complete"], "fewer samples than the benchmark has"
    assert (ost["arithmetic"], ost["weighted"]) == (pytest.approx(0.5), pytest.approx(0.7))
    assert averages({"plates": (10, 10)}) == {}


@pytest.mark.parametrize(("samples", "correct"), [(0, 0), (10, 11), (10, -1)])
def test_numbers_that_are_not_a_share_raise(samples, correct):
    with pytest.raises(ValueError, match="is not a valid share"):
        averages({"SVT": (samples, correct)})
    with pytest.raises(ValueError, match="is not a valid share"):
        wilson_interval(correct, samples)


@pytest.mark.parametrize(("correct", "samples"), [(1, 3), (81, 263), (299, 300)])
def test_bounds_of_the_interval_are_z_standard_deviations_away(correct, samples):
    for bound in wilson_interval(correct, samples, z=1.7):
        standard_deviation = math.sqrt(bound * (1 - bound) / samples)
        assert abs(correct / samples - bound) == pytest.approx(1.7 * standard_deviation)


def test_interval_at_none_and_all_correct_has_an_exact_bound():
    low, high = wilson_interval(0, 50)
    assert low == 0 and high == pytest.approx(1.96**2 / (50 + 1.96**2))
    assert wilson_interval(50, 50) == (pytest.approx(1 - high), 1)


def test_published_averages_are_the_means_of_the_published_sets():
    parts = {part.name for benchmark in BENCHMARKS.values() for part in benchmark.length_groups}
    for result in PUBLISHED:
        assert result.sets.keys() <= BENCHMARKS.keys() | parts
        for group, average in result.averages.items():
            assert group in AVERAGED
            figures = [result.sets.get(name) for name, benchmark in BENCHMARKS.items() if benchmark.group == group]
            if group == "OST":  # only the average is published
                assert figures == [None, None]
            else:
                # The results are rounded to 0.1; the average is computed from unrounded ones.
                assert math.fsum(figures) / len(figures) == pytest.approx(average, abs=0.06), (result.system, group)


def test_published_results_of_the_base_model_have_the_right_columns():
    base = next(result for result in PUBLISHED if result.averages.get("Common") == 96.57)
    assert (base.sets["IIIT5k"], base.sets["IC13_857"]) == (99.2, 98.7)


def test_length_groups_of_ltb_cover_all_texts_without_overlap():
    groups = BENCHMARKS["LTB"].length_groups
    for length in range(26, 300):
        assert sum(length in group.lengths for group in groups) == 1
    assert not any(25 in group.lengths for group in groups)
    assert BENCHMARKS["LTB"].samples == sum(group.samples for group in groups) == 4789
    assert [group.samples for group in groups] == [3376, 1147, 266]


def test_published_results_of_ltb_are_for_its_shortest_texts():
    figures = {name for result in PUBLISHED for name in result.sets if name.startswith("LTB")}
    assert figures == {BENCHMARKS["LTB"].length_groups[0].name}
