"""The bundled checkpoint."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCTC, AutoProcessor, pipeline

import svtrv2_hf
from svtrv2_hf.checkpoint import checkpoint_folder
from svtrv2_hf.cli import main
from svtrv2_hf.demo.models import EXAMPLES
from svtrv2_hf.evaluation.metrics import compare


FOLDER = Path(svtrv2_hf.default_checkpoint())
LABELS = dict(line.split("\t") for line in (EXAMPLES / "labels.tsv").read_text(encoding="utf-8").splitlines())


def test_folder_is_small_and_contains_no_code():
    files = list(FOLDER.iterdir())
    assert sum(path.stat().st_size for path in files) < 12e6
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    for path in FOLDER.glob("*.json"):
        assert "auto_map" not in path.read_text(encoding="utf-8")


def test_weights_are_loaded_as_float32():
    model = AutoModelForCTC.from_pretrained(FOLDER)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.config.use_guidance
    assert AutoProcessor.from_pretrained(FOLDER).image_processor.max_ratio == 20


def test_charset_is_printable_ascii_with_the_space():
    tokenizer = AutoProcessor.from_pretrained(FOLDER).tokenizer
    assert set(svtrv2_hf.charsets.charset_of(tokenizer)) == {chr(code) for code in range(32, 127)}


def test_most_example_images_are_recognized_exactly():
    read = pipeline("text-recognition", svtrv2_hf.default_checkpoint())
    texts = [result["text"] for [result] in read([str(EXAMPLES / name) for name in LABELS])]
    score = compare(texts, LABELS.values())
    assert score.one_minus_ned > 0.8
    assert sum(text == label for text, label in zip(texts, LABELS.values(), strict=True)) >= len(LABELS) / 2
    assert any(" " in text and text == label for text, label in zip(texts, LABELS.values(), strict=True))


def test_command_uses_it_by_default(capsys):
    assert main(["read", str(EXAMPLES / "0.png"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"].endswith("0.png") and result["text"]
    assert checkpoint_folder("default") == str(FOLDER)


def test_folder_named_default_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "default").symlink_to(FOLDER)
    monkeypatch.chdir(tmp_path)
    assert checkpoint_folder("default") == str(FOLDER)
    assert Path(checkpoint_folder("./default")).resolve() == (tmp_path / "default").resolve()
    assert checkpoint_folder("./default") != str(FOLDER)


def test_saving_it_again_adds_the_code(tmp_path):
    svtrv2_hf.SVTRv2ForCTC.from_pretrained(FOLDER).save_pretrained(tmp_path)
    svtrv2_hf.SVTRv2Processor.from_pretrained(FOLDER).save_pretrained(tmp_path)
    assert (tmp_path / "modeling_svtrv2.py").is_file()
    assert "auto_map" in json.loads((tmp_path / "config.json").read_text())
