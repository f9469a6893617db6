"""Agreement with the reference implementation; see golden/README.md."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden, golden_image, golden_model

from svtrv2_hf import SVTRv2ImageProcessor, SVTRv2Processor, SVTRv2ServerImageProcessor, build_tokenizer


TOLERANCE = {"rtol": 0, "atol": 1e-4}


@pytest.mark.parametrize("name", ["tiny_rctc", "base_rctc"])
@torch.no_grad()
def test_every_stage_matches_the_reference_at_every_size(name):
    model, expected = golden_model(name), golden(name)
    sizes = sorted({key.split("/")[0] for key in expected})
    assert sizes == ["32x128", "32x256", "32x384", "40x112", "48x96", "64x64"]
    for size in sizes:
        pixel_values = golden_image(*map(int, size.split("x")), 2, "x")
        computed = {
            "stem": model.svtrv2.embeddings(pixel_values)[:1, :16],
            "encoder": model.svtrv2(pixel_values).last_hidden_state[:1, :16],
            "logits": model(pixel_values).logits,
        }
        for part in computed:
            if f"{size}/{part}" in expected:
                np.testing.assert_allclose(
                    computed[part], expected[f"{size}/{part}"], **TOLERANCE, err_msg=f"{size} {part}"
                )


@torch.no_grad()
def test_server_model_matches_the_reference():
    """Other kernels, strides and neck; the reference returns probabilities."""
    model, expected = golden_model("server_ch"), golden("server_ch")
    sizes = sorted({key.split("/")[0] for key in expected})
    assert sizes == ["48x160", "48x320", "48x480"]
    for size in sizes:
        pixel_values = golden_image(*map(int, size.split("x")), 2, "x")
        encoder = model.svtrv2(pixel_values).last_hidden_state[:1, :16]
        np.testing.assert_allclose(encoder, expected[f"{size}/encoder"], **TOLERANCE, err_msg=size)
        probabilities = model(pixel_values).logits.softmax(-1)
        np.testing.assert_allclose(probabilities, expected[f"{size}/probabilities"], **TOLERANCE, err_msg=size)


@torch.no_grad()
def test_guidance_contexts_logits_and_losses_match_the_reference():
    model, expected = golden_model("tiny_sgm"), golden("tiny_sgm")
    given = json.loads((GOLDEN / "sgm_labels.json").read_text())
    processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(given["charset"]))
    labels = processor(text=given["labels"], return_tensors="pt")["labels"]
    pixel_values = golden_image(32, 128, 4, "sgm")

    (left, next_character), (right, previous_character) = model.guidance.contexts(labels)
    reference_pad = 98
    np.testing.assert_array_equal(left, expected["left_context"])
    np.testing.assert_array_equal(right, expected["right_context"])
    for targets, name in ((next_character, "next_char"), (previous_character, "previous_char")):
        np.testing.assert_array_equal(torch.where(targets < 0, reference_pad, targets), expected[name])

    logits, _ = model.guidance(model.svtrv2(pixel_values).last_hidden_state, labels)
    np.testing.assert_allclose(logits, expected["sgm_logits"], **TOLERANCE)
    output = model(pixel_values, labels=labels)
    np.testing.assert_allclose(output.logits, expected["ctc_logits"], **TOLERANCE)
    np.testing.assert_allclose(output.ctc_loss, expected["ctc_loss_per_sample"].mean(), rtol=1e-5)
    np.testing.assert_allclose(output.guidance_loss, expected["sgm_loss"][0], rtol=1e-5)
    np.testing.assert_allclose(output.loss, expected["loss"][0], rtol=1e-5)


def test_resizing_is_exact():
    arrays = golden("msr_resize")
    names = [key.split("/")[0] for key in arrays if key.endswith("/image")]
    assert len(names) == 10
    for name in names:
        computed = SVTRv2ImageProcessor(max_ratio=12)(arrays[f"{name}/image"])["pixel_values"][0]
        assert computed.shape == arrays[f"{name}/pixel_values"].shape, name
        # the same gray levels; the float32 arithmetic of the reference rounds the last bit differently
        np.testing.assert_allclose(computed, arrays[f"{name}/pixel_values"], rtol=0, atol=2e-7, err_msg=name)


def test_resizing_for_the_server_model():
    """Within one gray level of OpenCV, whose bilinear weights are fixed-point numbers."""
    arrays = golden("server_resize")
    names = [key.split("/")[0] for key in arrays if key.endswith("/image")]
    assert len(names) == 6
    processor = SVTRv2ServerImageProcessor()
    for name in names:
        computed = (processor(arrays[f"{name}/image"])["pixel_values"][0] + 1) * 127.5
        expected = arrays[f"{name}/pixel_values"].astype(float)
        assert computed.shape == expected.shape, name
        assert np.abs(computed - expected).max() <= 1.001, name
        assert np.abs(computed - expected).mean() < 0.5, name
