"""Conversion of OpenOCR checkpoints."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw, golden, golden_image, golden_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCTC, AutoProcessor, pipeline

from svtrv2_hf import SVTRv2ServerImageProcessor, conversion, read_charset
from svtrv2_hf.cli import main
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.conversion import convert, convert_state_dict, infer_config, load_checkpoint


@pytest.fixture(scope="module")
def tiny():
    return golden_state_dict("tiny_rctc")


@pytest.fixture(scope="module")
def guided():
    return golden_state_dict("tiny_sgm")


def checkpoint(path, state_dict, **others):
    """Write a file as the trainer of OpenOCR does."""
    metrics = {"acc": np.float64(0.9), "fps": np.float32(100.0)}
    torch.save({"state_dict": state_dict, "epoch": 20, "metrics": metrics, "config": {"Global": {}}, **others}, path)
    return path


@pytest.mark.parametrize(("name", "size"), [("tiny_rctc", "tiny"), ("tiny_sgm", "tiny"), ("base_rctc", "base")])
def test_configuration_is_inferred_from_the_tensors(name, size):
    config = infer_config(golden_state_dict(name))
    for field, value in PRESETS[size].items():
        assert getattr(config, field) == value, field
    assert config.vocab_size == 95
    assert config.use_guidance == (name == "tiny_sgm")
    assert config.guidance_context_length == 5
    assert config.mlp_ratio == 4


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_converted_model_matches_the_golden_values(tiny, tmp_path, suffix, capsys):
    source = tmp_path / f"best{suffix}"
    if suffix == ".pth":
        checkpoint(source, tiny)
    else:
        save_file(tiny, source)
    folder = tmp_path / "converted"
    assert main(["convert", str(source), "--output", str(folder)]) == 0
    assert "5.128255 M parameters" in capsys.readouterr().out
    written = {path.name for path in folder.iterdir()}
    saved = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert written == saved | {path.name for path in Path(conversion.__file__).parent.glob("*_svtrv2.py")}
    model = AutoModelForCTC.from_pretrained(folder)
    with torch.no_grad():
        logits = model(golden_image(32, 128, 2, "x")).logits
    np.testing.assert_allclose(logits, golden("tiny_rctc")["32x128/logits"], rtol=0, atol=1e-4)
    assert (
        AutoProcessor.from_pretrained(folder).image_processor.max_ratio == 4
    )  # as in the first stage of the training


def test_guidance_branch_is_converted(guided, tmp_path):
    model, _ = convert(checkpoint(tmp_path / "best.pth", guided), tmp_path / "converted")
    assert model.guidance is not None
    assert AutoProcessor.from_pretrained(tmp_path / "converted").image_processor.max_ratio == 12


def test_all_values_of_the_checkpoint_are_converted(guided):
    converted = convert_state_dict(guided, infer_config(guided))
    assert sum(tensor.numel() for tensor in converted.values()) == sum(tensor.numel() for tensor in guided.values())
    split = {"decoder.ctc_decoder.fc_kv.weight", "decoder.ctc_decoder.fc_kv.bias"}
    sums = sorted(
        float(tensor.double().sum())
        for name, tensor in converted.items()
        if ".key." not in name and ".value." not in name
    )
    assert sums == sorted(float(tensor.double().sum()) for name, tensor in guided.items() if name not in split)


def test_charset_and_max_ratio_are_saved(tiny, tmp_path):
    state_dict = dict(tiny)
    for name in ("decoder.fc.weight", "decoder.fc.bias"):
        state_dict[name] = torch.cat([tiny[name], tiny[name][-1:]])
    source = checkpoint(tmp_path / "best.pth", state_dict)
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join([chr(code) for code in range(0x4E00, 0x4E00 + 94)] + [" "]) + "\n", encoding="utf-8")
    words = ["convert", str(source), "--output", str(tmp_path / "out")]
    assert main([*words, "--charset", str(charset), "--max-ratio", "8"]) == 0
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.image_processor.max_ratio == 8
    assert processor.encode(["一 "]) == [[1, 95]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("decoder.fc.bias"), r"missing: head\.bias \(95,\)"),
        (lambda s: s.update({"decoder.neck.weight": torch.zeros(3)}), r"unexpected: decoder\.neck\.weight \(3,\)"),
        (
            lambda s: s.update({"encoder.stages.1.blocks.9.norm1.weight": torch.zeros(128)}),
            r"missing: svtrv2\.stages\.1\.blocks\.6",
        ),
        (
            lambda s: s.update({"encoder.stages.2.blocks.1.mlp.fc2.bias": torch.zeros(7)}),
            r"wrong shape: svtrv2\.stages\.2\.blocks\.1\.mlp\.fc2\.bias is \(7,\), not \(256,\)",
        ),
        (lambda s: s.update({"fc.weight": s["decoder.fc.weight"]}), r"unexpected: fc\.weight \(95, 256\)"),
        (
            lambda s: s.update({"decoder.ctc_decoder.fc.bias": s["decoder.fc.bias"]}),
            r"unexpected: decoder\..*fc\.bias",
        ),
        (lambda s: s.pop("decoder.fc.weight"), r"not an SVTRv2 checkpoint.*has no tensor ctc\.fc\.weight"),
        (lambda s: s.clear() or s.update({"conv.weight": torch.zeros(3)}), r"Its names begin with conv\.weight"),
    ],
)
def test_unfit_tensors_raise(tiny, tmp_path, change, message, capsys):
    state_dict = dict(tiny)
    change(state_dict)
    source = checkpoint(tmp_path / "best.pth", state_dict)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        convert(source, tmp_path / "out")
    assert main(["convert", str(source), "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("svtrv2: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("characters", "given"), [(93, True), (95, True), (36, False)])
def test_unfit_charset_raises(tiny, tmp_path, characters, given):
    state_dict = dict(tiny)
    if not given:
        state_dict["decoder.fc.weight"] = torch.zeros(characters + 1, 256)
        state_dict["decoder.fc.bias"] = torch.zeros(characters + 1)
    charset = [chr(0x100 + i) for i in range(characters)] if given else None
    with pytest.raises(
        ValueError,
        match=r"harset.* has 9\d characters, but the head of .*best.pth scores \d+ and the blank. Pass",
    ):
        convert(checkpoint(tmp_path / "best.pth", state_dict), tmp_path / "out", charset)


@pytest.fixture
def server(tmp_path):
    """A checkpoint of the 'server' model, and its charset without the space, as upstream."""
    source = checkpoint(tmp_path / "openocr_svtrv2_ch.pth", golden_state_dict("server_ch"))
    charset = tmp_path / "keys.txt"
    charset.write_text("".join(f"{chr(code)}\n" for code in range(0x4E00, 0x4E00 + 93)), encoding="utf-8")
    return source, charset


def test_server_model_matches_the_golden_values(server, tmp_path, capsys):
    source, charset = server
    folder = tmp_path / "converted"
    assert main(["convert", str(source), "--output", str(folder), "--charset", str(charset)]) == 0
    model, processor = AutoModelForCTC.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert (model.config.neck, model.config.kernel_size, model.config.convolutions_per_block) == ("mixing", 5, 1)
    assert type(processor.image_processor) is SVTRv2ServerImageProcessor
    assert processor.image_processor.fixed_height == 48
    assert processor.image_processor.pixels_per_frame == model.config.pixels_per_frame == 8
    assert processor.encode([" "]) == [[94]], "the space is appended"
    with torch.no_grad():
        probabilities = model(golden_image(48, 320, 2, "x")).logits.softmax(-1)
    np.testing.assert_allclose(probabilities, golden("server_ch")["48x320/probabilities"], rtol=0, atol=1e-4)


def test_server_model_does_not_depend_on_the_batch(server, tmp_path):
    source, charset = server
    convert(source, tmp_path / "converted", read_charset(charset))
    read = pipeline("text-recognition", str(tmp_path / "converted"))
    images = [draw(text) for text in ("ab", "a longer line of words that is wide", "Hello")]
    alone = [read(image, return_characters=True)[0] for image in images]
    together = [result for [result] in read(images, batch_size=3, return_characters=True)]
    for image, single, batched in zip(images, alone, together, strict=True):
        assert single["text"] == batched["text"] != ""
        assert single["score"] == pytest.approx(batched["score"], abs=1e-4)
        assert all(0 <= part["start"] <= part["end"] <= image.width for part in single["characters"])


def test_repsvtr_raises(tmp_path):
    source = checkpoint(tmp_path / "repsvtr.pth", {"encoder.features.0.token_mixer.0.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match="RepSVTR"):
        convert(source, tmp_path / "out")


def test_checkpoint_and_charset_are_downloaded(server, tmp_path, monkeypatch, capsys):
    downloads = []

    def fetch(repository, file):
        downloads.append((repository, file))
        return str(tmp_path / file)

    monkeypatch.setattr(conversion, "hf_hub_download", fetch)
    words = ["convert", "hub:topdu/OpenOCR/openocr_svtrv2_ch.pth", "--output", str(tmp_path / "out")]
    assert main([*words, "--charset", "hub:topdu/OpenOCR/keys.txt"]) == 0
    assert downloads == [("topdu/OpenOCR", "keys.txt"), ("topdu/OpenOCR", "openocr_svtrv2_ch.pth")]
    assert main(["convert", "hub:topdu/OpenOCR", "--output", str(tmp_path / "out")]) == 1
    assert "write hub:OWNER/REPOSITORY/FILE" in capsys.readouterr().err


def test_failed_download_raises(tmp_path, capsys):
    assert main(["convert", "hub:topdu/OpenOCR/openocr_svtrv2_ch.pth", "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "Cannot download openocr_svtrv2_ch.pth of topdu/OpenOCR" in error and "pass its path" in error


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def test_code_in_a_checkpoint_is_not_run(tiny, tmp_path):
    trap = tmp_path / "trap"
    source = checkpoint(tmp_path / "best.pth", tiny, config=Malicious(str(trap)))
    with pytest.raises(ValueError, match=r"contains Python objects that could run code"):
        load_checkpoint(source)
    assert not trap.exists()
    torch.load(source, weights_only=False)
    assert trap.exists(), "the trap works"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"not a checkpoint", "not a PyTorch checkpoint"),
        (pickle.dumps([1, 2]), "not a PyTorch checkpoint|could run code|not contain a state dict"),
    ],
)
def test_other_files_raise(tmp_path, content, message):
    source = tmp_path / "best.pth"
    source.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(source)
    torch.save({"state_dict": {}}, source)
    with pytest.raises(ValueError, match="does not contain a state dict of tensors"):
        load_checkpoint(source)
    with pytest.raises(ValueError, match="Checkpoint not found"):
        load_checkpoint(tmp_path / "none.pth")


def test_numbers_of_numpy_1_are_loaded(tiny, tmp_path):
    """Files contain the name that the function which creates them had in numpy 1."""
    source = checkpoint(tmp_path / "best.pth", tiny)
    with zipfile.ZipFile(source) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    [pickled] = [name for name in parts if name.endswith("data.pkl")]
    assert b"cnumpy._core.multiarray\n" in parts[pickled]
    parts[pickled] = parts[pickled].replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    with zipfile.ZipFile(source, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    assert load_checkpoint(source).keys() == tiny.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_prefixes_of_wrappers_are_removed(tiny, tmp_path, caplog, prefix, suffix):
    wrapped = {prefix + name: tensor for name, tensor in tiny.items()}
    if suffix == ".pth":
        source = checkpoint(tmp_path / "best.pth", wrapped)
    else:
        source = tmp_path / "best.safetensors"
        save_file(wrapped, source)
    assert load_checkpoint(source).keys() == tiny.keys()
    assert "prefix of a wrapper" in caplog.text
    wrapped["decoder.fc.bias"] = tiny["decoder.fc.bias"]
    with pytest.raises(ValueError, match="with and without the prefix"):
        load_checkpoint(checkpoint(tmp_path / "both.pth", wrapped))
