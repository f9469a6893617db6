"""Fine-tuning a checkpoint, for its charset or another."""

import pytest
import torch
from conftest import GOLDEN, golden_state_dict, make_folder
from safetensors.torch import save_file
from test_training import run

from svtrv2_hf import (
    SVTRv2Config,
    SVTRv2ForCTC,
    SVTRv2ImageProcessor,
    SVTRv2Processor,
    SVTRv2ServerImageProcessor,
    build_tokenizer,
)
from svtrv2_hf.charsets import charset_of
from svtrv2_hf.conversion import convert
from svtrv2_hf.training.model import adapt_to_charset


@pytest.fixture
def known():
    return list("abcdef")


@pytest.fixture
def guided(config, known):
    config.vocab_size = len(known) + 1
    config.use_guidance = True
    torch.manual_seed(0)
    return SVTRv2ForCTC(config).eval()


def test_shared_characters_keep_their_weights(guided, known):
    charset = list("xbyaf")
    adapted = adapt_to_charset(guided, known, charset).eval()
    images = torch.randn(2, 3, 32, 128)
    with torch.no_grad():
        before, after = guided(images).logits, adapted(images).logits
    assert after.shape[-1] == 6
    shared = {0: 0, 2: 2, 4: 1, 5: 6}  # new id: old id, of the blank, b, a and f
    torch.testing.assert_close(after[..., list(shared)], before[..., list(shared.values())])
    embeddings = (adapted.guidance.character_embedding.weight, guided.guidance.character_embedding.weight)
    scores = (adapted.guidance.head.weight, guided.guidance.head.weight)
    for (new, old), others in ((embeddings, {6: 7, 7: 8, 8: 9, 9: 10}), (scores, {6: 7})):
        rows = shared | others
        torch.testing.assert_close(new[list(rows)], old[list(rows.values())])
    assert adapted.config.vocab_size == 6 and guided.config.vocab_size == 7
    for name, parameter in adapted.svtrv2.named_parameters():
        assert torch.equal(parameter, guided.svtrv2.get_parameter(name))


def test_new_characters_start_as_the_average_character(guided, known):
    with torch.no_grad():
        guided.head.weight[1:] += 3.0
        guided.head.bias[1:] = torch.arange(6.0)
    head = adapt_to_charset(guided, known, list("abxyz")).head
    new = head.weight[3:]
    torch.testing.assert_close(new.mean(0), guided.head.weight[1:].mean(0), atol=0.5, rtol=0)
    assert (new[0] != new[1]).any(), "new characters differ"
    assert head.bias[3:].tolist() == [2.5, 2.5, 2.5]


def test_charset_without_shared_characters(guided, known):
    adapted = adapt_to_charset(guided, known, list("\u4eac\u6d25"))
    assert torch.equal(adapted.head.weight[0], guided.head.weight[0]), "the blank is shared"
    assert adapted(torch.randn(1, 3, 32, 128), labels=torch.tensor([[1, 2]])).loss.isfinite()


def test_charset_of_another_model_raises(guided):
    with pytest.raises(ValueError, match="The model scores 6 characters, the charset has 2"):
        adapt_to_charset(guided, list("ab"), list("abc"))


def test_fine_tuning_to_another_charset(tmp_path, saved):
    """The saved folder contains the new charset in model and tokenizer."""
    folder = make_folder(tmp_path / "data", ["A1", "B2", "AB12", "B1", "A2", "AA11"])
    charset = tmp_path / "charset.txt"
    charset.write_text("A\nB\n1\n2\n\u7696\n", encoding="utf-8")
    out = run(tmp_path, folder, "--model", str(saved), "--charset", str(charset), "--freeze_stages", "2")
    assert "".join(charset_of(SVTRv2Processor.from_pretrained(out).tokenizer)) == "AB12\u7696"
    model, before = SVTRv2ForCTC.from_pretrained(out), SVTRv2ForCTC.from_pretrained(saved)
    assert model.config.vocab_size == 6
    for name, parameter in model.svtrv2.named_parameters():
        frozen = name.startswith(("embeddings", "stages.0", "stages.1"))
        assert torch.equal(parameter, before.svtrv2.get_parameter(name)) == frozen, name


def test_same_charset_keeps_all_weights(tmp_path, saved):
    folder = make_folder(tmp_path / "data", ["12", "34", "56", "78"])
    charset = tmp_path / "charset.txt"
    characters = charset_of(SVTRv2Processor.from_pretrained(saved).tokenizer)
    charset.write_text("\n".join(characters) + "\n", encoding="utf-8")
    out = run(
        tmp_path, folder, "--model", str(saved), "--charset", str(charset), "--learning_rate", "0", "--eval_data",
        str(folder),
    )  # fmt: skip
    model, before = SVTRv2ForCTC.from_pretrained(out), SVTRv2ForCTC.from_pretrained(saved)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_fine_tuning_a_converted_checkpoint(tmp_path):
    assert (GOLDEN / "tiny_rctc_state_dict_shapes.json").is_file()
    save_file({k: v.contiguous() for k, v in golden_state_dict("tiny_rctc").items()}, tmp_path / "best.safetensors")
    convert(tmp_path / "best.safetensors", tmp_path / "converted")
    folder = make_folder(tmp_path / "data", ["12", "34", "56", "78"])
    charset = tmp_path / "charset.txt"
    charset.write_text("\n".join("0123456789\u7696") + "\n", encoding="utf-8")
    out = run(
        tmp_path, folder, "--model", str(tmp_path / "converted"), "--charset", str(charset), "--max_steps", "1",
        "--freeze_stages", "3",
    )  # fmt: skip
    assert SVTRv2ForCTC.from_pretrained(out).config.vocab_size == 12


def test_fine_tuning_a_server_model(tmp_path, config, known):
    """Images of one height with rounded widths, frames of eight pixels; the head keeps shared characters."""
    for name, value in {"neck": "mixing", "neck_hidden_size": 32, "kernel_size": 5, "convolutions_per_block": 1,
                        "height_strides": [2, 2], "stem_bias": True, "vocab_size": len(known) + 1}.items():  # fmt: skip
        setattr(config, name, value)
    model = SVTRv2ForCTC(config)
    model.save_pretrained(tmp_path / "server")
    SVTRv2Processor(SVTRv2ServerImageProcessor(), build_tokenizer(known)).save_pretrained(tmp_path / "server")
    # The last is 12 characters in 48 x 320 pixels, the longest in 48 x 352 and more.
    folder = make_folder(tmp_path / "data", ["ab", "xa", "fx", "ef", "abcdefabcdef", "abcdefabcdef" * 4])
    charset = tmp_path / "charset.txt"
    charset.write_text("f\nx\na\nb\nc\nd\ne\n", encoding="utf-8")
    out = run(
        tmp_path, folder, "--model", str(tmp_path / "server"), "--charset", str(charset), "--freeze_stages", "3",
        "--learning_rate", "0", "--max_label_length", "60",
    )  # fmt: skip
    tuned, processor = SVTRv2ForCTC.from_pretrained(out), SVTRv2Processor.from_pretrained(out)
    torch.testing.assert_close(tuned.head.weight[[0, 1, 3]], model.head.weight[[0, 6, 1]])
    assert torch.equal(tuned.neck.expansion.convolution.weight, model.neck.expansion.convolution.weight)
    assert processor.image_processor.width_multiple == 32
    sizes = {processor.image_processor.target_size(width, 30) for width in range(10, 700, 7)}
    assert {height for height, _ in sizes} == {48} and all(width % 32 == 0 for _, width in sizes)


def test_guidance_can_be_added_in_stage_two(tmp_path, config, known):
    config.vocab_size = len(known) + 1
    SVTRv2ForCTC(config).save_pretrained(tmp_path / "stage1")
    SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(known)).save_pretrained(tmp_path / "stage1")
    folder = make_folder(tmp_path / "data", ["ab", "cd", "ef", "ace"])
    out = run(
        tmp_path, folder, "--model", str(tmp_path / "stage1"), "--use_guidance", "True", "--max_ratio", "5",
    )  # fmt: skip
    assert SVTRv2Config.from_pretrained(out).use_guidance
    assert SVTRv2Processor.from_pretrained(out).image_processor.max_ratio == 5
    assert SVTRv2ForCTC.from_pretrained(out, use_guidance=False).guidance is None
