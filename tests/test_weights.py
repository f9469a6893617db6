"""Incomplete, unfit or invalid weights raise an error that lists them, in all ways of loading."""

import json
import logging

import pytest
import torch
from conftest import draw
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCTC, pipeline

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2Model
from svtrv2_hf.cli import main
from svtrv2_hf.modeling_svtrv2 import SVTRv2WeightsError


HEAD = "head.weight"


def rewrite(folder, change):
    """Apply a function to the weights in a folder."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without_head(weights):
    return {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}


def half(weights):
    return dict(list(weights.items())[::2])


def renamed(weights):
    return {name.replace("head.", "fc."): tensor for name, tensor in weights.items()}


def with_more(weights):
    return {**weights, "head.scale": torch.ones(3), "neck.norm.weight": torch.ones(3)}


def of_another_charset(weights):
    return {**weights, HEAD: torch.zeros(7, weights[HEAD].shape[1]), "head.bias": torch.zeros(7)}


BROKEN = {
    without_head: "2 missing (head.bias, head.weight)",
    half: "missing (",
    renamed: "2 missing (head.bias, head.weight); 2 unexpected (fc.bias, fc.weight)",
    with_more: "2 unexpected (head.scale, neck.norm.weight)",
    of_another_charset: "2 of wrong shape (head.bias: (7,) instead of (49,), head.weight: (7, 32) instead of (49, 32))",
}


def errors(folder):
    """Yield the error of each way to load the folder."""
    ways = (
        lambda: SVTRv2ForCTC.from_pretrained(folder),
        lambda: AutoModelForCTC.from_pretrained(folder),
        lambda: AutoModelForCTC.from_pretrained(folder, trust_remote_code=True),
        lambda: pipeline("text-recognition", str(folder)),
    )
    for way in ways:
        with pytest.raises(ValueError) as caught:
            way()
        yield str(caught.value)


@pytest.mark.parametrize(("change", "message"), BROKEN.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_unfit_weights_raise(saved, change, message):
    rewrite(saved, change)
    for error in errors(saved):
        assert message in error and str(saved) in error


def test_incomplete_shard_raises(model, saved):
    (saved / "model.safetensors").unlink()
    model.save_pretrained(saved, max_shard_size="100KB")
    shard = sorted(saved.glob("model-*.safetensors"))[0]
    kept = load_file(shard)
    lost = kept.popitem()[0]
    save_file(kept, shard, metadata={"format": "pt"})
    assert all(lost in error for error in errors(saved))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("kind", [SVTRv2ForCTC, SVTRv2Model, AutoModelForCTC])
def test_prefixes_of_wrappers_are_removed(saved, tmp_path, caplog, prefix, kind):
    expected = kind.from_pretrained(saved).state_dict()
    rewrite(saved, lambda weights: {prefix + name: tensor for name, tensor in weights.items()})
    with caplog.at_level(logging.WARNING):
        model = kind.from_pretrained(saved)
    assert "prefix of a wrapper" in caplog.text
    torch.testing.assert_close(model.state_dict(), expected, rtol=0, atol=0)
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == expected.keys()


def test_tensor_with_and_without_a_prefix_raises(saved):
    rewrite(saved, lambda weights: {**weights, f"module.{HEAD}": torch.zeros_like(weights[HEAD])})
    for error in errors(saved):
        assert f"1 unexpected (module.{HEAD})" in error


def test_guidance_and_head_can_be_dropped_or_added(config, saved, tmp_path):
    config.use_guidance = True
    SVTRv2ForCTC(config).save_pretrained(tmp_path / "guided")
    assert SVTRv2ForCTC.from_pretrained(tmp_path / "guided", use_guidance=False).guidance is None
    assert AutoModelForCTC.from_pretrained(tmp_path / "guided", use_guidance=False).guidance is None
    assert SVTRv2ForCTC.from_pretrained(saved, use_guidance=True).guidance is not None
    assert AutoModelForCTC.from_pretrained(saved, use_guidance=True).guidance is not None
    for kind in (SVTRv2Model, AutoModel):
        backbone = kind.from_pretrained(tmp_path / "guided")
        expected = SVTRv2ForCTC.from_pretrained(tmp_path / "guided").svtrv2.state_dict()
        torch.testing.assert_close(backbone.state_dict(), expected, rtol=0, atol=0)
    model = SVTRv2ForCTC.from_pretrained(saved, vocab_size=7, ignore_mismatched_sizes=True)
    assert model.head.weight.shape[0] == 7


def test_missing_guidance_branch_raises(config, tmp_path):
    config.use_guidance = True
    SVTRv2ForCTC(config).save_pretrained(tmp_path)
    rewrite(tmp_path, lambda weights: {n: t for n, t in weights.items() if not n.startswith("guidance.")})
    for options in ({}, {"use_guidance": True}):
        with pytest.raises(ValueError, match=r"missing \(guidance\."):
            SVTRv2ForCTC.from_pretrained(tmp_path, **options)


def test_loading_info_is_returned(config, saved, tmp_path):
    """As in the common tests of transformers, also without weights."""
    SVTRv2Model(config).save_pretrained(tmp_path)
    model, report = SVTRv2ForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(model, SVTRv2ForCTC) and HEAD in report["missing_keys"]
    rewrite(saved, of_another_charset)
    with pytest.raises(RuntimeError, match="wrong shape"):
        SVTRv2ForCTC.from_pretrained(saved, output_loading_info=True)
    assert isinstance(SVTRv2ForCTC.from_pretrained(None, config=SVTRv2Config(), state_dict={}), SVTRv2ForCTC)


def fails_to_read(folder):
    """Run `svtrv2 read` with a damaged model, and return its exit status."""
    draw("ab").save(folder.parent / "ab.png")
    return main(["read", str(folder.parent / "ab.png"), "--model", str(folder)])


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_integer_weights_raise(saved, kind, capsys):
    weights = load_file(saved / "model.safetensors")
    weights["head.weight"] = weights["head.weight"].to(kind)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SVTRv2WeightsError, match=r"1 stored as integers \(head.weight\)"):
        SVTRv2ForCTC.from_pretrained(saved)
    assert fails_to_read(saved) == 1
    assert "head.weight" in capsys.readouterr().err


def test_model_that_computes_nan_raises(saved, capsys):
    config = saved / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-06', '"layer_norm_eps": NaN'))
    assert fails_to_read(saved) == 1
    assert "NaN" in capsys.readouterr().err


def test_unfit_state_dict_raises(config):
    with pytest.raises(SVTRv2WeightsError, match="missing"):
        SVTRv2ForCTC.from_pretrained(None, config=config, state_dict={"x": torch.zeros(1)})


def test_characters_with_the_same_id_raise(saved, capsys):
    path = saved / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["1"] = content["model"]["vocab"]["2"]
    path.write_text(json.dumps(content))
    assert fails_to_read(saved) == 1
    assert "has no character with the id" in capsys.readouterr().err


def test_kernel_of_the_hub_raises(saved, capsys):
    config = saved / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "attn_implementation": "someone/kernel"}))
    assert fails_to_read(saved) == 1
    assert "refers to code on the Hub (attn_implementation: 'someone/kernel')" in capsys.readouterr().err
