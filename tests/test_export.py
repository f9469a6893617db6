"""Export to ONNX and OpenVINO, the runtime class, and the program that reads images without torch."""

import copy
import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CHARSET, draw, encoded, make_folder
from filelock import FileLock
from PIL import Image
from transformers import AutoProcessor, pipeline

from svtrv2_hf import (
    SVTRv2Config,
    SVTRv2ForCTC,
    SVTRv2ForCTCRuntime,
    SVTRv2ImageProcessor,
    SVTRv2Processor,
    SVTRv2ServerImageProcessor,
    build_tokenizer,
    default_checkpoint,
)
from svtrv2_hf.cli import main
from svtrv2_hf.evaluation.benchmarks import test_split_at as split_at  # pytest would collect the name
from svtrv2_hf.hub import check
from svtrv2_hf.runtime import export as export_module
from svtrv2_hf.runtime import sessions


pytest.importorskip("onnxscript", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

SIZES = [(64, 64), (48, 96), (40, 112), (32, 128), (32, 160), (32, 384), (33, 130)]


def save_model(folder, image_processor=None, **options):
    """Save a small model with guidance, whose random weights predict texts."""
    torch.manual_seed(0)
    small = {"hidden_sizes": [16, 32, 32], "depths": [1, 2, 1], "num_attention_heads": [2, 2, 2], **options}
    model = SVTRv2ForCTC(SVTRv2Config(vocab_size=len(CHARSET) + 1, num_convolution_blocks=[1, 1, 0], **small))
    with torch.no_grad():
        model.head.weight.mul_(15)
        model.head.bias.zero_()
    model.save_pretrained(folder)
    SVTRv2Processor(image_processor or SVTRv2ImageProcessor(), build_tokenizer(CHARSET)).save_pretrained(folder)


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """The folder of an exported model; parallel workers export one model together."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / "exported"
    with FileLock(f"{folder}.lock"):
        if not (folder / "onnx" / "read.py").exists():
            save_model(folder, use_guidance=True)
            assert main(["export", str(folder)]) == 0
    return folder


@pytest.fixture
def exported(once, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(once, tmp_path / "exported")


@pytest.fixture
def graph_of_once(once, monkeypatch):
    """Exports take the graph of that model instead of tracing another one, which takes seconds."""
    monkeypatch.setattr(
        export_module, "export_onnx", lambda model, file: shutil.copyfile(once / "onnx" / "model.onnx", file)
    )


@pytest.fixture
def words(tmp_path):
    """Image files of different sizes and kinds, which no loader resizes or converts differently."""
    folder = tmp_path / "words"
    folder.mkdir()
    for text in ("a", "Hello", "12345678", "one line of words"):
        draw(text).save(folder / f"{text}.png")
    image = draw("sideways").transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "exif.png", exif=exif)
    draw("gray").convert("L").save(folder / "gray.png")
    gray = np.asarray(draw("wide").convert("L"))
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "16 bits.png")
    Image.fromarray(gray.astype(np.uint16) * 3).save(folder / "10 bits.png")
    transparent = draw("alpha").convert("RGBA")
    transparent.putalpha(
        Image.fromarray(np.where(np.asarray(transparent.convert("L")) > 128, 90, 255).astype(np.uint8))
    )
    transparent.save(folder / "alpha.png")
    transparent.convert("LA").save(folder / "gray alpha.png")
    transparent.quantize(8).save(folder / "palette.png")
    return sorted(folder.iterdir())


def load(folder, **options):
    return SVTRv2ForCTCRuntime.from_pretrained(folder, **options)


def reader(model, folder):
    return pipeline("text-recognition", model=model, processor=AutoProcessor.from_pretrained(folder))


# The exported file


def test_onnx_file_has_named_axes_and_neither_paths_nor_traces(once):
    import onnx

    assert sorted(path.name for path in (once / "onnx").iterdir()) == ["model.onnx", "read.py"]
    model = onnx.load(once / "onnx" / "model.onnx")
    onnx.checker.check_model(model)
    axes = [
        [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (model.graph.input[0], model.graph.output[0])
    ]
    assert axes == [["batch", 3, "height", "width"], ["batch", "frames", len(CHARSET) + 1]]
    assert not re.search(rb"site-packages|\.py\b|guidance", (once / "onnx" / "model.onnx").read_bytes())
    # linear layers are matrix products, and batch norms are part of convolutions
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == 2 + 2 * 2 + 2
    assert "BatchNormalization" not in operators


@pytest.mark.parametrize("batch_size", [1, 3])
def test_logits_equal_those_of_torch_at_all_sizes(once, batch_size):
    model, runtime = SVTRv2ForCTC.from_pretrained(once, use_guidance=False).eval(), load(once)
    for size in SIZES:
        images = torch.rand(batch_size, 3, *size) * 2 - 1
        with torch.no_grad():
            expected, outputs = model(images), runtime(images)
        assert (outputs.logits - expected.logits).abs().max() < 1e-4
        assert torch.equal(outputs.logits_lengths, expected.logits_lengths)


def test_pipeline_with_images_of_several_sizes_equals_that_of_torch(once, words):
    paths = list(map(str, words))
    expected = reader(SVTRv2ForCTC.from_pretrained(once), once)(paths, batch_size=4, return_characters=True)
    results = reader(load(once), once)(paths, batch_size=4, return_characters=True)
    assert len({result["text"] for [result] in expected}) > 5
    for [result], [other] in zip(results, expected, strict=True):
        assert result["text"] == other["text"]
        assert result["score"] == pytest.approx(other["score"], abs=1e-5)
        assert len(result["characters"]) == len(other["characters"])


def test_runtime_takes_inputs_of_the_processor(once):
    processor = AutoProcessor.from_pretrained(once)
    inputs = processor([draw("a"), draw("one line of words")], return_tensors="pt")
    with torch.no_grad():
        expected = SVTRv2ForCTC.from_pretrained(once).eval()(**inputs)
    outputs = load(once, threads=1)(**inputs)
    assert torch.allclose(outputs.logits, expected.logits, atol=1e-4)
    assert outputs.logits_lengths.tolist() == expected.logits_lengths.tolist()


# The program without torch


def test_program_without_torch_prints_what_svtrv2_read_prints(once, words, capsys):
    blocked = "import sys; sys.modules.update(torch=None, transformers=None, svtrv2_hf=None)\n"
    program = once / "onnx" / "read.py"
    run = f"{blocked}import runpy; runpy.run_path({str(program)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", run, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert main(["read", *map(str, words), "--model", str(once)]) == 0
    assert done.stdout.splitlines() == capsys.readouterr().out.splitlines()


def test_class_of_the_program_returns_the_score(once, words, capsys, monkeypatch):
    monkeypatch.syspath_prepend(once / "onnx")
    import read

    read_image = read.Reader()
    expected = reader(SVTRv2ForCTC.from_pretrained(once), once)(list(map(str, words)))
    for path, [result] in zip(words, expected, strict=True):
        text, score = read_image(Image.open(path))
        assert (text, score) == (result["text"], pytest.approx(result["score"], abs=1e-5))
    assert len((once / "onnx" / "read.py").read_text().splitlines()) <= 60


def test_program_reports_unreadable_images(once, words, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"not an image")
    command = [sys.executable, once / "onnx" / "read.py", tmp_path / "broken.png", words[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1
    assert "broken.png" in done.stderr and "Traceback" not in done.stderr


# Commands


def test_commands_with_a_backend_give_the_results_of_torch(once, words, tmp_path, capsys):
    folder = str(words[0].parent)
    data = make_folder(tmp_path / "data", ["ab", "Hello", "a line of words"])
    printed, measured = [], []
    for number, options in enumerate(([], ["--backend", "onnx"])):
        assert main(["read", folder, "--model", str(once), "--batch-size", "4", *options]) == 0
        printed.append(capsys.readouterr().out)
        output = tmp_path / f"{number}.json"
        assert main(["evaluate", f"mine={data}", "--model", str(once), "--output", str(output), *options]) == 0
        capsys.readouterr()
        measured.append(json.loads(output.read_text()))
    assert printed[0] == printed[1]
    assert measured[0]["sets"] == measured[1]["sets"]
    assert measured[0]["parameters"] == measured[1]["parameters"]
    assert measured[0]["weights_sha256"] != measured[1]["weights_sha256"]
    assert measured[1]["file"] == "onnx/model.onnx"
    assert "onnx/model.onnx" in (tmp_path / "1.md").read_text()


def test_benchmark_with_a_backend(once, tmp_path, capsys):
    output = tmp_path / "speed.json"
    words = ["benchmark", "--model", str(once), "--backend", "onnx", "--rounds", "1", "--largest-batch", "1"]
    assert main([*words, "--batch-size", "1", "--output", str(output)]) == 0
    results = json.loads(output.read_text())
    model = SVTRv2ForCTC.from_pretrained(once, use_guidance=False)
    assert (results["file"], results["parameters"]) == ("onnx/model.onnx", model.num_parameters())
    assert "exported to onnx/model.onnx" in capsys.readouterr().out


def test_demo_model_with_a_backend(once):
    from svtrv2_hf.demo.models import load_models

    results = [load_models([str(once)], backend)[0].predict(draw("Hello")) for backend in ("torch", "onnx")]
    assert results[0].text == results[1].text


@pytest.mark.usefixtures("graph_of_once")
def test_export_to_another_folder_copies_the_settings_without_weights(once, tmp_path, capsys):
    assert main(["export", str(once), "--output", str(tmp_path / "other")]) == 0
    assert "Largest difference from the logits of torch at 13 image sizes" in capsys.readouterr().out
    files = {path.relative_to(tmp_path / "other").as_posix() for path in (tmp_path / "other").rglob("*.*")}
    settings = {"config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert files == {*settings, "onnx/model.onnx", "onnx/read.py"}
    assert reader(load(tmp_path / "other"), tmp_path / "other")(draw("Hello"))


@pytest.mark.usefixtures("graph_of_once")
def test_quantized_file_and_its_texts(exported, tmp_path, capsys):
    data = make_folder(tmp_path / "data", ["Hello", "one line of words", "12345678", "ab"])
    words = ["export", str(exported), "--int8", "--calibrate", str(data)]
    assert main(words) == 0
    [changed] = re.findall(r"The text of (\d) of 4 calibration images differs", capsys.readouterr().out)
    file = exported / "onnx" / "model_quantized.onnx"
    assert file.stat().st_size < 0.7 * (exported / "onnx" / "model.onnx").stat().st_size
    paths = sorted(map(str, data.glob("*.png")))
    texts = [
        [result["text"] for [result] in reader(load(exported, file_name=name), exported)(paths)]
        for name in ("model.onnx", "model_quantized.onnx")
    ]
    assert sum(one != other for one, other in zip(*texts, strict=True)) == int(changed)
    assert main(words) == 1
    assert "model_quantized.onnx already exists: choose another folder" in capsys.readouterr().err


# Errors


@pytest.mark.usefixtures("graph_of_once")
def test_export_that_differs_from_torch_is_an_error_and_not_written(once, tmp_path, capsys):
    model = SVTRv2ForCTC.from_pretrained(once)
    with torch.no_grad():
        model.head.bias[3] += 0.01
    model.save_pretrained(tmp_path / "changed")
    AutoProcessor.from_pretrained(once).save_pretrained(tmp_path / "changed")
    assert main(["export", str(tmp_path / "changed")]) == 1
    assert "differ from those of torch by up to 0.01" in capsys.readouterr().err
    assert not (tmp_path / "changed" / "onnx").exists()


def test_existing_files_are_not_replaced(exported, tmp_path, capsys):
    assert main(["export", str(exported)]) == 1
    assert "onnx/model.onnx already exists" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("{}")
    assert main(["export", str(exported), "--output", str(tmp_path / "other")]) == 1
    assert "config.json is of another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["default"], "Choose a folder for the export of default: --output FOLDER"),
        ([default_checkpoint()], "default_checkpoint: --output FOLDER"),
        (["me/reader"], "hf download me/reader --local-dir FOLDER"),
        (["nothing"], "Folder not found: nothing"),
        (["default", "--output", "x", "--int8", "--calibrate", "IIIT5k"], "test split of the benchmark IIIT5k"),
    ],
)
def test_export_of_other_places_is_an_error(words, message, capsys):
    assert main(["export", *words]) == 1
    assert message in capsys.readouterr().err


def test_int8_needs_images(capsys):
    assert main(["export", "default", "--int8"]) == 2
    assert "--int8 and --calibrate SOURCE belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "benchmark"),
    [
        ("data/SVT", "SVT"),
        ("data/iiit5k/labels.tsv", "IIIT5k"),
        ("data/IIIT5k/test/0.parquet", "IIIT5k"),
        ("hub:me/SVT?split=test", "SVT"),
        ("crops?name=SVT", "SVT"),
        ("data/IIIT5k/train/0.parquet", None),
        ("hub:me/SVT?split=train", None),
        ("data/IIIT5k_train", None),
        ("data/crops/test", None),
    ],
)
def test_test_splits_are_recognized_by_their_names(source, benchmark):
    assert split_at(source) == benchmark


def test_missing_file_names_the_command(exported, capsys):
    with pytest.raises(FileNotFoundError, match=r"has no openvino/openvino_model\.xml: export it with svtrv2 export"):
        load(exported, backend="openvino")
    (exported / "onnx" / "model.onnx").rename(exported / "onnx" / "model_quantized.onnx")
    with pytest.raises(FileNotFoundError, match=r"or choose model_quantized\.onnx"):
        load(exported)
    assert main(["read", "x.png", "--model", "default", "--backend", "onnx"]) == 1
    assert "has no onnx/model.onnx: export it with svtrv2 export default --output FOLDER." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, 'must be "onnx" or "openvino"'),
        ({"providers": ["TPUExecutionProvider"]}, "TPUExecutionProvider; it has .*CPUExecutionProvider"),
        ({"threads": 0}, "threads=0 must be 1 or more"),
    ],
)
def test_invalid_options_of_the_runtime(once, options, message):
    with pytest.raises(ValueError, match=message):
        load(once, **options)


def test_providers_with_options(once):
    assert load(once, providers="CPUExecutionProvider")(torch.zeros(0, 3, 32, 128)).logits.shape[:2] == (0, 32)
    assert load(once, providers=[("CPUExecutionProvider", {})])(torch.zeros(1, 3, 32, 128)).logits.shape[1] == 32


def test_copies_load_the_file_again(exported, monkeypatch):
    monkeypatch.chdir(exported.parent)
    model = load("exported", threads=1)
    pixel_values = torch.rand(1, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    content = pickle.dumps(model)
    monkeypatch.chdir(exported)  # the pickle does not depend on the working directory
    for copied in (pickle.loads(content), copy.deepcopy(model)):
        assert torch.equal(copied(pixel_values).logits, model(pixel_values).logits)
    assert len(content) < 10_000


@pytest.mark.usefixtures("in_process")
def test_output_of_torch_is_not_continued_with_a_backend(once, tmp_path, capsys):
    images = [{"bytes": encoded(draw(text)), "path": None} for text in ("word", "a line of words")]
    pq.write_table(pa.table({"image": images}), tmp_path / "words.parquet")
    words = ["read", "--model", str(once), "--input", str(tmp_path / "words.parquet"), "--output"]
    outputs = {name: tmp_path / name for name in ("torch", "onnx")}
    for name, output in outputs.items():
        assert main([*words, str(output), "--backend", name]) == 0
    texts = [pq.read_table(output / "words.parquet")["text"].to_pylist() for output in outputs.values()]
    assert texts[0] == texts[1] and all(texts[0])
    assert main([*words, str(outputs["torch"]), "--backend", "onnx"]) == 1
    assert "backend was 'torch', now 'onnx'" in capsys.readouterr().err


def test_damaged_file_is_an_error(exported):
    (exported / "onnx" / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"onnxruntime cannot load .*model\.onnx .*: export it again"):
        load(exported)


def test_missing_packages_are_named_with_their_extra(once, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'svtrv2-hf\[onnx\]'"):
        load(once)
    monkeypatch.setattr(export_module, "find_spec", lambda name: None)
    assert main(["export", "default", "--format", "openvino", "--output", "x"]) == 1
    assert (
        "needs more packages (onnx, onnxscript, openvino): pip install 'svtrv2-hf[openvino]'"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["read", "x.png", "--file-name", "a.onnx"], "needs a backend"),
        (["evaluate", "x=x", "--backend", "onnx", "--device", "cuda"], "--device cuda needs --backend torch"),
        (["benchmark", "--backend", "onnx", "--size", "tiny"], "--size and --dtype need --backend torch"),
    ],
)
def test_options_that_exclude_each_other(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw("x").save("x.png")
    assert main(words) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())


# Publishing


def test_exported_files_are_published_with_the_program_of_the_package(exported, tmp_path):
    (exported / "onnx" / "read.py").write_text("print('mine')")
    (exported / "onnx" / "notes.txt").write_text("mine")
    (exported / "openvino").mkdir()
    (exported / "openvino" / "openvino_model.bin").write_bytes(b"weights")
    (tmp_path / "staged").mkdir()
    foreign, others = check.stage(exported, tmp_path / "staged")
    assert (foreign, others) == (["onnx/read.py"], ["onnx/notes.txt"])
    assert (tmp_path / "staged" / "onnx" / "read.py").read_bytes() == export_module.READER.read_bytes()
    assert {"onnx/model.onnx", "openvino/openvino_model.bin"} <= set(check.published(tmp_path / "staged"))


def test_exported_file_of_other_weights_is_not_published(exported, monkeypatch):
    monkeypatch.setattr(check.subprocess, "run", lambda *_, **__: pytest.skip("not reached"))
    model = SVTRv2ForCTC.from_pretrained(exported)
    image = exported.parent / "word.png"
    draw("Hello").save(image)
    assert list(check._problems_of_exported(exported, image, reader(model, exported)(image)[0])) == []
    with torch.no_grad():
        model.head.weight.mul_(-1)
    [problem] = check._problems_of_exported(exported, image, reader(model, exported)(image)[0])
    assert problem.startswith("onnx/model.onnx predicts ")
    (exported / "onnx" / "model.onnx").write_bytes(b"not a model")
    [problem] = check._problems_of_exported(exported, image, {})
    assert "onnx/model.onnx cannot be checked: onnxruntime cannot load" in problem


# OpenVINO


@pytest.mark.usefixtures("graph_of_once")
def test_openvino_equals_torch(exported, words, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    monkeypatch.setattr(sessions, "COMPILED_SIZES", 2)  # other sizes take the dynamic model
    assert main(["export", str(exported), "--format", "openvino"]) == 0
    assert {path.name for path in (exported / "openvino").iterdir()} == {"openvino_model.xml", "openvino_model.bin"}
    paths = list(map(str, words))
    expected = reader(SVTRv2ForCTC.from_pretrained(exported), exported)(paths, batch_size=4)
    results = reader(load(exported, backend="openvino", threads=1), exported)(paths, batch_size=4)
    for [result], [other] in zip(results, expected, strict=True):
        assert (result["text"], result["score"]) == (other["text"], pytest.approx(other["score"], abs=1e-5))
    assert len(load(exported, backend="openvino")(torch.zeros(0, 3, 32, 128)).logits) == 0
    with pytest.raises(ValueError, match="only for the backend onnx"):
        load(exported, backend="openvino", providers=["CPUExecutionProvider"])
    (exported / "openvino" / "openvino_model.xml").write_text("<not a model/>")
    with pytest.raises(ValueError, match=r"openvino cannot load .*openvino_model\.xml .*: export it again"):
        load(exported, backend="openvino")


@pytest.mark.usefixtures("graph_of_once")
def test_quantized_openvino_model(exported, tmp_path, capsys):
    pytest.importorskip("nncf", reason="needs the extra openvino")
    data = make_folder(tmp_path / "data", ["Hello", "one line of words", "12345678", "ab"])
    assert main(["export", str(exported), "--format", "openvino", "--int8", "--calibrate", str(data)]) == 0
    assert re.search(r"The text of \d of 4 calibration images differs", capsys.readouterr().out)
    model = load(exported, backend="openvino", file_name="openvino_model_qint8_quantized.xml")
    weights = exported / "openvino" / "openvino_model_qint8_quantized.bin"
    assert weights.stat().st_size < 0.5 * (exported / "onnx" / "model.onnx").stat().st_size
    assert model(torch.zeros(2, 3, 32, 128)).logits.shape == (2, 32, len(CHARSET) + 1)


# Other architectures


@pytest.mark.slow
def test_server_model_is_exported_without_the_program(tmp_path, capsys):
    from conftest import golden_model

    golden = golden_model("server_ch").config.to_dict()
    options = {
        key: golden[key] for key in ("neck", "kernel_size", "convolutions_per_block", "height_strides", "stem_bias")
    }
    save_model(tmp_path / "server", SVTRv2ServerImageProcessor(max_ratio=10), **options)
    assert main(["export", str(tmp_path / "server")]) == 0
    printed = capsys.readouterr().out
    assert "onnx/read.py was not written: it does not support images of SVTRv2ServerImageProcessor" in printed
    folder = tmp_path / "server"
    paths = [draw("Hello"), draw("one line of words")]
    expected = reader(SVTRv2ForCTC.from_pretrained(folder), folder)(paths)
    assert [result["text"] for [result] in reader(load(folder), folder)(paths)] == [
        result["text"] for [result] in expected
    ]
