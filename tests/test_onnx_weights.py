"""Conversion of ONNX exports of OpenOCR models."""

import os
import sys

import numpy as np
import pytest
import torch
from conftest import golden, golden_image, golden_state_dict

from svtrv2_hf.cli import main
from svtrv2_hf.conversion import convert, convert_state_dict, infer_config, load_checkpoint
from svtrv2_hf.modeling_svtrv2 import SVTRv2ForCTC


onnx = pytest.importorskip("onnx")

LISTS = ("stages", "blocks", "svtr_block")  # not modules that are called, so that paths do not contain them


def fold_batch_norms(state_dict):
    """Fold batch norms into the convolutions before them; returns the weights and the names of the convolutions."""
    weights = {name: value for name, value in state_dict.items() if not name.endswith("num_batches_tracked")}
    norms = [name.removesuffix("running_mean") for name in weights if name.endswith("running_mean")]
    for norm in norms:
        scale, shift, mean, variance = (
            weights.pop(norm + part).double() for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / (variance + 1e-5).sqrt()
        convolution = norm.replace("norm.", "conv.")
        bias = weights.get(f"{convolution}bias", torch.zeros(())).double()
        weights[f"{convolution}weight"] = (weights[f"{convolution}weight"] * scale[:, None, None, None]).float()
        weights[f"{convolution}bias"] = ((bias - mean) * scale + shift).float()
    return weights, {norm.replace("norm.", "conv") for norm in norms}


def node_name(module, operator):
    """Name a node as the older exporter: a called list, and then its name once more with the index."""
    parts = []
    for part in module.split("."):
        if part.isdecimal():
            name = parts.pop()
            parts += [f"{name}.{part}"] if name in LISTS else [name, f"{name}.{part}"]
        else:
            parts.append(part)
    return "/".join(["", *parts, operator])


def export(state_dict, path, newer=False, change=None):
    """Write a graph of the nodes that have weights, with the names of an exporter of torch."""
    weights, convolutions = fold_batch_norms(state_dict)
    tensors, nodes = {"1781": torch.tensor([3, 4, 5]), "scale": torch.tensor(0.5)}, []
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        if module in convolutions and kind == "bias":
            continue  # follows its weight
        number, operator, inputs = len(nodes), "Add", {name: value}
        if module in convolutions:
            names = (name, f"{name}_bias") if newer else (f"onnx::Conv_{number}", f"onnx::Conv_{number}_bias")
            operator, inputs = "Conv", dict(zip(names, (value, weights[f"{module}.bias"]), strict=True))
        elif value.ndim == 2:
            operator, inputs = "MatMul", {f"val_{number}" if newer else f"onnx::MatMul_{number}": value.T}
        elif value.ndim == 4:
            operator = "Conv"
        tensors |= inputs
        title = f"node_{number}" if newer else node_name(module, operator)
        node = onnx.helper.make_node(operator, [f"x{number}", *inputs], [f"x{number + 1}"], name=title)
        if newer:
            parts = module.split(".")
            scopes = ["", *(".".join(parts[: end + 1]) for end in range(len(parts))), "operator"]
            onnx.helper.set_model_props(node, {"pkg.torch.onnx.name_scopes": str(scopes)})
        nodes.append(node)
    if change is not None:
        change(tensors, nodes)
    initializers = [onnx.numpy_helper.from_array(value.contiguous().numpy(), name) for name, value in tensors.items()]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [], initializers)), path)
    return path


def load(path):
    """Create the converted model without saving it."""
    weights = load_checkpoint(path)
    config = infer_config(weights)
    model = SVTRv2ForCTC(config).eval()
    model.load_state_dict(convert_state_dict(weights, config))
    return model


@pytest.mark.parametrize("newer", [False, True])
def test_converted_model_matches_the_golden_values(tmp_path, capsys, newer):
    source = export(golden_state_dict("tiny_rctc"), tmp_path / "model.onnx", newer)
    assert main(["convert", str(source), "--output", str(tmp_path / "out")]) == 0
    assert "5.128255 M parameters" in capsys.readouterr().out
    model = SVTRv2ForCTC.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        logits = model(golden_image(32, 128, 2, "x")).logits
    np.testing.assert_allclose(logits, golden("tiny_rctc")["32x128/logits"], rtol=0, atol=1e-4)


def test_server_model_matches_the_golden_values(tmp_path):
    """It has batch norms in its neck, too."""
    model = load(export(golden_state_dict("server_ch"), tmp_path / "model.onnx"))
    with torch.no_grad():
        probabilities = model(golden_image(48, 320, 2, "x")).logits.softmax(-1)
    np.testing.assert_allclose(probabilities, golden("server_ch")["48x320/probabilities"], rtol=0, atol=1e-4)


def test_folded_batch_norm_only_adds_the_bias(tmp_path):
    """Exactly: its scale is one in float32."""
    model = load(export(golden_state_dict("tiny_rctc"), tmp_path / "model.onnx"))
    assert not model.config.stem_bias
    norm, inputs = model.svtrv2.embeddings.layers[0].norm, 100 * torch.randn(2, 32, 8, 8)
    assert torch.equal(norm(inputs), inputs + norm.bias[:, None, None])


def remove(name):
    def change(tensors, nodes):
        tensors.pop(name)

    return change


def rename_module(tensors, nodes):
    node = next(node for node in nodes if node.name == "/decoder/fc/MatMul")
    node.name = "/decoder/other/MatMul"


def use_twice(tensors, nodes):
    first = next(node for node in nodes if node.op_type == "MatMul")
    tensors["onnx::MatMul_copy"] = tensors[first.input[1]]
    nodes.append(onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_copy"], ["y"], name=first.name))


def add_constant(tensors, nodes):
    value = onnx.numpy_helper.from_array(np.ones((2, 3), np.float32))
    nodes.append(onnx.helper.make_node("Constant", [], ["extra"], value=value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("decoder.fc.bias"), r"missing: head\.bias \(95,\)"),
        (lambda tensors, nodes: tensors.update(unused=torch.zeros(7)), r"unexpected: unused \(7,\)"),
        (add_constant, r"unexpected: extra \(2, 3\)"),
        (rename_module, r"not an SVTRv2 checkpoint.*has no tensor ctc\.fc\.weight"),
        (use_twice, r"contains encoder\.stages\.0.*mlp\.fc1\.weight twice"),
        (lambda tensors, nodes: tensors.clear(), r"does not contain a state dict of tensors"),
        (
            lambda tensors, nodes: tensors.update({"decoder.fc.bias": torch.zeros(95, dtype=torch.int8)}),
            r"stored as integers \(decoder\.fc\.bias\): the model is quantized",
        ),
        (
            lambda tensors, nodes: tensors.update({"decoder.fc.bias": torch.full((95,), torch.nan)}),
            r"NaN or infinite in 1 of",
        ),
    ],
)
def test_unfit_graphs_raise(tmp_path, change, message):
    source = export(golden_state_dict("tiny_rctc"), tmp_path / "model.onnx", change=change)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_package_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"\x08\x07\x12\x04")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["convert", str(tmp_path / "model.onnx"), "--output", str(tmp_path / "out")]) == 1
    assert "pip install 'svtrv2-hf[onnx]'" in capsys.readouterr().err


@pytest.mark.pretrained
@pytest.mark.skipif("SVTRV2_PRETRAINED_ONNX" not in os.environ, reason="needs the path of the file")
def test_published_export_matches_its_runtime():
    """The model of the package azcrawlerpy-recaptcha-text, whose graph ends with a softmax."""
    onnxruntime = pytest.importorskip("onnxruntime")
    path = os.environ["SVTRV2_PRETRAINED_ONNX"]
    model = load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for height, width in ((64, 64), (48, 96), (40, 112), (32, 128), (32, 384)):
        images = torch.rand(2, 3, height, width) * 2 - 1
        [expected] = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            probabilities = model(images).logits.softmax(-1)
        np.testing.assert_allclose(probabilities, expected, rtol=0, atol=4e-6)
