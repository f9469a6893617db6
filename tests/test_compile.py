"""torch.compile, on images of several sizes."""

import copy

import pytest
import torch
from conftest import make_folder
from test_training import arguments, trainer_on

from svtrv2_hf import SVTRv2ForCTC


def test_torch_compile_creates_a_graph_per_image_size(config):
    """One graph for all batch sizes except 1; inductor cannot compile a graph for several image sizes."""
    shapes = []

    def backend(graph, _):
        [images] = [n.meta["example_value"] for n in graph.graph.nodes if n.op == "placeholder" and "pixel" in n.name]
        shapes.append(" x ".join(str(size) for size in images.shape[-2:]))  # symbolic sizes are letters
        return graph

    torch.compiler.reset()
    embeddings = SVTRv2ForCTC(config).svtrv2.embeddings.eval()
    compiled = torch.compile(embeddings, backend=backend, fullgraph=True)
    for batch, height, width in ((2, 32, 64), (2, 32, 128), (3, 64, 64), (5, 48, 96), (7, 48, 96), (4, 64, 64)):
        images = torch.randn(batch, 3, height, width)
        torch.testing.assert_close(compiled(images), embeddings(images))
    assert shapes == ["32 x 64", "32 x 128", "64 x 64", "48 x 96"]


@pytest.mark.slow
def test_compiled_model_computes_the_same_at_every_size(config):
    """Loss and gradients with the default compiler, for batches of one image size and of several."""
    config.depths, config.drop_path_rate, config.use_guidance = [1, 1, 1], 0.0, True
    config.num_convolution_blocks = [1, 0, 0]
    model = SVTRv2ForCTC(config).train()
    compiled = torch.compile(model)

    def gradients(called, **inputs):
        model.zero_grad()
        loss = called(**inputs).loss
        loss.backward()
        return [loss, *(parameter.grad.clone() for parameter in model.parameters())]

    sizes = torch.tensor([[32, 64], [32, 128], [32, 64]])
    batches = [
        {"pixel_values": torch.randn(n, 3, *size)} for n, size in ((2, (32, 64)), (3, (32, 128)), (2, (64, 64)))
    ]
    for batch in (*batches, {"pixel_values": torch.randn(3, 3, 32, 128), "image_sizes": sizes}):
        batch["labels"] = torch.randint(1, config.vocab_size, (len(batch["pixel_values"]), 4))
        torch.testing.assert_close(gradients(compiled, **batch), gradients(model, **batch), rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_trainer_compiles_the_model(config, tmp_path, monkeypatch):
    """All sizes are compiled, and the losses do not change."""
    folder = make_folder(tmp_path / "data", [f"{number:03}" for number in range(40)] + [f"{n:07}" for n in range(24)])
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    torch.compiler.reset()
    config.drop_path_rate = 0.0
    initial = SVTRv2ForCTC(config)
    losses = []
    for options in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        args = arguments(tmp_path / f"{len(losses)}", logging_steps=1, **options)
        trainer = trainer_on(folder, copy.deepcopy(initial), args)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert torch._dynamo.config.recompile_limit >= 40, "twenty sizes, each for batches and for single images"
