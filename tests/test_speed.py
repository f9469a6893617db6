"""Speed measurements, their reports, and the benchmark scripts."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import draw, make_folder

from svtrv2_hf import SVTRv2ForCTC, SVTRv2TextRecognitionPipeline
from svtrv2_hf.evaluation import memory, speed, speed_report


ROOT = Path(__file__).parents[1]


def script_named(name):
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return script_named("benchmark")


@pytest.fixture
def data(tmp_path):
    return make_folder(tmp_path / "words", ["one", "seventeen words", "I", "four"], images_in="images")


@pytest.fixture
def files(data, tmp_path):
    return speed.image_files(str(data), tmp_path, limit=3000)


class Device:
    """A clock, and a device that works asynchronously."""

    def __init__(self):
        self.now, self.queued, self.log = 0.0, 0.0, []

    def clock(self):
        return self.now

    def synchronize(self):
        self.now += self.queued
        self.queued = 0.0

    def work(self, name, seconds):
        def call():
            self.log.append(name)
            self.queued += seconds

        return call


# --- multiply-adds


@pytest.mark.parametrize(
    ("size", "published", "parameters"),
    [("tiny", 0.922, 5_128_255), ("small", 1.951, 11_251_247), ("base", 3.511, 19_755_551)],
)
def test_multiply_adds_are_the_published_ones_minus_the_savings_of_the_rearrangement(size, published, parameters):
    model, _ = speed.fresh(size)
    assert model.num_parameters() == parameters
    # Keys of 4 x 32 positions are one vector, and values are computed for 32 columns only.
    saved = model.config.hidden_sizes[-1] ** 2 * (4 * 32 + 4 * 32 - 32)
    assert (speed.multiply_adds(model, (32, 128)) + saved) / 1e9 == pytest.approx(published, abs=5e-4)


def test_attention_grows_with_the_square_of_the_width(model):
    """This shows that fused attention is counted."""
    narrow, double = (speed.multiply_adds(model, (32, width)) for width in (128, 256))
    assert double > 2.02 * narrow


# --- timing


def test_each_round_times_all_cases_and_starts_with_the_next():
    device = Device()
    cases = {name: device.work(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 0.5))}
    times = speed.time_in_turn(cases, 3, {"a": 2, "b": 1, "c": 1}, device.synchronize, device.clock)
    assert device.log == ["a", "a", "b", "c", "b", "c", "a", "a", "c", "a", "a", "b"]
    assert times["a"].tolist() == [[1.0, 1.0]] * 3
    assert times["b"].tolist() == [[2.0]] * 3
    assert times["c"].tolist() == [[0.5]] * 3


def test_ratios_are_paired_by_round():
    """A slow machine in one round affects both cases."""
    timing = script_named("timing")
    ours = np.array([[1.0, 1.2, 1.1], [10.0, 10.0, 50.0], [1.0, 1.0, 1.0]])
    theirs = np.array([[2.2], [20.0], [2.0]])
    assert timing.paired_ratio(theirs, ours) == pytest.approx(2.0)
    assert timing.paired_ratio(ours, theirs) == pytest.approx(0.5)


def test_summary_has_median_90th_percentile_and_rate():
    figures = speed.summary(np.array([[0.010] * 8, [0.020] * 8]), batch_size=4)
    assert figures["median_ms"] == pytest.approx(15.0)
    assert figures["p90_ms"] == pytest.approx(20.0)
    assert figures["images_per_second"] == pytest.approx(4 / 0.015)


def test_latency_of_a_set_is_the_mean_over_its_images(model, processor, files):
    ticks = iter([0.0, 0.001, 5.0, 5.002, 6.0, 6.003, 7.0, 7.010])
    latency = speed.latency_of_set(model, processor, files, clock=lambda: next(ticks))
    assert latency["mean_ms"] == pytest.approx(4.0)
    assert latency["images"] == 4
    assert sum(latency["sizes"].values()) == 4
    assert latency["sizes"]["64 x 64"] == 1  # of "I"


class Queue:
    """Replaces a model on an asynchronous device."""

    dtype, device = torch.float32, torch.device("cuda:1")

    def __init__(self, clock):
        self.compute = clock.work("forward", 0.004)

    def __call__(self, _):
        return self.compute()


def test_latency_of_a_set_ends_when_the_device_is_done(processor, files, monkeypatch):
    """Unlike in the reference script, the clock does not stop when the work is queued."""
    device, waited_for = Device(), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)  # the device does not exist
    monkeypatch.setattr(
        torch.accelerator,
        "synchronize",
        lambda device_waited_for: (waited_for.append(device_waited_for), device.synchronize()),
    )
    latency = speed.latency_of_set(Queue(device), processor, files, clock=device.clock)
    assert latency["mean_ms"] == pytest.approx(4.0)
    assert set(waited_for) == {torch.device("cuda:1")}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_timed_pipeline_predicts_as_the_pipeline(model, processor, batch_size):
    words = [draw("word"), draw("another line"), draw("else")]  # of two sizes
    parts = {"model": model, "processor": processor}
    timed = speed.TimedPipeline(**parts)
    expected = SVTRv2TextRecognitionPipeline(**parts)(words, batch_size=batch_size)
    for [found], [prediction] in zip(timed(words, batch_size=batch_size), expected, strict=True):
        assert found == {"text": prediction["text"], "score": pytest.approx(prediction["score"])}
    assert set(timed.seconds) == {"prepare", "forward", "decode"}
    assert min(timed.seconds.values()) > 0


# --- the best batch size


def test_search_ends_after_two_doublings_without_improvement():
    rates = {1: 10, 2: 30, 4: 25, 8: 40, 16: 39, 32: 40, 64: 99}
    tried, ended = speed.search_batch_size(rates.__getitem__, 1024)
    assert tried == {
        batch_size: rates[batch_size] for batch_size in (1, 2, 4, 8, 16, 32)
    }  # the dip at 4 did not end it
    assert ended == "slower"


@pytest.mark.parametrize(("largest", "last"), [(1, 1), (8, 8), (15, 8)])
def test_search_ends_at_the_limit(largest, last):
    tried, ended = speed.search_batch_size(float, largest)
    assert (max(tried), ended) == (last, "limit")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_running_out_of_memory_ends_the_search(error):
    def rate(batch_size):
        if batch_size == 8:
            raise error
        return batch_size

    assert speed.search_batch_size(rate, 1024) == ({1: 1, 2: 2, 4: 4}, "memory")


def test_other_errors_of_the_search_are_raised():
    def rate(batch_size):
        if batch_size == 8:
            raise RuntimeError("an illegal memory access was encountered")
        return batch_size

    with pytest.raises(RuntimeError, match="illegal"):
        speed.search_batch_size(rate, 1024)


def test_batch_that_does_not_fit_into_memory_is_not_tried(model, processor, monkeypatch):
    """Linux would kill the process, and all measurements would be lost."""
    monkeypatch.setattr(speed, "peak_memory", lambda *_: 2**20)
    monkeypatch.setattr(speed, "available_memory", lambda: 2**21 - 1)
    results = speed.benchmark(model, processor, [], rounds=1, batch_sizes=(1,), largest_batch=1024)
    assert {len(search["images_per_second"]) for search in results["search"]} == {1}
    assert "Memory ran out before that: 64 x 64 (after 1), " in speed_report.render(results)


def test_available_memory():
    assert memory.available_memory() > 2**24
    if Path("/proc/meminfo").exists():
        assert memory.available_memory() < 2**50


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only on Linux")
def test_peak_memory_includes_temporary_memory():
    kept = []
    megabytes = [memory.peak_memory(run, torch.device("cpu")) for run in (lambda: None, lambda: np.ones(2**23).sum())]
    if None in megabytes:
        pytest.skip("the peak cannot be reset here")
    nothing, array = (number / 2**20 for number in megabytes)
    assert nothing < 8
    assert 56 < array < 80
    # memory that an earlier call kept does not hide the peak of the next one
    again = memory.peak_memory(lambda: kept.append(np.ones(2**23).sum()), torch.device("cpu")) / 2**20
    assert 56 < again < 80


# --- images


def test_image_files_of_a_folder_and_of_a_list_are_used_in_place(data, tmp_path):
    (data / "images" / "notes.txt").write_text("not an image")
    expected = [data / "images" / f"{number}.png" for number in range(4)]
    assert speed.image_files(str(data / "images"), tmp_path, limit=3000) == expected
    assert speed.image_files(str(data), tmp_path, limit=3000) == expected
    assert speed.image_files(str(data), tmp_path, limit=3) == expected[:3]
    assert speed.image_files(str(data / "images"), tmp_path, limit=3) == expected[:3]


def test_images_in_a_container_are_written_to_files(data, tmp_path):
    pictures = [file.read_bytes() for file in sorted((data / "images").iterdir())]
    table = pyarrow.table({"image": pictures, "text": ["x"] * len(pictures)})
    pyarrow.parquet.write_table(table, tmp_path / "words.parquet")
    folder = tmp_path / "written"
    folder.mkdir()
    files = speed.image_files(str(tmp_path / "words.parquet"), folder, limit=3)
    assert [file.read_bytes() for file in files] == pictures[:3]
    assert sorted(folder.iterdir()) == files


def test_folder_without_images_raises(tmp_path):
    with pytest.raises(FileNotFoundError, match="No data in a supported format"):
        speed.image_files(str(tmp_path), tmp_path, limit=3000)


# --- the whole benchmark


SIZES = [(64, 64), (48, 96), (40, 112), (32, 128), (32, 256), (32, 640)]


@pytest.fixture
def at_its_best_with_four(monkeypatch):
    """Makes batches of four the fastest, independent of the machine."""
    monkeypatch.setattr(
        speed, "search_batch_size", lambda rate, _: ({n: rate(n) * (n == 4) for n in (1, 2, 4)}, "slower")
    )


def test_benchmark_measures_sizes_pipeline_and_latency(model, processor, files, at_its_best_with_four):
    results = speed.benchmark(model, processor, files, rounds=2, batch_sizes=(2, 1), largest_batch=1024)
    assert results["parameters"] == model.num_parameters()
    assert [(row["height"], row["width"], row["batch_size"]) for row in results["forward"]] == [
        (*size, batch_size) for size in SIZES for batch_size in (1, 2, 4)
    ]
    assert all(row["p90_ms"] >= row["median_ms"] > 0 for row in results["forward"])
    assert [row["batch_size"] for row in results["pipeline"]] == [1, 2, 4]
    assert [search["of"] for search in results["search"]] == [f"{height} x {width}" for height, width in SIZES] + [
        "files"
    ]
    for row in results["pipeline"]:
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert all(0 < share < 1 for share in row["shares"].values())
    again = json.loads(json.dumps(results))
    text = speed_report.render(again)
    assert text == speed_report.render(results)
    first = results["forward"][0]
    assert rows_of(text)[0][:3] == [
        "64 x 64",
        f"{results['multiply_adds'][0][2] / 1e9:.3f}",
        f"{first['median_ms']:.2f}",
    ]
    assert f"{results['latency_of_set']['mean_ms']:.2f} |" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in block}) for block in tables] == [1, 1, 1]


def rows_of(text):
    """The cells of all tables, without headers."""
    tables = [block.splitlines()[2:] for block in text.split("\n\n") if block.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for lines in tables for line in lines]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only on Linux")
def test_peak_memory_of_every_size_is_reported(model, processor):
    results = speed.benchmark(model, processor, [], rounds=1, batch_sizes=(1,), largest_batch=1)
    peaks = {row["width"]: row["peak_bytes"] for row in results["forward"]}
    if None in peaks.values():
        pytest.skip("the peak cannot be reset here")
    assert len(peaks) == len(SIZES)
    assert peaks[640] > 2**20


def test_table_shows_the_best_batch():
    rows = [(1, 10.0, 2**20), (32, 40.0, 32 * 2**20), (8, 50.0, 8 * 2**20)]
    results = of_one_size(
        [
            {
                "batch_size": n,
                "images_per_second": rate,
                "peak_bytes": peak,
                "median_ms": 1000 * n / rate,
                "p90_ms": 101.0,
            }
            for n, rate, peak in rows
        ],
        search=[{"of": "32 x 128", "images_per_second": [[1, 10.0], [8, 50.0]], "ended": "limit"}],
    )
    text = speed_report.render(results)
    assert rows_of(text) == [["32 x 128", "0.500", "100.00", "101.00", "10", "40", "32", "8", "50", "8"]]
    assert "The limit was reached before that: 32 x 128 (after 8)." in text


def test_published_latency_is_shown_with_its_device():
    row = {"batch_size": 1, "images_per_second": 10.0, "peak_bytes": None, "median_ms": 100.0, "p90_ms": 101.0}
    latency = {"latency_of_set": {"images": 3000, "mean_ms": 14.8}, "pipeline": []}
    text = speed_report.render(of_one_size([row], batch_sizes=[1], **latency))
    assert rows_of(text)[1:] == [
        ["this model", "float32 on cpu, 2 threads", "14.80"],
        ["SVTRv2-T, published", "one NVIDIA 1080Ti", "5.0"],
        ["SVTRv2-S, published", "one NVIDIA 1080Ti", "5.3"],
        ["SVTRv2-B, published", "one NVIDIA 1080Ti", "7.0"],
    ]


def of_one_size(forward, search=(), **changes):
    size = {"height": 32, "width": 128}
    return {
        "hidden_sizes": [64],
        "classes": 95,
        "parameters": 10**6,
        "dtype": "float32",
        "tf32": False,
        "device": "cpu",
        "threads": 2,
        "machine": "a machine",
        "versions": {"torch": "2"},
        "rounds": 1,
        "batch_sizes": [1, 32],
        "multiply_adds": [[32, 128, 5 * 10**8]],
        "forward": [{**size, **row} for row in forward],
        "search": search,
        **changes,
    }


def test_report_says_if_no_images_were_given(model, processor):
    results = speed.benchmark(model, processor, [], rounds=1, batch_sizes=(1,), largest_batch=1)
    assert "no images were given" in speed_report.render(results)


def test_guidance_branch_is_not_counted(processor, config):
    config.use_guidance = True
    model = SVTRv2ForCTC(config).eval()
    results = speed.benchmark(model, processor, [], rounds=1, batch_sizes=(1,), largest_batch=1)
    assert results["parameters"] == model.drop_guidance().num_parameters()


# --- other models


def settings_of(script, model, processor, **changes):
    return script.Settings(model, processor, trained=True, threads=1, **changes)


def test_models_that_cannot_run_are_listed_with_how_to_install_them(script, model, processor, monkeypatch, tmp_path):
    from peers import PEERS
    from peers.transformers_peers import PPOcr

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    for peer in PPOcr.__subclasses__():
        monkeypatch.setattr(peer, "family", f"No{peer.family}")
    heavy = ("MGP-STR", "TrOCR")
    classes = [peer for peer in PEERS if not peer.name.startswith(heavy)]
    found, unavailable = script.gather(classes, settings_of(script, model, processor))
    assert [peer.name for peer in found] == ["svtrv2-hf"]
    reasons = {row["name"]: row["reason"] for row in unavailable}
    assert set(reasons) == {peer.name for peer in classes} - {"svtrv2-hf"}
    assert "--reference" in reasons["OpenOCR's SVTRv2"]
    assert "pip install rapidocr" in reasons["PP-OCRv6 small, RapidOCR"]
    assert "apt-get install tesseract-ocr" in reasons["Tesseract"]
    assert "pip install -U transformers" in reasons["PP-OCRv6 tiny, transformers"]
    _, [missing] = script.gather([classes[1]], settings_of(script, model, processor, reference=tmp_path))
    assert f"{tmp_path} is not a checkout" in missing["reason"]


def test_our_model_predicts_as_the_pipeline(script, model, processor):
    words = [draw("word"), draw("a longer line of them"), draw("x")]
    peer = script.Ours(settings_of(script, model, processor))
    read = SVTRv2TextRecognitionPipeline(model=model, processor=processor)
    expected = [read(word)[0]["text"] for word in words]
    assert peer.read(words) == expected
    assert [peer.read([word])[0] for word in words] == expected


def test_small_models_of_transformers_take_any_image(script, model, processor):
    from peers.transformers_peers import PPOcrV5Mobile, PPOcrV6Tiny

    peers, unavailable = script.gather([PPOcrV6Tiny, PPOcrV5Mobile], settings_of(script, model, processor))
    assert len(peers) + len(unavailable) == 2
    for peer in peers:
        texts = peer.read([draw("word"), draw("a line that is much wider than 320 by 48 pixels")])
        assert [type(text) for text in texts] == [str, str]


def test_versions_of_other_models_are_recorded(script, model, processor, tmp_path, monkeypatch):
    """So that a comparison can be repeated; packages to be installed for it are in the project's constraints."""
    from peers import rapid, reference, tesseract

    engine = types.ModuleType("rapidocr")
    engine.RapidOCR = lambda params: None
    monkeypatch.setitem(sys.modules, "rapidocr", engine)
    monkeypatch.setattr(rapid, "version", {"rapidocr": "3.10.0", "onnxruntime": "1.32.0"}.__getitem__)
    monkeypatch.setattr(shutil, "which", lambda command: command)
    output = subprocess.CompletedProcess([], 0, stdout="tesseract 5.3.0\n leptonica-1.82.0\n")
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", lambda *_, **__: output)
        peers = [peer(settings_of(script, model, processor)) for peer in (rapid.RapidOcr, tesseract.Tesseract)]
    assert [peer.versions for peer in peers] == [
        {"rapidocr": "3.10.0", "onnxruntime": "1.32.0"},
        {"tesseract": "5.3.0"},
    ]
    assert peers[0].note.startswith("rapidocr 3.10.0, onnxruntime 1.32.0, trained weights")
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert set(rapid.RapidOcr.packages) <= pinned

    checkout = tmp_path / "checkout"
    (checkout / "openrec").mkdir(parents=True)
    assert reference.commit_of(checkout) == "no git checkout"
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    assert re.fullmatch("[0-9a-f]{40}", reference.commit_of(checkout))
    assert reference.commit_of(checkout / "openrec") == "no git checkout"


class FakePeer:
    """Takes its time by a fake clock."""

    note, parameters, versions = "a fake", 10**6, {"fake": "1"}

    def __init__(self, name, device, alone, together=None, trained=False, text="x"):
        self.name, self.device, self.alone, self.together = name, device, alone, together
        self.trained, self.batches, self.text = trained, together is not None, text

    def read(self, images):
        self.device.now += self.alone * len(images) if len(images) == 1 or not self.batches else self.together
        return [self.text] * len(images)


@pytest.fixture
def fakes():
    device = Device()
    peers = [
        FakePeer("svtrv2-hf", device, 0.010, 0.040, trained=True, text="One!"),
        FakePeer("twice", device, 0.020, trained=True, text="two"),
        FakePeer("untrained", device, 0.005, 0.120),
    ]
    return device, peers


def test_times_of_other_models_are_relative_to_ours(script, fakes):
    device, peers = fakes
    rows = script.peer_speed(peers, [draw("a")] * 4, rounds=3, clock=device.clock)
    found = {(row["name"], row["images"]): (row["median_ms"], row["relative_time"]) for row in rows}
    assert {key: pytest.approx(value) for key, value in found.items()} == {
        ("svtrv2-hf", 1): (10, 1),
        ("svtrv2-hf", 4): (40, 1),
        ("twice", 1): (20, 2),
        ("untrained", 1): (5, 0.5),
        ("untrained", 4): (120, 3),
    }


def test_accuracy_of_trained_models_in_letters_and_digits(script, fakes, data):
    rows = script.accuracy(fakes[1], str(data))
    assert [(row["name"], row["set"], row["images"]) for row in rows] == [
        ("svtrv2-hf", "words", 4),
        ("twice", "words", 4),
    ]
    assert [row["word_accuracy"] for row in rows] == [0.25, 0.0]  # "One!" is "one"
    assert script.accuracy(fakes[1], str(data), limit=1)[0]["word_accuracy"] == 1.0


def test_benchmark_script_measures_speed_and_accuracy(script, saved, data, tmp_path, capsys):
    output = tmp_path / "results.json"
    words = ["--model", str(saved), "--threads", "1", "--rounds", "1", "--batch-sizes", "1", "--images", str(data)]
    words += ["--peer-rounds", "1", "--peers", "svtrv2-hf", "OpenOCR's SVTRv2", "--accuracy", str(data)]
    script.main([*words, "--output", str(output)])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text(encoding="utf-8"))
    assert script.table(results) in printed
    [row] = [row for row in rows_of(printed) if row[0] == "svtrv2-hf"]
    assert len(row) == 7  # with a column for the set
    assert "- OpenOCR's SVTRv2 was not measured: git clone" in printed
    assert ["1", "svtrv2-hf"] in [row[:2] for row in rows_of(printed)]


def test_benchmark_script_takes_the_default_checkpoint_and_records_versions(script, tmp_path, monkeypatch, capsys):
    device = Device()
    monkeypatch.setattr(script, "gather", lambda *_: ([FakePeer("svtrv2-hf", device, 0.010)], []))
    monkeypatch.setattr(script, "accuracy", lambda *_: [])
    output = tmp_path / "new" / "results.json"
    words = ["--model", "default", "--threads", "1", "--rounds", "1", "--batch-sizes", "1", "--accuracy", "a set"]
    script.main([*words, "--output", str(output)])
    results = json.loads(output.read_text(encoding="utf-8"))
    assert results["size"] == "nano"
    assert results["versions"]["fake"] == "1"
    assert results["versions"].keys() > {"torch", "transformers", "fake"}


@pytest.mark.parametrize("name", ["benchmark", "benchmark_training", "benchmark_data"])
def test_output_that_cannot_be_written_raises_before_measuring(name, tmp_path, monkeypatch):
    script = script_named(name)
    monkeypatch.setattr(script, "provenance", lambda: pytest.fail("the measurement started"))
    (tmp_path / "file").touch()
    output = tmp_path / "file" / "results.json"
    monkeypatch.setattr(sys, "argv", [name, "--output", str(output)])
    with pytest.raises(ValueError, match=r"--output .* cannot be written"):
        script.main()


def test_training_benchmark_script_measures_all_cases(config, tmp_path, monkeypatch, capsys):
    script = script_named("benchmark_training")
    monkeypatch.setattr(script.SVTRv2Config, "preset", lambda *_, **__: config)
    config.vocab_size = len(script.ENGLISH_94) + 1
    monkeypatch.setattr(script, "reference_model", lambda _, config: AsTheReference(config))
    output = tmp_path / "results.json"
    words = ["--sizes", "nano", "--batch-size", "2", "--steps", "2", "--rounds", "2", "--dtype", "bfloat16"]
    script.main([*words, "--device", "cpu", "--reference", str(tmp_path), "--output", str(output)])
    results = json.loads(output.read_text())
    printed = capsys.readouterr().out
    [rows] = results["sizes"].values()
    assert rows["images_per_second"].keys() == {"svtrv2-hf", "reference", "SVTRv2Trainer"}
    assert rows["speedup"]["reference"] == 1
    for case, rate in rows["images_per_second"].items():
        flops = 6 * rows["multiply_adds"] * rate
        assert rows["share_of_peak"][case] == pytest.approx(flops / results["peak_tflops"] / 1e12)
        assert case in printed


class AsTheReference(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = SVTRv2ForCTC(config)

    def forward(self, pixel_values):
        return self.model(pixel_values).logits


def test_our_loss_equals_the_loss_of_the_reference(config):
    script = script_named("benchmark_training")
    model = SVTRv2ForCTC(config).eval()
    pixel_values = torch.rand(3, 3, 32, 128)
    labels = torch.randint(1, config.vocab_size, (3, script.LETTERS))
    output = model(pixel_values, labels=labels)
    lengths = torch.full((3,), script.LETTERS)
    torch.testing.assert_close(script.reference_loss(output.logits, labels, lengths), output.loss)


def test_benchmarked_training_step_trains(config):
    script = script_named("benchmark_training")
    model = SVTRv2ForCTC(config).train()
    pixel_values, labels = torch.rand(3, 3, 32, 128), torch.randint(1, config.vocab_size, (3, script.LETTERS))
    losses = []

    def loss():
        losses.append(model(pixel_values, labels=labels).loss)
        return losses[-1]

    run = script.step(model, loss, torch.device("cpu"), torch.float32)
    for _ in range(10):
        run()
    assert losses[-1] < losses[0]
    assert all(parameter.grad is None for parameter in model.parameters())
