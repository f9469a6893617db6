"""SVTRv2Config: presets, saving, validation."""

import pytest

from svtrv2_hf import SVTRv2Config
from svtrv2_hf.configuration_svtrv2 import PRESETS


def test_default_is_tiny():
    assert SVTRv2Config().to_dict() == SVTRv2Config.preset("tiny").to_dict()


@pytest.mark.parametrize("size", PRESETS)
def test_saved_configuration_is_loaded_unchanged(size, tmp_path):
    config = SVTRv2Config.preset(size, vocab_size=37, use_guidance=True)
    config.save_pretrained(tmp_path)
    assert SVTRv2Config.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize("size", PRESETS)
def test_preset_is_recognized_from_the_layers(size):
    assert SVTRv2Config.preset(size, vocab_size=37, drop_path_rate=0.3).preset_name == size
    assert SVTRv2Config.preset(size, depths=[1, 1, 1], num_convolution_blocks=[1, 1, 0]).preset_name is None


def test_unknown_preset():
    with pytest.raises(ValueError, match="Unknown SVTRv2 size 'large'; the sizes are nano, tiny, small, base"):
        SVTRv2Config.preset("large")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": "95"}, "vocab_size"),
        ({"vocab_size": 1}, "must be at least 2"),
        ({"blank_token_id": 95}, "blank_token_id=95"),
        ({"hidden_sizes": [64, 128]}, "three entries"),
        ({"hidden_sizes": [64, 128, 250]}, "multiple of 32|divisible"),
        ({"hidden_sizes": [63, 128, 256], "num_attention_heads": [3, 4, 8]}, "must be even"),
        ({"depths": [3, 0, 3]}, "an entry below 1"),
        ({"num_attention_heads": [3, 4, 8]}, "divisible"),
        ({"num_convolution_blocks": [4, 3, 0]}, "exceeds depths"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"guidance_context_length": 0}, "at least 1"),
        ({"kernel_size": 4}, "odd"),
        ({"convolutions_per_block": 0}, "convolutions_per_block=0"),
        ({"height_strides": [1, 2, 2]}, "two entries"),
        ({"neck": "lstm"}, "neck"),
        ({"neck": "mixing", "neck_hidden_size": 100}, "multiple of 8"),
    ],
)
def test_invalid_fields_raise(fields, message):
    with pytest.raises(Exception, match=message):
        SVTRv2Config(**fields)


def test_misspelled_field_logs_a_warning(caplog, monkeypatch):
    import svtrv2_hf.configuration_svtrv2 as module

    warnings = []
    monkeypatch.setattr(module.logger, "warning_once", warnings.append)
    SVTRv2Config(hiden_sizes=[1, 2, 3])
    assert warnings
    assert "'hiden_sizes'" in warnings[0]
    assert "'hidden_sizes'" in warnings[0]
    warnings.clear()
    SVTRv2Config(architectures=["SVTRv2ForCTC"], id2label={0: "a"})
    assert not warnings
