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
from svtrv2_hf.evaluation import evaluate
from svtrv2_hf.evaluation.evaluate import open_sets
from svtrv2_hf.evaluation.evaluator import Prediction
from svtrv2_hf.sources import open_source


@pytest.fixture
def root(tmp_path, model, processor):
    """A benchmark that is far too small, and a set of its own whose labels are what the model reads, but for the last."""
    from svtrv2_hf import SVTRv2TextRecognitionPipeline

    read = SVTRv2TextRecognitionPipeline(model=model, processor=processor)
    words = ["ab", "one line of words", "Hello", "12345678", "x"]
    readings = [read(draw(word))[0]["generated_text"] for word in words]
    make_folder(tmp_path / "root" / "test" / "SVT", words)
    own = make_folder(tmp_path / "root" / "own", words)
    lines = [f"{number}.png\t{text}" for number, text in enumerate(readings[:-1])] + ["4.png\twrong"]
    (own / "labels.tsv").write_text("\n".join(lines) + "\n")
    (own / "capitals.tsv").write_text("\n".join(lines).upper().replace(".PNG", ".png") + "\n")
    return tmp_path / "root"


def results(path):
    return json.loads(path.read_text())


def test_a_folder_of_sets(root, saved, tmp_path, capsys):
    output = tmp_path / "results" / "mine.json"
    status = main(["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output),
                   "--errors", str(tmp_path / "errors")])  # fmt: skip
    told = capsys.readouterr()
    assert status == 1
    assert "SVT has 5 samples, but the benchmark has 647" in told.err
    found = results(output)
    assert list(found["sets"]) == ["SVT", "own"]
    assert {"model", "commit", "date", "versions", "protocol", "sets", "averages"} <= set(found)
    own = found["sets"]["own"]
    assert (own["samples"], own["correct"], own["word_accuracy"]) == (5, 4, 0.8)
    assert found["averages"]["Common"]["complete"] is False
    assert "| own |" in " ".join(told.out.split()) and "80.00" in told.out
    assert output.with_suffix(".md").read_text().strip() == told.out.strip()
    rows = list(csv.DictReader(output.with_suffix(".csv").open()))
    assert [row["set"] for row in rows][:2] == ["SVT", "own"]
    assert float(rows[1]["word_accuracy"]) == 0.8
    assert float(rows[1]["low_95"]) < 0.8 < float(rows[1]["high_95"])
    lines = [json.loads(line) for line in (tmp_path / "errors" / "readings.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    assert [line["right"] for line in sorted(lines, key=lambda line: line["image"]) if line["set"] == "own"] == [
        True
    ] * 4 + [False]
    assert found["errors"]["samples"] == 10
    for name in ("errors.html", "errors.png"):
        assert (tmp_path / "errors" / name).stat().st_size > 1000


def test_batches_and_workers_change_nothing(root, saved, tmp_path):
    found = []
    for number, options in enumerate((["--batch_size", "1"], ["--batch_size", "32", "--workers", "2"])):
        output = tmp_path / f"{number}.json"
        assert (
            main(
                [
                    "evaluate",
                    "--model",
                    str(saved),
                    "--data",
                    str(root),
                    "--sets",
                    "own",
                    "--output",
                    str(output),
                    *options,
                ]
            )
            == 0
        )
        found.append(results(output)["sets"])
    assert found[0] == found[1]


def test_other_labels(root, saved, tmp_path):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--sets", "own", "--output", str(output)]
    assert main([*words, "--labels", "capitals.tsv"]) == 0
    capitals = results(output)["sets"]["own"]
    assert main(words) == 0
    plain = results(output)["sets"]["own"]
    assert capitals["correct"] == plain["correct"] == 4
    assert capitals["case_sensitive_accuracy"] < plain["case_sensitive_accuracy"]


def test_other_labels_of_images_in_a_folder_of_their_own(tmp_path):
    """As data sets with several lists have it: images/, labels.tsv, labels_official.tsv."""
    place = make_folder(tmp_path / "SVT", ["one", "two"], images_in="images")
    (place / "labels_official.tsv").write_text((place / "labels.tsv").read_text().replace("two", "TWO"))
    for data, word in ((str(tmp_path), "SVT"), (None, f"SVT={place}"), (None, f"{place}?name=SVT")):
        sources, without = open_sets(data, [word], "labels_official.tsv")
        assert [sample.text for sample in sources["SVT"].read()] == ["one", "TWO"]
        assert without == []


def test_sets_without_the_other_labels_are_read_by_theirs_and_named(root, saved, tmp_path, capsys):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]
    main([*words, "--labels", "capitals.tsv"])
    told = capsys.readouterr()
    assert "svtrv2: without capitals.tsv, read by their usual labels: SVT.\n" in told.err
    assert "- Labels from capitals.tsv: own. Sets without that file, with their default labels: SVT." in told.out
    found = results(output)
    assert found["labels"] == found["sets"]["own"]["labels"] == "capitals.tsv"
    assert "labels" not in found["sets"]["SVT"]
    assert main([*words, "--labels", "missing.tsv"]) == 1
    assert "None of the sets has a list of labels missing.tsv: SVT, own." in capsys.readouterr().err


@pytest.mark.parametrize(("form", "correct"), [("none", 0), ("nfc", 1), ("nfkc", 2)])
def test_readings_and_labels_are_normalized_alike(tmp_path, model, processor, monkeypatch, form, correct):
    make_folder(tmp_path / "set", ["cafe\u0301", "A"])
    source = open_source(str(tmp_path / "set"))
    readings = [
        Prediction(sample, text, size=(40, 30))
        for sample, text in zip(source.read(), ("caf\u00e9", "\uff21"), strict=True)
    ]
    monkeypatch.setattr(evaluate, "read", lambda *_: iter(readings))
    found = evaluate.evaluate_set(model, processor, source, "set", "chinese", normalize=form)
    assert (found["samples"], found["correct"]) == (2, correct)


def names_of(data, sets, labels=None):
    return list(open_sets(data, sets, labels)[0])


def test_sets_by_name_and_place(root):
    own = root / "own"
    assert names_of(None, [f"mine={own}"]) == ["mine"]
    assert names_of(str(root), ["own", f"CUTE80={own}", "svt"]) == ["SVT", "CUTE80", "own"]
    with pytest.raises(ValueError, match="--sets NAME=SOURCE"):
        open_sets(None, ["SVT"])
    with pytest.raises(FileNotFoundError, match="CUTE80 not found in"):
        open_sets(str(root), ["CUTE80"])
    with pytest.raises(ValueError, match=r"--sets names none of the sets in .*: name some, or leave out --data"):
        open_sets(str(root), [f"mine={own}"])


def test_a_place_without_a_name_takes_that_of_its_folder(root):
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


def test_a_benchmark_is_known_whatever_the_case_of_its_name(root, saved, capsys):
    own = root / "own"
    assert names_of(None, [f"svt={own}", f"ost-weak={own}", f"{own}?name=cute80"]) == ["SVT", "CUTE80", "OST-Weak"]
    assert main(["evaluate", "--model", str(saved), "--sets", f"svt={own}"]) == 1
    assert "SVT has 5 samples, but the benchmark has 647" in capsys.readouterr().err


def test_two_sets_of_one_name_are_an_error(root):
    own = root / "own"
    for data, words in ((str(root), ["SVT", f"svt={own}"]), (None, [f"own={root / 'test' / 'SVT'}", str(own)])):
        with pytest.raises(ValueError, match=r"Two sets have the name (SVT|own): .* and .*own"):
            open_sets(data, words)


def test_the_test_split_of_a_dataset_of_the_hub_is_read(tmp_path):
    """And no other, unless it is named."""
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
    with pytest.raises(ValueError, match=r"--data hub:\S+ is no folder of sets, but one set: --sets hub:\S+ reads it"):
        open_sets(f"{hub}/both", [])


def test_labels_that_the_authors_leave_out_are_told_of_benchmarks(saved, tmp_path, capsys):
    for name in ("SVT", "LTB", "own"):
        make_folder(tmp_path / "root" / name, ["a" * 30, "b"])
    output = tmp_path / "results.json"
    main(["evaluate", "--model", str(saved), "--data", str(tmp_path / "root"), "--output", str(output)])
    sets = results(output)["sets"]
    assert [sets[name]["samples"] for name in ("SVT", "LTB", "own")] == [2, 2, 2]
    assert sets["SVT"]["as_published"]["samples"] == 1
    assert "as_published" not in sets["LTB"] and "as_published" not in sets["own"]
    assert "SVT: the authors of SVTRv2 exclude 1 label, empty or longer" in capsys.readouterr().out


def test_a_benchmark_that_is_read_otherwise_than_usual_has_nothing_published_beside_it(root, saved, tmp_path, capsys):
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]
    main(words)
    assert "SVTRv2-T [1]" in capsys.readouterr().out
    usual = results(output)
    assert usual["max_ratio"] == usual["protocol"] == "of each set"
    assert "unlike_published" not in usual["sets"]["SVT"]
    main([*words, "--max_ratio", "4", "--protocol", "chinese"])
    told = capsys.readouterr().out
    assert "SVTRv2-T" not in told
    assert (
        "- SVT was compared by the chinese protocol, not the english one, and read at a max ratio of 4, not 12, so"
        in told
    )
    assert "max ratio 4;" in told
    changed = results(output)
    assert (changed["max_ratio"], changed["protocol"]) == (4, "chinese")
    assert {name: one["max_ratio"] for name, one in changed["sets"].items()} == {"SVT": 4, "own": 4}
    main([*words, "--max_ratio", "12"])
    assert "unlike_published" not in results(output)["sets"]["SVT"]


def test_each_set_records_the_ratio_that_it_was_read_at(saved, tmp_path):
    for name in ("SVT", "LTB"):
        make_folder(tmp_path / "root" / name, ["a"])
    output = tmp_path / "results.json"
    main(["evaluate", "--model", str(saved), "--data", str(tmp_path / "root"), "--output", str(output)])
    assert {name: one["max_ratio"] for name, one in results(output)["sets"].items()} == {"SVT": 12, "LTB": 20}


def test_empty_labels_of_a_benchmark_are_told(saved, tmp_path, capsys):
    for name in ("SVT", "own"):
        make_folder(tmp_path / name, ["", "a", "b"])
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "--sets", "SVT"]) == 1
    assert "SVT: 1 of 3 labels are empty" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "--sets", "own"]) == 0
    assert (
        "own: 1 label has no character that the protocol compares (1 without any character)" in capsys.readouterr().out
    )


def test_labels_that_do_not_suit_the_protocol_are_told(saved, tmp_path, capsys):
    """Of which it leaves out letters, be it all of them or a province's sign."""
    make_folder(tmp_path / "plates", ["\u4eacA12", "\u6caaB34", "C56"])
    make_folder(tmp_path / "few", ["\u4eacA12", "B", "C", "D"])
    make_folder(tmp_path / "BCTR-Web", ["\u4eac", "A", "B", "C"])

    def evaluate(name, *options):
        status = main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "--sets", name, *options])
        return status, capsys.readouterr().err

    status, told = evaluate("plates")
    assert status == 1
    assert "plates: the english protocol leaves out letters or digits, or everything, of 2 of 3 labels" in told
    assert evaluate("plates", "--protocol", "chinese") == (0, "")
    assert evaluate("few") == (0, "")
    assert "the english protocol leaves out" not in evaluate("BCTR-Web")[1]
    assert (
        "BCTR-Web: the english protocol leaves out letters or digits, or everything, of 1 of 4"
        in evaluate("BCTR-Web", "--protocol", "english")[1]
    )


def broken(root):
    """Two shards of which the second one is damaged where only reading it tells."""
    (root / "broken").mkdir()
    for shard, rows in enumerate((64, 1)):  # 64 are read together
        table = pa.table({"image": [encoded(draw("a"))] * rows, "text": ["b" * 100] * rows})
        pq.write_table(table, root / "broken" / f"{shard}.parquet", compression="snappy")
    content = bytearray((root / "broken" / "1.parquet").read_bytes())
    content[50:150] = bytes(100)
    (root / "broken" / "1.parquet").write_bytes(content)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_set_that_fails_takes_no_other_with_it(root, saved, tmp_path, capsys, workers):
    broken(root)
    make_folder(root / "zebra", ["last"])
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output), "--workers", workers]
    status = main([*words, "--sets", "own", "broken", "zebra", "--errors", str(tmp_path / "errors")])
    told = capsys.readouterr()
    assert status == 1
    assert "svtrv2: broken was not evaluated: " in told.err
    assert "\n- broken was not evaluated: " in told.out
    found = results(output)
    assert list(found["sets"]) == ["own", "zebra"]
    assert list(found["unfinished"]) == ["broken"]
    lines = (tmp_path / "errors" / "readings.jsonl").read_text().splitlines()
    assert [json.loads(line)["set"] for line in lines].count("broken") == 64
    assert found["errors"]["samples"] == 6  # not what was read of it
    assert list(found["errors"]["kinds"]) == ["own", "zebra"]


def test_results_are_written_after_each_set(root, saved, tmp_path, monkeypatch):
    """So that what was read is not lost if the run is ended."""
    evaluate_set = evaluate.evaluate_set

    def interrupted(model, processor, source, name, *more):
        if name == "own":
            raise KeyboardInterrupt
        return evaluate_set(model, processor, source, name, *more)

    monkeypatch.setattr(evaluate, "evaluate_set", interrupted)
    output = tmp_path / "results" / "mine.json"
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "--output", str(output)]) == 130
    found = results(output)
    assert list(found["sets"]) == ["SVT"]
    assert found["unfinished"] == {"own": "not reached"}
    assert found["averages"]["Common"]["sets"] == ["SVT"]
    assert "- own was not evaluated: not reached" in output.with_suffix(".md").read_text()
    assert sorted(path.name for path in output.parent.iterdir()) == ["mine.csv", "mine.json", "mine.md"]


def test_a_kill_while_results_are_written_leaves_those_before(root, saved, tmp_path, monkeypatch):
    output = tmp_path / "mine.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--sets", "own", "--output", str(output)]
    assert main(words) == 0
    before = output.read_text()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    assert main(words) == 1
    assert output.read_text() == before


def test_an_image_that_cannot_be_read_is_told(root, saved, capsys):
    (root / "own" / "0.png").write_bytes(b"no image")
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "--sets", "own"]) == 1
    told = capsys.readouterr()
    assert "0.png could not be read" in told.err
    assert "60.00" in told.out


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_a_device_that_is_not_there(root, saved, capsys, command, device):
    place = ["--data", str(root)] if command == "evaluate" else ["--rounds", "1"]
    assert main([command, "--model", str(saved), *place, "--device", device]) == 1
    assert capsys.readouterr().err == f"svtrv2: --device {device}: torch cannot compute on such a device here.\n"


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_an_output_that_cannot_be_written_is_told_before_the_work(saved, tmp_path, capsys, command, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    monkeypatch.setattr(SVTRv2ForCTC, "from_pretrained", lambda *_, **__: pytest.fail("the work has begun"))
    for output in (tmp_path / "file" / "x.json", tmp_path / "folder.json"):
        assert main([command, "--model", str(saved), "--output", str(output)]) == 1
        assert f"--output {output} cannot be written" in capsys.readouterr().err


def test_a_benchmark_makes_the_folder_of_its_output(saved, tmp_path):
    output = tmp_path / "new" / "x.json"
    words = ["benchmark", "--model", str(saved), "--rounds", "1", "--batch_sizes", "1", "--largest_batch", "1"]
    assert main([*words, "--output", str(output)]) == 0
    assert results(output)["parameters"]
    assert [path.name for path in output.parent.iterdir()] == ["x.json"]


def test_a_benchmark_is_of_a_model_or_of_a_size(saved, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "--model", str(saved), "--size", "tiny", "--rounds", "1"])
    assert "argument --size: not allowed with argument --model" in capsys.readouterr().err


def test_the_output_has_a_form(root, saved, capsys):
    assert main(["evaluate", "--model", str(saved), "--data", str(root), "--output", "results.txt"]) == 1
    assert "must end in .json" in capsys.readouterr().err


def test_the_samples_of_ltb_are_counted_by_length(saved, tmp_path, capsys):
    make_folder(tmp_path / "LTB", ["a" * 30, "b" * 40, "c" * 41])
    assert main(["evaluate", "--model", str(saved), "--data", str(tmp_path), "--sets", "LTB"]) == 1
    told = capsys.readouterr().err
    assert "LTB has 3 samples, but the benchmark has 4,789" in told
    assert "LTB 26-35 has 1 samples, but the benchmark has 3,376" in told
    assert "LTB 36-55 has 2 samples, but the benchmark has 1,147" in told
    assert "LTB 56+ has 0 samples, but the benchmark has 266" in told


def test_a_set_that_cannot_be_opened_takes_no_other_with_it(root, saved, tmp_path, capsys):
    (root / "cut").mkdir()
    (root / "cut" / "data.mdb").write_bytes(b"")
    output = tmp_path / "results.json"
    words = ["evaluate", "--model", str(saved), "--data", str(root), "--sets", "cut"]
    assert main([*words, "own", "--output", str(output)]) == 1
    assert "svtrv2: cut was not evaluated: ValueError: " in capsys.readouterr().err
    found = results(output)
    assert (list(found["sets"]), list(found["unfinished"])) == (["own"], ["cut"])
    assert main(words) == 1
    assert f"svtrv2: {root / 'cut' / 'data.mdb'} is empty" in capsys.readouterr().err


def test_a_set_without_labels_is_reported(root, saved, capsys):
    make_folder(root / "bare", ["", ""])
    assert main(["evaluate", "--model", str(saved), "--sets", f"bare={root / 'bare'}"]) == 1
    assert "bare: all 2 labels are empty" in capsys.readouterr().err
