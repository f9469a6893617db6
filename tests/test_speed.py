"""Speed figures: what is counted, what is timed and how, and that nothing unavailable goes unmentioned."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import draw, make_folder

from svtrv2_hf import SVTRv2ForCTC, SVTRv2TextRecognitionPipeline
from svtrv2_hf.evaluation import speed


ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread(two_threads_and_a_seed):
    """Two wait for each other where something else is running, and small models are then slowed down a hundredfold."""
    torch.set_num_threads(1)


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
def images(data):
    return list(speed.read_images(str(data)))


class Device:
    """A clock, and a device that works on after a call has come back."""

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


# --- what is counted


@pytest.mark.parametrize(
    ("size", "published", "parameters"),
    [("tiny", 0.922, 5_128_255), ("small", 1.951, 11_251_247), ("base", 3.511, 19_755_551)],
)
def test_multiply_adds_are_the_published_ones_less_what_the_rearrangement_saves(size, published, parameters):
    model, _ = speed.fresh(size)
    assert model.num_parameters() == parameters
    # Keys of 4 x 32 positions are one vector, and values are needed of 32 columns instead.
    saved = model.config.hidden_sizes[-1] ** 2 * (4 * 32 + 4 * 32 - 32)
    assert (speed.multiply_adds(model, (32, 128)) + saved) / 1e9 == pytest.approx(published, abs=5e-4)


def test_attention_grows_with_the_square_of_the_width(model):
    """So the products of fused attention are counted, too."""
    narrow, double = (speed.multiply_adds(model, (32, width)) for width in (128, 256))
    assert double > 2.02 * narrow


# --- how it is timed


def test_each_round_times_all_and_begins_with_the_next():
    device = Device()
    cases = {name: device.work(name, seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 0.5))}
    times = speed.time_in_turn(cases, 3, {"a": 2, "b": 1, "c": 1}, device.synchronize, device.clock)
    assert device.log == ["a", "a", "b", "c", "b", "c", "a", "a", "c", "a", "a", "b"]
    assert times["a"].tolist() == [[1.0, 1.0]] * 3
    assert times["b"].tolist() == [[2.0]] * 3
    assert times["c"].tolist() == [[0.5]] * 3


def test_ratios_are_of_the_same_round():
    """A slow machine in one round slows both."""
    ours = np.array([[1.0, 1.2, 1.1], [10.0, 10.0, 50.0], [1.0, 1.0, 1.0]])
    theirs = np.array([[2.2], [20.0], [2.0]])
    assert speed.paired_ratio(theirs, ours) == pytest.approx(2.0)
    assert speed.paired_ratio(ours, theirs) == pytest.approx(0.5)


def test_summary():
    figures = speed.summary(np.array([[0.010] * 8, [0.020] * 8]), batch_size=4)
    assert figures["median_ms"] == pytest.approx(15.0)
    assert figures["p90_ms"] == pytest.approx(20.0)
    assert figures["images_per_second"] == pytest.approx(4 / 0.015)


def test_latency_of_a_set_is_the_mean_over_its_images(model, processor, images):
    ticks = iter([0.0, 0.001, 5.0, 5.002, 6.0, 6.003, 7.0, 7.010])
    latency = speed.latency_of_set(model, processor, images, clock=lambda: next(ticks))
    assert latency["mean_ms"] == pytest.approx(4.0)
    assert latency["images"] == 4
    assert sum(latency["sizes"].values()) == 4
    assert latency["sizes"]["64 x 64"] == 1  # of "I"


def test_the_latency_ends_when_the_device_is_done(model, processor, images, monkeypatch):
    """On CUDA a call returns before its work is done."""
    device = Device()
    monkeypatch.setattr(speed, "synchronizer", lambda _: device.synchronize)
    monkeypatch.setattr(type(model), "forward", lambda *_: device.work("forward", 0.005)())
    assert speed.latency_of_set(model, processor, images, device.clock)["mean_ms"] == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("milliseconds", "fits", "most", "expected"),
    [
        (lambda n: 10 + n, 10**6, 1024, (1024, "limit")),  # where 512 gain 1.9 percent, and both 2.9
        (lambda n: 10 + n + (n > 16) * n, 10**6, 1024, (16, "rate")),
        (lambda n: 10 + n + (n in (2, 4, 8)) * 40, 10**6, 64, (64, "limit")),  # some slow ones do not end it
        (lambda n: 10 + n, 20, 1024, (16, "memory")),
    ],
)
def test_the_best_batch_is_searched_by_doubling(model, monkeypatch, milliseconds, fits, most, expected):
    device = Device()
    monkeypatch.setattr(speed, "synchronizer", lambda _: device.synchronize)
    monkeypatch.setattr(speed, "_random", lambda model, number, size: number)

    def forward(model, number):
        if number > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        device.work("forward", milliseconds(number) / 1000)()
        return SimpleNamespace(logits=None)

    monkeypatch.setattr(type(model), "forward", forward)
    assert speed.best_batch_size(model, (32, 128), device.clock, most) == expected


def test_the_published_latency_is_that_of_the_size(model):
    assert speed.published_latency(speed.fresh("tiny")[0].config) == 5.0
    assert speed.published_latency(speed.fresh("base")[0].config) == 7.0
    assert speed.published_latency(model.config) is None


def test_the_compiled_pipeline_reads_the_same_without_sizes_beside_the_image(model, processor, monkeypatch):
    calls = []

    def compile_for_reading(model):
        return lambda *arguments, **options: calls.append((len(arguments), options)) or model(*arguments, **options)

    monkeypatch.setattr(speed, "compile_for_reading", compile_for_reading)
    words = [draw("word"), draw("another")]
    timed = speed.TimedPipeline(model=model, processor=processor)
    expected = timed(words, batch_size=1)
    timed.model = speed._OneImageCompiled(model)
    assert timed(words, batch_size=1) == expected
    assert calls == [(1, {})] * 2


def test_the_timed_pipeline_reads_as_the_pipeline_does(model, processor):
    words = [draw("word"), draw("another")]
    timed = speed.TimedPipeline(model=model, processor=processor)
    assert timed(words, batch_size=2) == SVTRv2TextRecognitionPipeline(model=model, processor=processor)(
        words, batch_size=2
    )
    assert set(timed.seconds) == {"prepare", "forward", "decode"}
    assert min(timed.seconds.values()) > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_peak_memory_is_what_a_call_needs_for_a_while():
    kept = []
    megabytes = [speed.peak_memory(run, torch.device("cpu")) for run in (lambda: None, lambda: np.ones(2**23).sum())]
    if None in megabytes:
        pytest.skip("the peak cannot be reset here")
    nothing, array = (number / 2**20 for number in megabytes)
    assert nothing < 8
    assert 56 < array < 80
    # and what an earlier call has left behind does not hide the need of the next
    again = speed.peak_memory(lambda: kept.append(np.ones(2**23).sum()), torch.device("cpu")) / 2**20
    assert 56 < again < 80


# --- images


def test_images_of_a_folder_and_of_a_source(data):
    of_source, of_folder = (list(speed.read_images(str(place))) for place in (data, data / "images"))
    assert [image.text for image in of_source] == ["one", "seventeen words", "I", "four"]
    assert [image.image for image in of_source] == [image.image for image in of_folder]
    assert of_folder[0].name.endswith("0.png")
    for place in (data, data / "images"):
        assert len(list(speed.read_images(str(place), limit=3))) == 3


def test_no_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data"):
        speed.read_images(str(tmp_path))


# --- the whole


def test_benchmark(model, processor, data, monkeypatch):
    monkeypatch.setattr(speed, "compile_for_reading", lambda model: model)
    monkeypatch.setattr(
        speed, "best_batch_size", lambda model, size: (4, "memory") if size == (32, 640) else (2, "rate")
    )
    results = speed.benchmark(model, processor, str(data), rounds=2, batch_sizes=(2, 1), compiled=True)
    assert results["parameters"] == model.num_parameters()
    sizes = [(64, 64), (48, 96), (40, 112), (32, 128), (32, 256), (32, 640)]
    assert [(row["mode"], row["height"], row["width"], row["batch_size"]) for row in results["forward"]] == [
        (mode, *size, batch_size)
        for mode in ("eager", "compiled")
        for size in sizes
        for batch_size in ((1, 2, 4) if size == (32, 640) else (1, 2))
    ]
    assert len({row["peak_bytes"] is None for row in results["forward"]}) == 1, (
        "the compiled model's memory is measured, too"
    )
    assert all(row["p90_ms"] >= row["median_ms"] > 0 for row in results["forward"])
    assert [(row["mode"], row["batch_size"]) for row in results["reading"]] == [
        ("eager", 1),
        ("eager", 2),
        ("compiled", 1),
    ]
    for row in results["reading"]:
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert all(0 < share < 1 for share in row["shares"].values())
    again = json.loads(json.dumps(results))
    text = speed.render(again)
    assert text == speed.render(results)
    first = results["forward"][0]
    assert f"| 64 x 64 | {results['multiply_adds'][0][2] / 1e9:.3f} | eager | {first['median_ms']:.2f} |" in text
    assert text.count("| compiled |") == len(sizes) + 1
    assert "Of 32 x 640, more than 4 images together were not measured" in text
    [long] = [line for line in text.splitlines() if line.startswith("| 32 x 640 |") and "| eager |" in line]
    rates = {
        row["batch_size"]: row["images_per_second"]
        for row in results["forward"]
        if row["width"] == 640 and row["mode"] == "eager"
    }
    best = max(rates, key=rates.get)
    assert f"| {rates[best]:,.0f} | {best} |" in long
    assert f"{results['latency_of_set']['mean_ms']:.2f} ms" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len({line.count("|") for line in block}) for block in tables] == [1, 1]


def test_without_images_the_table_says_so(model, processor, monkeypatch):
    monkeypatch.setattr(speed, "best_batch_size", lambda *_: (1, "rate"))
    results = speed.benchmark(model, processor, rounds=1, batch_sizes=(1,))
    assert "no images were given" in speed.render(results)
    assert not any(row["mode"] == "compiled" for row in results["forward"])


def test_a_guidance_branch_is_not_counted(processor, config, monkeypatch):
    monkeypatch.setattr(speed, "best_batch_size", lambda *_: (1, "rate"))
    config.use_guidance = True
    model = SVTRv2ForCTC(config).eval()
    results = speed.benchmark(model, processor, rounds=1, batch_sizes=(1,))
    assert results["parameters"] == model.drop_guidance().num_parameters()


def test_a_compiled_model_that_computes_something_else_is_refused(model, processor, config, monkeypatch):
    other = type(model)(config).eval()
    monkeypatch.setattr(speed, "compile_for_reading", lambda model: other)
    monkeypatch.setattr(speed, "best_batch_size", lambda *_: (1, "rate"))
    with pytest.raises(RuntimeError, match="disagree by"):
        speed.benchmark(model, processor, rounds=1, batch_sizes=(1,), compiled=True)


# --- other recognisers


def settings_of(script, model, processor, **changes):
    return script.Settings(model, processor, trained=True, threads=1, **changes)


def test_what_cannot_run_is_named_with_how_to_get_it(script, model, processor, monkeypatch, tmp_path):
    from peers import PEERS
    from peers.transformers_peers import PPOcr

    monkeypatch.setitem(sys.modules, "rapidocr", None)
    monkeypatch.setattr(shutil, "which", lambda command: None)
    for peer in PPOcr.__subclasses__():
        monkeypatch.setattr(peer, "family", f"No{peer.family}")
    heavy = ("MGP-STR", "TrOCR")
    classes = [peer for peer in PEERS if not peer.name.startswith(heavy)]
    found, unavailable = script.gather(classes, settings_of(script, model, processor))
    assert [peer.name for peer in found] == ["ours", "ours compiled"]
    reasons = {row["name"]: row["reason"] for row in unavailable}
    assert set(reasons) == {peer.name for peer in classes} - {"ours", "ours compiled"}
    assert "--reference" in reasons["OpenOCR's SVTRv2"]
    assert "pip install rapidocr" in reasons["PP-OCRv6 small, RapidOCR"]
    assert "apt-get install tesseract-ocr" in reasons["Tesseract"]
    assert "pip install -U transformers" in reasons["PP-OCRv6 tiny, transformers"]
    _, [missing] = script.gather([classes[2]], settings_of(script, model, processor, reference=tmp_path))
    assert f"{tmp_path} is no checkout" in missing["reason"]


def test_ours_reads_as_the_pipeline_does(script, model, processor):
    words = [draw("word"), draw("a longer line of them"), draw("x")]
    peer = script.Ours(settings_of(script, model, processor))
    read = SVTRv2TextRecognitionPipeline(model=model, processor=processor)
    expected = [read(word)[0]["generated_text"] for word in words]
    assert peer.read(words) == expected
    assert [peer.read([word])[0] for word in words] == expected


def test_small_peers_of_transformers_take_any_image(script, model, processor):
    from peers.transformers_peers import PPOcrV5Mobile, PPOcrV6Tiny

    peers, unavailable = script.gather([PPOcrV6Tiny, PPOcrV5Mobile], settings_of(script, model, processor))
    assert len(peers) + len(unavailable) == 2
    for peer in peers:
        readings = peer.read([draw("word"), draw("a line that is much wider than 320 by 48 pixels")])
        assert [type(reading) for reading in readings] == [str, str]


class FakePeer:
    """Takes its time by a clock of its own."""

    note, parameters = "a fake", 10**6

    def __init__(self, name, device, alone, together=None, trained=False, reading="x"):
        self.name, self.device, self.alone, self.together = name, device, alone, together
        self.trained, self.batches, self.reading = trained, together is not None, reading

    def read(self, images):
        self.device.now += self.alone * len(images) if len(images) == 1 or not self.batches else self.together
        return [self.reading] * len(images)


@pytest.fixture
def fakes():
    device = Device()
    peers = [
        FakePeer("ours", device, 0.010, 0.040, trained=True, reading="One!"),
        FakePeer("twice", device, 0.020, trained=True, reading="two"),
        FakePeer("untrained", device, 0.005, 0.120),
    ]
    return device, peers


def test_times_of_peers_are_told_in_those_of_ours(script, fakes):
    device, peers = fakes
    rows = script.peer_speed(peers, [draw("a")] * 4, rounds=3, clock=device.clock)
    found = {(row["name"], row["images"]): (row["median_ms"], row["times_the_time_of_ours"]) for row in rows}
    assert {key: pytest.approx(value) for key, value in found.items()} == {
        ("ours", 1): (10, 1),
        ("ours", 4): (40, 1),
        ("twice", 1): (20, 2),
        ("untrained", 1): (5, 0.5),
        ("untrained", 4): (120, 3),
    }


def test_accuracy_is_of_trained_peers_in_letters_and_digits(script, fakes, data):
    rows = script.accuracy(fakes[1], str(data))
    assert [(row["name"], row["set"], row["images"]) for row in rows] == [("ours", "words", 4), ("twice", "words", 4)]
    assert [row["word_accuracy"] for row in rows] == [0.25, 0.0]  # "One!" is "one"
    assert script.accuracy(fakes[1], str(data), limit=1)[0]["word_accuracy"] == 1.0


def test_the_script_from_end_to_end(script, saved, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "compile_for_reading", lambda model: model)
    output = tmp_path / "results.json"
    words = ["--model", str(saved), "--threads", "1", "--rounds", "1", "--batch-sizes", "1", "--images", str(data)]
    words += ["--peer-rounds", "1", "--peers", "ours", "OpenOCR's SVTRv2", "--accuracy", str(data)]
    script.main([*words, "--output", str(output)])
    printed = capsys.readouterr().out
    results = json.loads(output.read_text(encoding="utf-8"))
    assert script.table(results) in printed
    [row] = [line for line in printed.splitlines() if line.startswith("| ours |")]
    assert row.count("|") == 8  # with a column for the set
    assert "- OpenOCR's SVTRv2 was not measured: git clone" in printed
    assert "| 1 | ours | " in printed


def test_the_benchmark_of_training(config, tmp_path, monkeypatch, capsys):
    script = script_named("benchmark_training")
    monkeypatch.setattr(script.SVTRv2Config, "preset", lambda *_, **__: config)
    config.vocab_size = len(script.ENGLISH_94) + 1
    monkeypatch.setattr(script, "reference_model", lambda _, config: AsTheReference(config))
    output = tmp_path / "results.json"
    words = ["--sizes", "nano", "--batch-size", "2", "--steps", "2", "--rounds", "2", "--dtype", "bfloat16"]
    script.main([*words, "--device", "cpu", "--reference", str(tmp_path), "--output", str(output)])
    results = json.loads(output.read_text())
    told = capsys.readouterr().out
    [rows] = results["sizes"].values()
    assert rows["images_per_second"].keys() == {"ours", "reference", "SVTRv2Trainer"}
    assert rows["times_the_reference"]["reference"] == 1
    for case, rate in rows["images_per_second"].items():
        flops = 6 * rows["multiply_adds"] * rate
        assert rows["share_of_peak"][case] == pytest.approx(flops / results["peak_tflops"] / 1e12)
        assert case in told


class AsTheReference(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.model = SVTRv2ForCTC(config)

    def forward(self, pixel_values):
        return self.model(pixel_values).logits


def test_the_reference_has_the_same_loss(config):
    script = script_named("benchmark_training")
    model = SVTRv2ForCTC(config).eval()
    pixel_values = torch.rand(3, 3, 32, 128)
    labels = torch.randint(1, config.vocab_size, (3, script.LETTERS))
    output = model(pixel_values, labels=labels)
    lengths = torch.full((3,), script.LETTERS)
    torch.testing.assert_close(script.reference_loss(output.logits, labels, lengths), output.loss)


def test_a_step_of_the_benchmark_of_training_trains(config):
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
