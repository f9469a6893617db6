"""Frozen modules do not change in training mode, so that a loaded adapter equals the trained model."""

import pytest
import torch
from conftest import draw
from transformers import AutoModelForCTC

from svtrv2_hf import SVTRv2ForCTC


@pytest.fixture
def batch(processor):
    return processor(images=[draw("one"), draw("two")], text=["one", "two"], return_tensors="pt")


def statistics(model):
    return {
        name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name or "num_batches" in name
    }


def changed_statistics(model, batch):
    """Return the names of the statistics that a step in training mode changes."""
    before = statistics(model)
    model.train()(**batch).loss.backward()
    return {name for name, buffer in statistics(model).items() if not torch.equal(buffer, before[name])}


@pytest.mark.parametrize("frozen", ["", "svtrv2", "svtrv2.embeddings", "svtrv2.embeddings.layers.0.norm"])
def test_statistics_of_frozen_modules_do_not_change(model, batch, frozen):
    unfrozen = changed_statistics(model, batch)
    assert len(unfrozen) == 6
    model.get_submodule(frozen).requires_grad_(False)
    model.head.requires_grad_(True)
    assert changed_statistics(model, batch) == {name for name in unfrozen if not name.startswith(frozen)}


def test_frozen_module_computes_the_same_in_training_and_evaluation(model, batch):
    model.requires_grad_(False)
    pixels = batch["pixel_values"]
    assert torch.equal(model.train().svtrv2.embeddings(pixels), model.eval().svtrv2.embeddings(pixels))


def test_loaded_adapter_equals_the_trained_model(saved, batch, tmp_path):
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["qkv", "projection"], modules_to_save=["head"])
    model = peft.get_peft_model(SVTRv2ForCTC.from_pretrained(saved), lora)
    optimizer = torch.optim.AdamW([parameter for parameter in model.parameters() if parameter.requires_grad], 1e-3)
    model.train()
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "adapter")
    trained = model.eval()(**batch).logits
    assert not torch.allclose(trained, SVTRv2ForCTC.from_pretrained(saved)(**batch).logits, atol=0.1)
    loaded = peft.PeftModel.from_pretrained(SVTRv2ForCTC.from_pretrained(saved), tmp_path / "adapter").eval()
    assert torch.equal(loaded(**batch).logits, trained)
    assert torch.equal(AutoModelForCTC.from_pretrained(tmp_path / "adapter")(**batch).logits, trained)
    loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(
        SVTRv2ForCTC.from_pretrained(tmp_path / "merged")(**batch).logits, trained, rtol=0, atol=1e-3
    )


def test_dynamic_quantization_of_linear_layers(model, batch):
    quantized = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    assert quantized(batch["pixel_values"]).logits.shape == model(batch["pixel_values"]).logits.shape
