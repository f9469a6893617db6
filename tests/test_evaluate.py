"""The command `svtrv2 evaluate`."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import draw, encoded, make_folder

from svtrv2_hf import SVTRv2ForCTC
from svtrv2_hf.cli import main
from svtrv2_hf.evaluation import runner
from svtrv2_hf.evaluation.prediction import Prediction
from svtrv2_hf.evaluation.runner import open_sets
from svtrv2_hf.sources import open_source


@pytest.fixture
def root(tmp_path, model, processor):
    """A benchmark with too few images, and a custom set whose labels are the predictions of the model, except the last."""
    from svtrv2_hf import SVTRv2TextRecognitionPipeline

    read = SVTRv2TextRecognitionPipeline(model=model, processor=processor)
    words = ["ab", "one line of words", "Hello", "12345678", "x"]
    readings = [read(draw(word))[0]["text"] for word in words]
    make_folder(tmp_path / "root" / "test" / "SVT", words)
    own = make_folder(tmp_path / "root" / "own", words)
    lines = [f"{number}.png\t{text}" for number, text in enumerate(readings[:-1])] + ["4.png\twrong"]
    (own / "labels.tsv").write_text("\n".join(lines) + "\n")
    (own / "capitals.tsv").write_text("\n".join(lines).upper().replace(".PNG", ".png") + "\n")
    return tmp_path / "root"


def results(path):
    return json.loads(path.read_text())


def test_all_sets_of_a_folder_are_evaluated(root, saved, tmp_path, capsys):
    output = tmp_path / "results" / "mine.json"
    status = main(["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output),
                   "--errors", str(tmp_path / "errors")])  # fmt: skip
    captured = capsys.readouterr()
    assert status == 1
    assert "SVT has 5 samples, but the benchmark has 647" in captured.err
    written = results(output)
    assert list(written["sets"]) == ["SVT", "own"]
    assert {"model", "commit", "date", "versions", "protocol", "sets", "averages"} <= set(written)
    own = written["sets"]["own"]
    assert (own["samples"], own["correct"], own["word_accuracy"]) == (5, 4, 0.8)
    assert written["averages"]["Common"]["complete"] is False
    assert "| own |" in " ".join(captured.out.split()) and "80.00" in captured.out
    assert output.with_suffix(".md").read_text().strip() == captured.out.strip()
    rows = list(csv.DictReader(output.with_suffix(".csv").open()))
    assert [row["set"] for row in rows][:2] == ["SVT", "own"]
    assert float(rows[1]["word_accuracy"]) == 0.8
    assert float(rows[1]["low_95"]) < 0.8 < float(rows[1]["high_95"])
    lines = [json.loads(line) for line in (tmp_path / "errors" / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert [line["correct"] for line in sorted(lines, key=lambda line: line["image"]) if line["set"] == "own"] == [
        True
    ] * 4 + [False]
    assert written["errors"]["samples"] == 10
    for name in ("errors.html", "errors.png"):
        assert (tmp_path / "errors" / name).stat().st_size > 1000


def test_results_do_not_depend_on_batch_size_and_workers(root, saved, tmp_path):
    found = []
    for number, options in enumerate((["--batch-size", "1"], ["--batch-size", "32", "--workers", "2"])):
        output = tmp_path / f"{number}.json"
        words = ["evaluate", "own", "--model", str(saved), "--data", str(root), "--output", str(output)]
        assert main([*words, *options]) == 0
        found.append(results(output)["sets"])
    assert found[0] == found[1]


def test_other_label_file_is_used_where_it_exists(root, saved, tmp_path):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "own", "--output", str(output)]
    words += ["--protocol", "case_insensitive"]
    assert main([*words, "--labels", "capitals.tsv"]) == 0
    capitals = results(output)["sets"]["own"]
    assert main(words) == 0
    plain = results(output)["sets"]["own"]
    assert capitals["correct"] == plain["correct"] == 4
    assert capitals["case_sensitive_accuracy"] < plain["case_sensitive_accuracy"]


def test_other_label_file_next_to_a_folder_of_images_is_used(tmp_path):
    """The folder has images/, labels.tsv and labels_official.tsv."""
    place = make_folder(tmp_path / "SVT", ["one", "two"], images_in="images")
    (place / "labels_official.tsv").write_text((place / "labels.tsv").read_text().replace("two", "TWO"))
    for data, word in ((str(tmp_path), "SVT"), (None, f"SVT={place}"), (None, f"{place}?name=SVT")):
        sources, without = open_sets(data, [word], "labels_official.tsv")
        assert [sample.text for sample in sources["SVT"].read()] == ["one", "TWO"]
        assert without == []


def test_sets_without_the_other_label_file_use_their_default_labels(root, saved, tmp_path, capsys):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]
    main([*words, "--labels", "capitals.tsv"])
    captured = capsys.readouterr()
    assert "svtrv2: capitals.tsv not found, default labels are used: SVT.\n" in captured.err
    assert (
        "- Labels from capitals.tsv: own. Datasets without that file, with their default labels: SVT." in captured.out
    )
    written = results(output)
    assert written["labels"] == written["sets"]["own"]["labels"] == "capitals.tsv"
    assert "labels" not in written["sets"]["SVT"]
    assert main([*words, "--labels", "missing.tsv"]) == 1
    assert "No dataset has the label file missing.tsv: SVT, own." in capsys.readouterr().err


@pytest.mark.parametrize(("form", "correct"), [("none", 0), ("nfc", 1), ("nfkc", 2)])
def test_predictions_and_labels_are_normalized_alike(tmp_path, model, processor, monkeypatch, form, correct):
    make_folder(tmp_path / "set", ["cafe\u0301", "A"])
    source = open_source(str(tmp_path / "set"))
    predictions = [
        Prediction(sample, text, size=(40, 30))
        for sample, text in zip(source.read(), ("caf\u00e9", "\uff21"), strict=True)
    ]
    monkeypatch.setattr(runner, "predict", lambda *_: iter(predictions))
    written = runner.evaluate_set(model, processor, source, "set", "no_spaces", normalize=form)
    assert (written["samples"], written["correct"]) == (2, correct)


def names_of(data, sets, labels=None):
    return list(open_sets(data, sets, labels)[0])


def test_sets_are_selected_by_name_or_source(root):
    own = root / "own"
    assert names_of(None, [f"mine={own}"]) == ["mine"]
    assert names_of(str(root), ["own", f"CUTE80={own}", "svt"]) == ["SVT", "CUTE80", "own"]
    with pytest.raises(ValueError, match="NAME=SOURCE"):
        open_sets(None, ["SVT"])
    with pytest.raises(FileNotFoundError, match="CUTE80 not found in"):
        open_sets(str(root), ["CUTE80"])
    with pytest.raises(
        ValueError, match=r"None of the datasets is in --data .*: name some of its folders, or omit --data"
    ):
        open_sets(str(root), [f"mine={own}"])


def test_source_without_a_name_has_the_name_of_its_folder(root):
    assert names_of(
        None, [str(root / "own"), f"{root / 'test' / 'SVT'}/labels.tsv", f"{root / 'own'}?name=again"]
    ) == [
        "own",
        "labels",
        "again",
    ]
    assert names_of(None, [str(root / "test" / "SVT")]) == ["SVT"]
    make_folder(root / "u14m" / "curve", ["a"])
    assert names_of(None, [str(root / "u14m" / "curve")]) == ["U14M-Curve"]


def test_names_of_benchmarks_ignore_case(root, saved, capsys):
    own = root / "own"
    assert names_of(None, [f"svt={own}", f"ost-weak={own}", f"{own}?name=cute80"]) == ["SVT", "CUTE80", "OST-Weak"]
    assert main(["evaluate", "--model", str(saved), f"svt={own}"]) == 1
    assert "SVT has 5 samples, but the benchmark has 647" in capsys.readouterr().err


def test_two_sets_with_the_same_name_raise(root):
    own = root / "own"
    for data, words in ((str(root), ["SVT", f"svt={own}"]), (None, [f"own={root / 'test' / 'SVT'}", str(own)])):
        with pytest.raises(ValueError, match=r"Two datasets are named (SVT|own): .* and .*own"):
            open_sets(data, words)


def test_default_split_of_datasets_on_the_hub_is_test(tmp_path):
    for folder, splits in (("u/both", ("train", "test")), ("u/one", ("train",)), ("u/svt", ("test",))):
        (tmp_path / folder).mkdir(parents=True)
        for name in splits:
            table = pa.table({"image": [encoded(draw("a"))], "text": [name]})
            pq.write_table(table, tmp_path / folder / f"{name}.parquet")
    hub = f"hub:{tmp_path}/u"
    sources, _ = open_sets(None, [f"{hub}/both", f"trained={hub}/both?split=train", f"{hub}/svt"])
    assert {name: list(source.texts()) for name, source in sources.items()} == {
        "SVT": ["test"],
        "both": ["test"],
        "trained": ["train"],
    }
    with pytest.raises(ValueError, match=r"one has no split 'test' \(found: train\)\. Select one .*\?split=NAME"):
        open_sets(None, [f"{hub}/one"])
    assert names_of(None, [f"{hub}/both?split=test"]) == ["both"]
    with pytest.raises(
        ValueError, match=r"--data hub:\S+ is a dataset, not a folder of datasets: svtrv2 evaluate hub:\S+ reads it"
    ):
        open_sets(f"{hub}/both", [])


def test_labels_that_the_authors_exclude_are_reported_for_benchmarks(saved, tmp_path, capsys):
    for name in ("SVT", "LTB", "own"):
        make_folder(tmp_path / "root" / name, ["a" * 30, "b"])
    output = tmp_path / "results.json"
    main(["evaluate", "--model", str(saved), "--data", str(tmp_path / "root"), "--output", str(output)])
    sets = results(output)["sets"]
    assert [sets[name]["samples"] for name in ("SVT", "LTB", "own")] == [2, 2, 2]
    assert sets["SVT"]["as_published"]["samples"] == 1
    assert "as_published" not in sets["LTB"] and "as_published" not in sets["own"]
    assert "SVT: the authors of SVTRv2 exclude 1 label, empty or longer" in capsys.readouterr().out


def test_published_results_are_hidden_if_a_benchmark_is_evaluated_with_other_settings(root, saved, tmp_path, capsys):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]
    main(words)
    assert "SVTRv2-T [1]" in capsys.readouterr().out
    usual = results(output)
    assert usual["max_ratio"] == usual["protocol"] == "of each dataset"
    assert "unlike_published" not in usual["sets"]["SVT"]
    main([*words, "--max-ratio", "4", "--protocol", "no_spaces"])
    captured = capsys.readouterr().out
    assert "SVTRv2-T" not in captured
    assert (
        "- SVT was evaluated with the no_spaces protocol instead of alphanumeric, and resized with a max ratio of 4 instead of 12, so"
        in captured
    )
    assert "max ratio 4;" in captured
    changed = results(output)
    assert (changed["max_ratio"], changed["protocol"]) == (4, "no_spaces")
    assert {name: one["max_ratio"] for name, one in changed["sets"].items()} == {"SVT": 4, "own": 4}
    main([*words, "--max-ratio", "12"])
    assert "unlike_published" not in results(output)["sets"]["SVT"]


def test_each_set_records_its_max_ratio(saved, tmp_path):
    for name in ("SVT", "LTB"):
        make_folder(tmp_path / "root" / name, ["a"])
    output = tmp_path / "results.json"
    main(["evaluate", "--model", str(saved), "--data", str(tmp_path / "root"), "--output", str(output)])
    assert {name: one["max_ratio"] for name, one in results(output)["sets"].items()} == {"SVT": 12, "LTB": 20}


def test_empty_labels_of_a_benchmark_are_reported(saved, tmp_path, capsys):
    for name in ("SVT", "own"):
        make_folder(tmp_path / name, ["", "a", "b"])
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "SVT"]) == 1
    assert "SVT: 1 of 3 labels are empty" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "own"]) == 0
    assert (
        "own: 1 label has no character that the protocol compares (1 without any character)" in capsys.readouterr().out
    )


def test_labels_that_do_not_suit_the_protocol_are_reported(saved, tmp_path, capsys):
    """The protocol ignores letters, either all or the sign of a province."""
    make_folder(tmp_path / "plates", ["\u4eacA12", "\u6caaB34", "C56"])
    make_folder(tmp_path / "few", ["\u4eacA12", "B", "C", "D"])
    make_folder(tmp_path / "BCTR-Web", ["\u4eac", "A", "B", "C"])

    def evaluate(name, *options):
        status = main(["evaluate", "--model", str(saved), "--data", str(tmp_path), name, *options])
        return status, capsys.readouterr().err

    status, captured = evaluate("plates", "--protocol", "alphanumeric")
    assert status == 1
    assert "plates: the alphanumeric protocol ignores letters or digits, or everything, of 2 of 3 labels" in captured
    assert "so the accuracy is not meaningful: use --protocol exact or no_spaces." in captured
    for protocol in ("exact", "case_insensitive", "no_spaces"):
        assert evaluate("plates", "--protocol", protocol) == (0, "")
    assert evaluate("few", "--protocol", "alphanumeric") == (0, "")
    assert "the alphanumeric protocol ignores" not in evaluate("BCTR-Web")[1]
    assert (
        "BCTR-Web: the alphanumeric protocol ignores letters or digits, or everything, of 1 of 4"
        in evaluate("BCTR-Web", "--protocol", "alphanumeric")[1]
    )


def test_benchmarks_have_their_protocol_and_other_datasets_are_compared_exactly(saved, tmp_path, monkeypatch):
    for name in ("svt", "scene_test", "receipts"):
        make_folder(tmp_path / "root" / name, ["$ 12.50", "Ab"])
    texts = {"$ 12.50": "1250", "Ab": "Ab"}
    monkeypatch.setattr(
        runner,
        "predict",
        lambda model, processor, batches: (
            Prediction(sample, texts[sample.text], size=(40, 30)) for batch in batches for sample in batch["samples"]
        ),
    )
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(tmp_path / "root"), "--output", str(output)]
    expected = {
        "SVT": ("alphanumeric", 2, 0, 6),
        "BCTR-Scene": ("no_spaces", 1, 2, 8),
        "receipts": ("exact", 1, 3, 9),
    }
    main(words)
    sums = ("protocol", "correct", "edits", "characters")
    assert {name: tuple(one[key] for key in sums) for name, one in results(output)["sets"].items()} == expected
    by_protocol = {"exact": 1, "case_insensitive": 1, "alphanumeric": 2, "no_spaces": 1}
    assert all(one["correct_by_protocol"] == by_protocol for one in results(output)["sets"].values())
    assert "33.33" in output.with_suffix(".md").read_text()  # the CER of the receipts
    main([*words, "--protocol", "alphanumeric"])
    assert {one["correct"] for one in results(output)["sets"].values()} == {2}


def broken(root):
    """Write two shards; damage to the second one is found only when it is read."""
    (root / "broken").mkdir()
    for shard, rows in enumerate((64, 1)):  # 64 are read together
        table = pa.table({"image": [encoded(draw("a"))] * rows, "text": ["b" * 100] * rows})
        pq.write_table(table, root / "broken" / f"{shard}.parquet", compression="snappy")
    content = bytearray((root / "broken" / "1.parquet").read_bytes())
    content[50:150] = bytes(100)
    (root / "broken" / "1.parquet").write_bytes(content)


def test_control_characters_in_names_are_escaped(root, saved, tmp_path, capsys):
    arguments = [f"own={root / 'own'}", f"b\x1bad={tmp_path / 'missing'}"]
    assert main(["evaluate", "--model", str(saved), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("b\\u001bad") >= 2  # before and after the evaluation
    assert "\x1b" not in captured.err + captured.out


@pytest.mark.parametrize("workers", ["0", "1"])
def test_other_sets_are_evaluated_after_an_error(root, saved, tmp_path, capsys, workers):
    broken(root)
    make_folder(root / "zebra", ["last"])
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output), "--workers", workers]
    status = main([*words, "own", "broken", "zebra", "--errors", str(tmp_path / "errors")])
    captured = capsys.readouterr()
    assert status == 1
    assert "svtrv2: broken was not evaluated: " in captured.err
    assert "\n- broken was not evaluated: " in captured.out
    written = results(output)
    assert list(written["sets"]) == ["own", "zebra"]
    assert list(written["unfinished"]) == ["broken"]
    lines = (tmp_path / "errors" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["set"] for line in lines].count("broken") == 64
    assert written["errors"]["samples"] == 6  # without those of the failed set
    assert list(written["errors"]["kinds"]) == ["own", "zebra"]


def test_results_are_written_after_each_set(root, saved, tmp_path, monkeypatch):
    evaluate_set = runner.evaluate_set

    def interrupted(model, processor, source, name, **options):
        if name == "own":
            raise KeyboardInterrupt
        return evaluate_set(model, processor, source, name, **options)

    monkeypatch.setattr(runner, "evaluate_set", interrupted)
    output = tmp_path / "results" / "mine.json"
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]) == 130
    written = results(output)
    assert list(written["sets"]) == ["SVT"]
    assert written["unfinished"] == {"own": "not reached"}
    assert written["averages"]["Common"]["sets"] == ["SVT"]
    assert "- own was not evaluated: not reached" in output.with_suffix(".md").read_text()
    assert sorted(path.name for path in output.parent.iterdir()) == ["mine.csv", "mine.json", "mine.md"]


def test_error_while_results_are_written_keeps_the_previous_ones(root, saved, tmp_path, monkeypatch):
    output = tmp_path / "mine.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "own", "--output", str(output)]
    assert main(words) == 0
    before = output.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    assert main(words) == 1
    assert output.read_text() == before


def test_unreadable_images_are_reported(root, saved, capsys):
    (root / "own" / "0.png").write_bytes(b"not an image")
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "own"]) == 1
    captured = capsys.readouterr()
    assert "0.png is unreadable" in captured.err
    assert "60.00" in captured.out


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_unavailable_device_raises(root, saved, capsys, command, device):
    place = ["--data", str(root)] if command == "evaluate" else ["--rounds", "1"]
    assert main([command, "--model", str(saved), *place, "--device", device]) == 1
    assert capsys.readouterr().err == f"svtrv2: --device {device}: torch cannot compute on such a device here.\n"


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_output_that_cannot_be_written_raises_before_the_work(saved, tmp_path, capsys, command, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr(SVTRv2ForCTC, "from_pretrained", lambda *_, **__: pytest.fail("the work began"))
    for output in (tmp_path / "file" / "x.json", tmp_path / "folder.json"):
        assert main([command, "--model", str(saved), "--output", str(output)]) == 1
        assert f"--output {output} cannot be written" in capsys.readouterr().err


def test_benchmark_output_must_be_json(saved, tmp_path, capsys):
    assert main(["benchmark", "--model", str(saved), "--output", str(tmp_path / "x.txt")]) == 1
    assert "must end in .json" in capsys.readouterr().err


def test_benchmark_creates_the_folder_of_its_output(saved, tmp_path):
    output = tmp_path / "new" / "x.json"
    words = ["benchmark", "--model", str(saved), "--rounds", "1", "--batch-size", "1", "--largest-batch", "1"]
    assert main([*words, "--output", str(output)]) == 0
    assert results(output)["parameters"]
    assert [path.name for path in output.parent.iterdir()] == ["x.json"]


def test_model_and_size_are_mutually_exclusive(saved, capsys):
    assert main(["benchmark", "--model", str(saved), "--size", "tiny", "--rounds", "1"]) == 2
    assert "--size and --model exclude each other" in capsys.readouterr().err


def test_output_must_be_json(root, saved, capsys):
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "--output", "results.txt"]) == 1
    assert "must end in .json" in capsys.readouterr().err


def test_length_groups_of_ltb_are_counted(saved, tmp_path, capsys):
    make_folder(tmp_path / "LTB", ["a" * 30, "b" * 40, "c" * 41])
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "LTB"]) == 1
    captured = capsys.readouterr().err
    assert "LTB has 3 samples, but the benchmark has 4,789" in captured
    assert "LTB 26-35 has 1 samples, but the benchmark has 3,376" in captured
    assert "LTB 36-55 has 2 samples, but the benchmark has 1,147" in captured
    assert "LTB 56+ has 0 samples, but the benchmark has 266" in captured


def test_other_sets_are_evaluated_if_one_cannot_be_opened(root, saved, tmp_path, capsys):
    (root / "cut").mkdir()
    (root / "cut" / "data.mdb").write_bytes(b"")
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "cut"]
    assert main([*words, "own", "--output", str(output)]) == 1
    assert "svtrv2: cut was not evaluated: ValueError: " in capsys.readouterr().err
    written = results(output)
    assert (list(written["sets"]), list(written["unfinished"])) == (["own"], ["cut"])
    assert main(words) == 1
    assert f"svtrv2: {root / 'cut' / 'data.mdb'} is empty" in capsys.readouterr().err


def test_set_without_labels_is_reported(root, saved, capsys):
    make_folder(root / "bare", ["", ""])
    assert main(["evaluate", "--model", str(saved), f"bare={root / 'bare'}"]) == 1
    assert "bare: 2 of 2 labels are empty" in capsys.readouterr().err


def test_files_in_the_current_folder_are_sources(root, monkeypatch):
    monkeypatch.chdir(root)
    assert names_of(None, ["own"]) == ["own"]
    assert names_of(None, ["own?name=mine"]) == ["mine"]
    with pytest.raises(ValueError, match="Specify a folder of datasets"):
        open_sets(None, ["absent"])
