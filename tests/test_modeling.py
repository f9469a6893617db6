"""Properties of all transformers models, and of SVTRv2."""

import copy

import pytest
import torch

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, SVTRv2Model


@pytest.mark.parametrize(
    ("size", "parameters"), [("nano", 977_007), ("tiny", 5_128_255), ("small", 11_251_247), ("base", 19_755_551)]
)
def test_number_of_parameters(size, parameters):
    with torch.device("meta"):
        assert SVTRv2ForCTC(SVTRv2Config.preset(size)).num_parameters() == parameters


@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (48, 96), (40, 112), (32, 128), (32, 640), (31, 65), (8, 4), (1, 1)]
)
@torch.no_grad()
def test_one_frame_for_four_pixels_of_any_size(model, height, width):
    output = model(torch.randn(2, 3, height, width))
    frames = -(-width // 4)
    assert output.logits.shape == (2, frames, model.config.vocab_size)
    assert output.logits_lengths.tolist() == [frames, frames]
    features = model.svtrv2(torch.randn(2, 3, height, width)).last_hidden_state
    assert features.shape == (2, 32, -(-height // 8), frames)


@torch.no_grad()
def test_feature_maps_stay_channels_last(model):
    states = model(torch.randn(2, 3, 32, 128), output_hidden_states=True).hidden_states
    assert [tuple(state.shape[1:]) for state in states] == [(16, 8, 32), (32, 8, 32), (32, 4, 32), (32, 4, 32)]
    assert all(state.is_contiguous(memory_format=torch.channels_last) for state in states)


@torch.no_grad()
def test_eager_attention_returns_its_weights(model):
    attentions = copy.deepcopy(model)
    attentions.set_attn_implementation("eager")
    weights = attentions(torch.randn(2, 3, 32, 64), output_attentions=True).attentions
    assert [tuple(w.shape) for w in weights] == [(2, 2, 128, 128), (2, 2, 64, 64)]
    torch.testing.assert_close(weights[0].sum(-1), torch.ones(2, 2, 128))


@torch.no_grad()
def test_eager_and_sdpa_agree(model):
    pixel_values = torch.randn(3, 3, 48, 96)
    assert model.config._attn_implementation == "sdpa"
    expected = model(pixel_values).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(pixel_values).logits, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_predictions_of_a_batch_of_mixed_sizes_equal_those_of_single_images(model):
    sizes = [(32, 128), (64, 64), (48, 96), (32, 128), (32, 256), (64, 64)]
    images = [torch.randn(3, height, width) for height, width in sizes]
    batch = torch.full((len(images), 3, 64, 256), 7.0)  # padding that would change the results if it were used
    for row, image in zip(batch, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    output = model(batch, image_sizes=torch.tensor(sizes))
    assert output.logits_lengths.tolist() == [width // 4 for _, width in sizes]
    for image, logits, length in zip(images, output.logits, output.logits_lengths, strict=True):
        torch.testing.assert_close(logits[:length], model(image[None]).logits[0], rtol=0, atol=1e-4)
        beyond = logits[length:].softmax(-1)
        assert (beyond[:, 0] == 1).all()
        assert (beyond[:, 1:] == 0).all()


@torch.no_grad()
def test_one_smaller_size_is_cropped(model):
    image = torch.randn(2, 3, 32, 64)
    batch = torch.nn.functional.pad(image, (0, 30, 0, 9), value=3.0)
    output = model(batch, image_sizes=torch.tensor([[32, 64], [32, 64]]))
    torch.testing.assert_close(output.logits, model(image).logits)


@pytest.mark.parametrize("sizes", [[[32, 64]], [[32, 64], [32, 200]], [[32, 64], [0, 64]]])
def test_image_sizes_that_do_not_fit(model, sizes):
    with pytest.raises(ValueError, match="do not fit pixel_values"):
        model(torch.randn(2, 3, 32, 128), image_sizes=torch.tensor(sizes))


@pytest.mark.parametrize("asked_for", ["output_hidden_states", "output_attentions"])
@pytest.mark.parametrize("by_configuration", [False, True])
def test_hidden_states_of_mixed_sizes_raise(config, asked_for, by_configuration):
    model = SVTRv2ForCTC._from_config(config, attn_implementation="eager")
    if by_configuration:
        setattr(model.config, asked_for, True)
    flags = {} if by_configuration else {asked_for: True}
    with pytest.raises(ValueError, match="several sizes"):
        model(torch.randn(2, 3, 32, 128), image_sizes=torch.tensor([[32, 64], [32, 128]]), **flags)


@pytest.mark.parametrize("use_guidance", [False, True])
def test_every_parameter_gets_a_gradient(config, use_guidance):
    config.use_guidance = use_guidance
    config.drop_path_rate = 0.0
    model = SVTRv2ForCTC(config).train()
    model(
        torch.randn(3, 3, 32, 64),
        labels=torch.tensor([[1, 2, 3, 4, 5, 6, 7], [3, 3, 4, -100, -100, -100, -100], [9] * 7]),
    ).loss.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
    # the bias of the keys shifts all scores of a column equally, so its gradient is zero up to rounding
    zero = [n for n, p in model.named_parameters() if not p.grad.abs().max() > 1e-9 and n != "rearrangement.key.bias"]
    assert not zero


@pytest.mark.parametrize("use_guidance", [False, True])
def test_mixed_sizes_train_as_single_images_do(config, use_guidance):
    config.use_guidance = use_guidance
    model = SVTRv2ForCTC(config).eval()  # batch norm and corruption of contexts depend on the batch
    sizes = [(32, 64), (48, 96), (32, 64)]
    labels = torch.tensor([[1, 2, 3], [4, -100, -100], [5, 5, -100]])
    batch = torch.zeros(3, 3, 48, 96)
    for row, (height, width) in zip(batch, sizes, strict=True):
        row[:, :height, :width] = torch.randn(3, height, width)
    output = model(batch, image_sizes=torch.tensor(sizes), labels=labels)
    singles = [model(batch[i : i + 1, :, :h, :w], labels=labels[i : i + 1]) for i, (h, w) in enumerate(sizes)]
    torch.testing.assert_close(output.ctc_loss, torch.stack([single.ctc_loss for single in singles]).mean())
    if use_guidance:  # a mean over characters: labels of 3, 1 and 2 make 8, 4 and 6 predictions
        means = torch.stack([single.guidance_loss for single in singles])
        torch.testing.assert_close(output.guidance_loss, (means * torch.tensor([8, 4, 6])).sum() / 18)
        torch.testing.assert_close(output.loss, 0.1 * output.ctc_loss + output.guidance_loss)
    else:
        torch.testing.assert_close(output.loss, output.ctc_loss)


def test_saving_and_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, report = SVTRv2ForCTC.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not loaded.training
    pixel_values = torch.randn(1, 3, 32, 128)
    assert torch.equal(loaded(pixel_values).logits, model(pixel_values).logits)
    backbone = SVTRv2Model.from_pretrained(tmp_path)
    expected = model.svtrv2(pixel_values).last_hidden_state
    assert torch.equal(backbone(pixel_values).last_hidden_state, expected)


def test_loading_in_half_precision(model, tmp_path):
    model.save_pretrained(tmp_path)
    half = SVTRv2ForCTC.from_pretrained(tmp_path, dtype=torch.bfloat16)
    logits = half(torch.randn(1, 3, 32, 128)).logits
    assert logits.dtype == torch.bfloat16


def test_guidance_can_be_omitted_when_loading_and_dropped_for_sharing(config, tmp_path):
    config.use_guidance = True
    model = SVTRv2ForCTC(config).eval()
    model.save_pretrained(tmp_path / "training")
    without, report = SVTRv2ForCTC.from_pretrained(tmp_path / "training", use_guidance=False, output_loading_info=True)
    assert without.guidance is None
    assert not report["unexpected_keys"]
    pixel_values = torch.randn(1, 3, 32, 64)
    expected = model(pixel_values).logits
    assert torch.equal(without(pixel_values).logits, expected)

    model.drop_guidance().save_pretrained(tmp_path / "reading")
    shared, report = SVTRv2ForCTC.from_pretrained(tmp_path / "reading", output_loading_info=True)
    assert not report["missing_keys"]
    assert shared.config.use_guidance is False
    assert torch.equal(shared(pixel_values).logits, expected)


def test_initial_weights_follow_the_reference():
    torch.manual_seed(0)
    model = SVTRv2ForCTC(SVTRv2Config.preset("tiny", use_guidance=True))
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert state["svtrv2.stages.2.blocks.0.mlp.fc1.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert state["svtrv2.stages.2.blocks.0.mlp.fc1.bias"].abs().max() == 0
    fan_out = 128 * 9
    assert state["svtrv2.stages.0.downsample.convolution.weight"].std() == pytest.approx(
        (2 / fan_out) ** 0.5, rel=0.05
    )
    assert state["rearrangement.token"].std() == pytest.approx(0.02, rel=0.3)
    assert state["guidance.character_embedding.weight"].std() == pytest.approx(1 / 16, rel=0.05)
    assert state["svtrv2.embeddings.layers.0.norm.weight"].eq(1).all()
    assert model.svtrv2.embeddings.layers[0].norm.running_var.eq(1).all()


def test_initial_weights_preserve_variance_and_predict_mostly_blanks():
    """Otherwise, training may not leave the state in which all frames have the same prediction."""
    torch.manual_seed(0)
    model = SVTRv2ForCTC(SVTRv2Config.preset("nano"))
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for name in ("head", "rearrangement.value", "rearrangement.mlp.fc1"):
        assert state[f"{name}.weight"].std() == pytest.approx(128**-0.5, rel=0.05), name
    assert state["head.bias"].softmax(-1)[0].item() == pytest.approx(0.9)
    assert state["head.bias"][1:].eq(0).all()


def test_new_charset_gets_a_fresh_head(model, tmp_path):
    model.save_pretrained(tmp_path)
    other = SVTRv2ForCTC.from_pretrained(tmp_path, vocab_size=11, ignore_mismatched_sizes=True)
    assert other.head.bias.softmax(-1)[0].item() == pytest.approx(0.9)
    assert torch.equal(
        other.svtrv2.stages[0].blocks[0].mixer[0].weight, model.svtrv2.stages[0].blocks[0].mixer[0].weight
    )


def test_drop_path_grows_with_depth_and_drops_whole_samples():
    model = SVTRv2Model(SVTRv2Config.preset("tiny"))
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])
    drop_path = model.stages[2].blocks[2].drop_path.train()
    drop_path.rate = 0.5
    dropped = drop_path(torch.ones(1000, 4, 5))
    per_sample = dropped[:, 0, 0]
    assert set(per_sample.tolist()) == {0.0, 2.0}
    assert (dropped == per_sample[:, None, None]).all()
    assert per_sample.mean() == pytest.approx(1.0, abs=0.15)


def test_gradients_do_not_depend_on_checkpointing(config):
    config.drop_path_rate = 0.0
    model = SVTRv2ForCTC(config).train()
    pixel_values, labels = torch.randn(2, 3, 32, 64), torch.tensor([[1, 2], [3, 4]])

    def gradients(checkpointed):
        trained = copy.deepcopy(model)
        if checkpointed:
            trained.gradient_checkpointing_enable()
        trained(pixel_values, labels=labels).loss.backward()
        return {name: parameter.grad for name, parameter in trained.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


@torch.no_grad()
def test_compiles_to_one_graph_for_each_width(model):
    """Without graph breaks; on CPUs, inductor cannot compile a single graph for all widths."""
    compilations = []

    def backend(graph, inputs):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=True)
    for width in (128, 160, 256, 384):
        pixel_values = torch.randn(2, 3, 32, width)
        torch.testing.assert_close(compiled(pixel_values).logits, model(pixel_values).logits, rtol=0, atol=1e-4)
    compiled(torch.randn(3, 3, 32, 160))  # of a compiled width, with another batch size
    assert len(compilations) == 4


def test_exports_with_dynamic_batch_and_width(model):
    batch, width = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("width", min=16, max=160)
    program = torch.export.export(
        model, (torch.randn(2, 3, 32, 128),), dynamic_shapes={"pixel_values": {0: batch, 3: 4 * width}}, strict=False
    )
    pixel_values = torch.randn(5, 3, 32, 256)
    torch.testing.assert_close(program.module()(pixel_values).logits, model(pixel_values).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_configuration_may_request_tuples(model, monkeypatch):
    images = torch.randn(1, 3, 32, 64)
    expected = model(images).logits
    monkeypatch.setattr(model.config, "return_dict", False)
    assert torch.equal(model(images)[0], expected)
