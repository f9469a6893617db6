"""Damaged and invalid files: every command prints one line that names the file, without a traceback."""

import io
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import golden_state_dict, make_folder
from safetensors.torch import load_file, save_file

from svtrv2_hf.cli import main


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4000000\n"
PAGE = b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>"


class CodeOnLoad:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a checkpoint ran')",))


def pickled(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("best.pth", b"x")
    return buffer.getvalue()


def changed(**values):
    return lambda content: json.dumps({**json.loads(content), **values}).encode()


def weights_after(change):
    """Return a function that applies `change` to the weights in a folder."""

    def write(folder):
        file = folder / "model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file, metadata={"format": "pt"})

    return write


def as_pickle(content):
    def write(folder):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return write


def set_to(name, value):
    return weights_after(lambda weights: weights[name].flatten()[:1].fill_(value))


VARIANCE = "svtrv2.embeddings.layers.0.norm.running_var"
# Damage to the folder of a model: a file with its content or a change of it, or a function; and a part of the error message.
MODELS = {
    "weights: pointer": ("model.safetensors", POINTER, "git lfs pull"),
    "weights: page": ("model.safetensors", PAGE, "HTML page"),
    "weights: empty": ("model.safetensors", b"", "empty"),
    "weights: cut": ("model.safetensors", lambda content: content[:-100], "cut off"),
    "weights: header": ("model.safetensors", lambda content: content[:50], "cut off"),
    "weights: noise": ("model.safetensors", b"\x07" * 900, "cut off"),
    "weights: pickle": ("model.safetensors", pickled({}), "PyTorch checkpoint"),
    "weights: deleted": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "weights: missing": (weights_after(lambda weights: weights.pop("head.weight")), "1 missing (head.weight)"),
    "weights: unexpected": (weights_after(lambda weights: weights.update(x=torch.ones(1))), "1 unexpected (x)"),
    "weights: shape": (
        weights_after(lambda weights: weights.update({"head.bias": torch.ones(3)})),
        "of wrong shape (head.bias",
    ),
    "weights: nan": (set_to("head.bias", float("nan")), "NaN or infinite in 1 of 86 tensors (head.bias)"),
    "weights: infinite": (set_to("head.weight", float("inf")), "head.weight"),
    "weights: variance": (set_to(VARIANCE, -1), f"negative variances ({VARIANCE})"),
    "weights: nan variance": (set_to(VARIANCE, float("nan")), VARIANCE),
    "bin: pickle": (as_pickle(pickle.dumps({"a": CodeOnLoad()})), "pytorch_model.bin"),
    "bin: code": (as_pickle(pickled({"a": CodeOnLoad()})), "could run code"),
    "bin: page": (as_pickle(PAGE), "HTML page"),
    "bin: empty": (as_pickle(b""), "empty"),
    "index: list": ("model.safetensors.index.json", b"[]", "must be a JSON object"),
    "config: empty": ("config.json", b"", "config.json is not JSON"),
    "config: list": ("config.json", b"[]", "config.json must be a JSON object, not list"),
    "config: binary": ("config.json", b"\xff\xfe\x00", "config.json is not JSON"),
    "config: pointer": ("config.json", POINTER, "config.json is not JSON"),
    "config: type": ("config.json", changed(model_type="bert"), "model_type='bert'"),
    "config: sizes": ("config.json", changed(hidden_sizes="x"), "config.json"),
    "config: activation": ("config.json", changed(hidden_act="nope"), "nope"),
    "config: dtype": ("config.json", changed(dtype="int99"), "int99"),
    "config: classes": ("config.json", changed(vocab_size=7), "vocab_size=7"),
    "processor: list": ("processor_config.json", b"[]", "processor_config.json must be a JSON object"),
    "processor: cut": ("processor_config.json", b"{", "processor_config.json is not JSON"),
    "processor: part": ("processor_config.json", changed(image_processor=3), "processor_config.json"),
    "tokenizer: empty": ("tokenizer.json", b"", "tokenizer.json is not JSON"),
    "tokenizer: nothing": ("tokenizer.json", b"{}", "tokenizer.json"),
    "tokenizer: list": ("tokenizer.json", b"[]", "tokenizer.json must be a JSON object"),
    "tokenizer: settings": ("tokenizer_config.json", b"[]", "tokenizer_config.json must be a JSON object"),
    "tokenizer: no settings": ("tokenizer_config.json", b"{}", "tokenizer.json"),
}


# `svtrv2 audit` checks the format of the weights, but does not load the model.
NOT_READ_BY_AUDIT = {case for case in MODELS if case.startswith("config: ")} | {
    f"weights: {damage}"
    for damage in ("deleted", "missing", "unexpected", "shape", "nan", "infinite", "variance", "nan variance", "noise")
}


def damage(folder, case):
    *action, message = case
    if len(action) == 1:
        action[0](folder)
    else:
        name, content = action
        file = folder / name
        file.write_bytes(content(file.read_bytes()) if callable(content) else content)
    return message


@pytest.fixture
def commands(saved, tmp_path):
    """Arguments of each command that takes a model."""
    data = make_folder(tmp_path / "sets" / "mine", ["one", "two"])
    common = ("--train_data", data, "--max_steps", 1, "--use_cpu", True, "--output_dir", tmp_path / "out")
    return {
        "read": ("read", data / "0.png", "--model", saved),
        "evaluate": ("evaluate", "--data", tmp_path / "sets", "--model", saved),
        "benchmark": ("benchmark", "--model", saved, "--rounds", 1),
        "audit": ("audit", data, "--model", saved),
        "train": ("train", "--model", saved, *common),
        "publish": ("publish", saved, "--repo", "me/x", "--license", "apache-2.0", "--dry-run"),
    }


def error_of(capsys, words):
    """Run a command that must fail, and return its error message."""
    assert main([str(word) for word in words]) == 1, words[0]
    error = capsys.readouterr().err
    assert "Traceback" not in error and "weights_only" not in error, error
    assert error.count("svtrv2: ") == 1, error
    return error[error.index("svtrv2: ") :]


@pytest.mark.parametrize("case", MODELS)
def test_damaged_model_is_reported_by_every_command(saved, commands, capsys, case):
    message = damage(saved, MODELS[case])
    for command, arguments in commands.items():
        if command == "audit" and case in NOT_READ_BY_AUDIT:
            continue
        error = error_of(capsys, arguments)
        assert message in error and str(saved) in error, (command, error)


def test_demo_does_not_start_with_a_damaged_model(saved):
    pytest.importorskip("gradio")
    (saved / "model.safetensors").write_bytes(POINTER)
    assert main(["demo", "--model", str(saved)]) == 1


CHECKPOINTS = {
    "pointer.pth": (POINTER, "git-lfs pointer"),
    "page.pth": (b"\n" + PAGE.lower(), "HTML page"),
    "empty.pth": (b"", "empty"),
    "noise.pth": (b"\x07" * 900, "not a PyTorch checkpoint"),
    "cut.pth": (pickled({"x": torch.ones(99)})[:-300], "cut off"),
    "files.pth": (zipped(), "zip archive"),
    "old.pth": (pickle.dumps({"state_dict": CodeOnLoad()}), "could run code"),
    "code.pth": (pickled({"state_dict": CodeOnLoad()}), "could run code"),
    "list.pth": (pickled([1]), "state dict"),
    "values.pth": (pickled({"state_dict": {"a": 1}}), "a are other values"),
    "numbers.pth": (pickled({"state_dict": {1: torch.ones(1)}}), "1 are other values"),
    "number.pth": (pickled({"state_dict": 3}), "state dict"),
    "text.pth": (b"hello", "not a PyTorch checkpoint"),
    "archive.tar.gz": (b"\x1f\x8b\x08" + b"0" * 90, "gzip archive"),
    "pointer.safetensors": (POINTER, "git-lfs pointer"),
    "page.safetensors": (PAGE, "HTML page"),
    "cut.safetensors": (b"\x90\x00\x00\x00\x00\x00\x00\x00{", "cut off"),
    "torch.safetensors": (pickled({}), "rename it to .pth"),
    "paddle.pdparams": (pickle.dumps({"conv.weight": np.zeros(3)}, protocol=2), "PaddlePaddle"),
    "graph.onnx": (b"\x08\x07\x12\x04", "ONNX"),
    "weights.pth": (b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a": 1}        ', "rename it to .safetensors"),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_file_that_is_not_a_checkpoint_is_described(tmp_path, capsys, name):
    content, message = CHECKPOINTS[name]
    (tmp_path / name).write_bytes(content)
    error = error_of(capsys, ("convert", tmp_path / name, "--output", tmp_path / "out"))
    assert message in error and name in error and not (tmp_path / "out").exists()


def test_folder_is_not_a_checkpoint(tmp_path, capsys):
    assert "a folder" in error_of(capsys, ("convert", tmp_path, "--output", tmp_path / "out"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_converted(tmp_path, capsys, value):
    weights = golden_state_dict("tiny_rctc")
    weights["decoder.fc.bias"][0] = value
    torch.save(weights, tmp_path / "best.pth")
    error = error_of(capsys, ("convert", tmp_path / "best.pth", "--output", tmp_path / "out"))
    assert "fc.bias" in error and "best.pth" in error


def test_overflow_in_half_precision_is_an_error(saved, capsys):
    set_to("head.bias", 1e6)(saved)
    error = error_of(capsys, ("benchmark", "--model", saved, "--dtype", "float16", "--rounds", 1))
    assert "float16" in error and "head.bias" in error


BINARY = b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 20


def test_other_invalid_files_and_outputs_are_named(saved, commands, tmp_path, capsys):
    for name in ("x.yaml", "charset.txt", "labels.json", "x.safetensors", "file"):
        (tmp_path / name).write_bytes(BINARY)
    (tmp_path / "list.yaml").write_text("[1")
    data, file = tmp_path / "sets" / "mine", tmp_path / "file"
    charset = ("--charset", tmp_path / "charset.txt")
    torch.save({"a": torch.ones(1)}, tmp_path / "best.pth")
    torch.save(golden_state_dict("tiny_rctc"), tmp_path / "good.pth")
    for name, words in {
        "x.yaml": ("train", tmp_path / "x.yaml"),
        "list.yaml": ("audit", tmp_path / "list.yaml"),
        "charset.txt": ("audit", data, *charset),
        "charset.txt ": ("train", "--model", "nano", "--train_data", data, "--output_dir", tmp_path / "o", *charset),
        "charset.txt  ": ("synthesize", tmp_path / "o.png", *charset),
        "charset.txt   ": ("atlas", tmp_path / "o.safetensors", *charset),
        "charset.txt    ": ("convert", tmp_path / "best.pth", "--output", tmp_path / "o", *charset),
        "x.safetensors": ("synthesize", tmp_path / "o.png", "--atlas", tmp_path / "x.safetensors"),
        "labels.json": ("publish", saved, "--repo", "me/x", "--results", tmp_path / "labels.json", "--dry-run"),
        "file": ("audit", data, "--output", file),
        "file ": ("evaluate", "--data", tmp_path / "sets", "--model", saved, "--output", file / "x.json"),
        "file  ": ("evaluate", "--data", tmp_path / "sets", "--model", saved, "--errors", file),
        "file   ": ("evaluate", "--data", file, "--model", saved),
        "file    ": ("benchmark", "--model", saved, "--output", file / "x.json"),
        "file     ": ("synthesize", file / "x.png", "--images", 1),
        "file      ": (*commands["train"][:-1], file),
        "file       ": ("publish", file, "--repo", "me/x"),
        "file        ": ("convert", tmp_path / "good.pth", "--output", file),
        "file         ": ("read", data / "0.png", "--model", file),
        "file          ": ("train", "--model", saved, "--train_data", file, "--output_dir", tmp_path / "o"),
        "file           ": ("audit", file),
    }.items():
        assert name.strip() in error_of(capsys, words), words


def test_unexpected_error_is_one_line(saved, commands, capsys, monkeypatch):
    def fail(*words, **options):
        raise KeyError("added_tokens")

    monkeypatch.setattr("svtrv2_hf.runtime.model.load_for_backend", fail)
    assert "KeyError: 'added_tokens' (SVTRV2_TRACEBACK=1" in error_of(capsys, commands["read"])
    monkeypatch.setenv("SVTRV2_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main([str(word) for word in commands["read"]])


def test_output_stream_without_an_encoding(saved, commands, monkeypatch):
    class Plain(io.StringIO):
        encoding = None

    monkeypatch.setattr(sys, "stdout", Plain())
    assert main([str(word) for word in commands["read"]]) == 0
    assert len(sys.stdout.getvalue().splitlines()) == 1
