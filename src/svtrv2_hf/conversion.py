# SPDX-License-Identifier: Apache-2.0
"""Conversion of OpenOCR checkpoints.

Size, guidance branch and number of classes are inferred from the tensors. Every tensor of the checkpoint is used exactly once,
and every parameter of the model comes from one of them; otherwise the conversion fails.

Source of the names: Topdu/OpenOCR at ae934e5.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from transformers.utils import logging

from .charsets import ENGLISH_94, build_tokenizer
from .configuration_svtrv2 import SVTRv2Config
from .image_processing_svtrv2 import SVTRv2ImageProcessor, SVTRv2ServerImageProcessor
from .modeling_svtrv2 import WRAPPERS, SVTRv2ForCTC
from .processing_svtrv2 import SVTRv2Processor
from .weight_files import check_values, read_weights


logger = logging.get_logger(__name__)

# How names begin in OpenOCR, after `_plain_names`, and in this package; the first match applies.
_PREFIXES = {
    "encoder.pope.patch_embed.": "svtrv2.embeddings.layers.",
    "encoder.stages.": "svtrv2.stages.",
    "ctc.char_token": "rearrangement.token",
    "ctc.fc_kv.": "rearrangement.key+value.",  # one tensor for two layers
    "ctc.w_atten_block.attn.": "rearrangement.attention.",
    "ctc.w_atten_block.": "rearrangement.",
    "ctc.svtr_encoder.conv1.": "neck.reduction.0.",
    "ctc.svtr_encoder.conv2.": "neck.reduction.1.",
    "ctc.svtr_encoder.conv3.": "neck.expansion.",
    "ctc.svtr_encoder.conv4.": "neck.fusion.0.",
    "ctc.svtr_encoder.conv1x1.": "neck.fusion.1.",
    "ctc.svtr_encoder.svtr_block.": "neck.blocks.",
    "ctc.svtr_encoder.norm.": "neck.norm.",
    "ctc.fc.": "head.",
    "guidance.char_embed.embedding.": "guidance.character_embedding.",
    "guidance.next_token": "guidance.next_token",
    "guidance.pre_token": "guidance.previous_token",
    "guidance.prompt_next_embed": "guidance.next_prompt",
    "guidance.prompt_pre_embed": "guidance.previous_prompt",
    "guidance.norm_pred.": "guidance.norm.",
    "guidance.ques1_head.": "guidance.head.",
    "guidance.cmff_decoder.0.normq1.": "guidance.context_attention.query_norm.",
    "guidance.cmff_decoder.0.normkv1.": "guidance.context_attention.memory_norm.",
    "guidance.cmff_decoder.0.normq2.": "guidance.feature_attention.query_norm.",
    "guidance.cmff_decoder.0.normkv2.": "guidance.feature_attention.memory_norm.",
    "guidance.cmff_decoder.0.images_to_question_cross_attn.": "guidance.context_attention.",
    "guidance.cmff_decoder.0.question_to_images_cross_attn.": "guidance.feature_attention.",
}
# The other parts of names that differ, for each module of this package.
_PARTS = {
    "svtrv2": {"conv": "convolution", "norm1": "mixer_norm", "norm2": "mlp_norm", "proj": "projection"},
    "rearrangement": {"norm1": "attention_norm", "norm2": "mlp_norm", "proj": "projection"},
    "neck": {
        "conv": "convolution",
        "mixer": "attention",
        "norm1": "attention_norm",
        "norm2": "mlp_norm",
        "proj": "projection",
    },
    "guidance": {"q": "query", "kv": "key_value", "proj": "projection"},
}


def local_file(place: str | Path) -> Path:
    """Return the path of a file; `hub:OWNER/REPOSITORY/FILE` is downloaded from the Hub.

    Raises:
        ValueError: the name of a file on the Hub is incomplete, or the file cannot be downloaded.
    """
    if not str(place).startswith("hub:"):
        return Path(place)
    owner, repository, file = [*str(place).removeprefix("hub:").split("/", 2), "", "", ""][:3]
    if not (owner and repository and file):
        raise ValueError(f"{place} is not a file on the Hub: write hub:OWNER/REPOSITORY/FILE.")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (OSError, ValueError) as error:  # huggingface_hub raises these two kinds
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"Cannot download {file} of {owner}/{repository} from the Hub: {line} Without a network, download it elsewhere and pass its path."
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Load the state dict of an OpenOCR checkpoint, `.pth`, `.safetensors` or `.onnx`, without running code that it contains.

    The prefixes that DistributedDataParallel and torch.compile add to names are removed with a warning.

    Raises:
        ValueError: the file is not a checkpoint, has no state dict, or contains values that are not finite.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"Checkpoint not found: {path}.")
    checkpoint = read_weights(path)
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ValueError(f"{path} does not contain a state dict of tensors.")
    if others := [
        name for name, value in state_dict.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]:
        raise ValueError(
            f"{path} does not contain a state dict of tensors only: {', '.join(map(str, others[:5]))} are other values."
        )
    unwrapped = {re.sub(WRAPPERS, "", name): tensor for name, tensor in state_dict.items()}
    if unwrapped.keys() != state_dict.keys():
        if len(unwrapped) < len(state_dict):
            raise ValueError(f"{path} contains tensors of the same name with and without the prefix of a wrapper.")
        logger.warning(f"Ignoring the prefix of a wrapper (module. or _orig_mod.) in the names of {path}.")
    check_values(unwrapped, f"The weights in {path}")
    return unwrapped


def infer_config(state_dict: Mapping[str, torch.Tensor]) -> SVTRv2Config:
    """Infer the configuration of a state dict of OpenOCR.

    The tensors do not determine the number of heads of stages without convolutions, for which all published models have 32
    channels per head, nor the strides, which follow from the neck of the 'server' model.

    Raises:
        ValueError: the architecture is neither that of the paper nor the 'server' model.
    """
    if any(".token_mixer." in key for key in state_dict):
        raise ValueError(
            "This is RepSVTR ('mobile'), a different network, which cannot be converted, unlike the 'server' model of the same "
            "authors and the models of the paper."
        )
    tensors = {name: state_dict[key] for key, name in _plain_names(state_dict).items()}
    fields: dict[str, Any] = defaultdict(list)
    try:
        for stage in range(3):
            prefix = f"encoder.stages.{stage}.blocks."
            hidden_size = tensors[f"{prefix}0.norm1.weight"].shape[0]
            convolutions = [name for name in tensors if name.startswith(prefix) and name.endswith(".mixer.0.weight")]
            channels = tensors[convolutions[0]].shape[1] if convolutions else 32
            fields["hidden_sizes"].append(hidden_size)
            fields["depths"].append(_children(tensors, prefix))
            fields["num_attention_heads"].append(hidden_size // channels)
            fields["num_convolution_blocks"].append(len(convolutions))
            for name in convolutions:
                fields["kernel_size"] = tensors[name].shape[-1]
                fields["convolutions_per_block"] = _children(tensors, name.removesuffix("0.weight"))
        if "ctc.svtr_encoder.conv1.conv.weight" in tensors:
            fields["neck"], fields["height_strides"] = "mixing", [2, 2]
            fields["neck_hidden_size"] = tensors["ctc.svtr_encoder.norm.weight"].shape[0]
            fields["neck_depth"] = _children(tensors, "ctc.svtr_encoder.svtr_block.")
        prompt = tensors.get("guidance.prompt_next_embed")  # one slot for each character and an extra one
        return SVTRv2Config(
            vocab_size=tensors["ctc.fc.weight"].shape[0],
            stem_bias="encoder.pope.patch_embed.0.conv.bias" in tensors,
            mlp_ratio=tensors["encoder.stages.0.blocks.0.mlp.fc1.weight"].shape[0] / fields["hidden_sizes"][0],
            use_guidance=prompt is not None,
            guidance_context_length=5 if prompt is None else prompt.shape[2] - 1,
            **fields,
        )
    except KeyError as error:
        raise ValueError(
            f"This is not an SVTRv2 checkpoint of the architecture of the paper: it has no tensor {error.args[0]}. Its names begin with "
            f"{', '.join(sorted({'.'.join(name.split('.')[:2]) for name in tensors}))}."
        ) from error


def convert_state_dict(state_dict: Mapping[str, torch.Tensor], config: SVTRv2Config) -> dict[str, torch.Tensor]:
    """Rename the tensors of a state dict of OpenOCR.

    Raises:
        ValueError: tensors are unexpected, missing or of the wrong shape; the message lists all of them.
    """
    converted: dict[str, torch.Tensor] = {}
    with torch.device("meta"):
        expected = SVTRv2ForCTC(config).state_dict()
    problems = []
    for key, name in _plain_names(state_dict).items():
        renamed, tensor = _rename(name), state_dict[key]
        parts = {renamed: tensor}
        if "key+value" in renamed:
            parts = {
                renamed.replace("key+value", part): half.clone()
                for part, half in zip(("key", "value"), tensor.chunk(2), strict=True)
            }
        if parts.keys() & converted.keys() or not parts.keys() <= expected.keys():
            problems.append(f"unexpected: {key} {tuple(tensor.shape)}")
        else:
            converted |= parts
    for name, tensor in expected.items():
        if name not in converted:
            problems.append(f"missing: {name} {tuple(tensor.shape)}")
        elif converted[name].shape != tensor.shape:
            problems.append(f"wrong shape: {name} is {tuple(converted[name].shape)}, not {tuple(tensor.shape)}")
    if problems:
        raise ValueError("The checkpoint does not fit SVTRv2:\n  " + "\n  ".join(problems))
    return converted


def _children(names: Iterable[str], prefix: str) -> int:
    """Count the different parts of names after a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def _rename(name: str) -> str:
    for prefix, replacement in _PREFIXES.items():
        if name.startswith(prefix):
            module, *parts = f"{replacement}{name.removeprefix(prefix)}".split(".")
            return ".".join([module, *(_PARTS.get(module, {}).get(part, part) for part in parts)])
    return f"unknown {name}"


def _plain_names(state_dict: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Map names to those with the same prefix for each decoder and blocks numbered without gaps.

    OpenOCR counts the layer that flattens the features between convolutions and attention as a block.
    """
    block = re.compile(r"(encoder\.stages\.\d+\.blocks\.)(\d+)(\..*)")
    numbers: dict[str, set[int]] = defaultdict(set)
    for key in state_dict:
        if match := block.fullmatch(key):
            numbers[match[1]].add(int(match[2]))
    names = {}
    for key in state_dict:
        name = re.sub(r"^decoder\.gtc_decoder\.", "guidance.", key)
        name = re.sub(r"^decoder\.(ctc_decoder\.)?", "ctc.", name)
        if match := block.fullmatch(key):
            name = f"{match[1]}{sorted(numbers[match[1]]).index(int(match[2]))}{match[3]}"
        names[key] = name
    return names


def convert(
    checkpoint: str | Path, output: str | Path, charset: Sequence[str] | None = None, max_ratio: int | None = None
) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """Convert an OpenOCR checkpoint and save weights, configuration, tokenizer, processor and code.

    Args:
        checkpoint: the `.pth`, `.safetensors` or `.onnx` file, or `hub:OWNER/REPOSITORY/FILE`.
        output: the folder to write.
        charset (`list[str]`, *optional*): characters in the order of the head; default: the 94 of the English models. For the
            'server' model, a missing space is appended, as upstream does.
        max_ratio (`int`, *optional*): maximum width / height of an image; default: 12 with a guidance branch and 4 without,
            as in the training of the published models, and 40 for the 'server' model, which has no limit.

    Returns:
        the saved model and processor.

    Raises:
        ValueError: the checkpoint is not an SVTRv2 model, or the charset does not fit its head.
    """
    state_dict = load_checkpoint(local_file(checkpoint))
    config = infer_config(state_dict)
    is_server = config.neck == "mixing"
    characters = list(ENGLISH_94 if charset is None else charset)
    if is_server and len(characters) + 2 == config.vocab_size and " " not in characters:
        characters.append(" ")
    if len(characters) + 1 != config.vocab_size:
        subject = "The default charset of 94 printable ASCII characters" if charset is None else "The charset"
        raise ValueError(
            f"{subject} has {len(characters)} characters, but the head of {checkpoint} scores {config.vocab_size - 1} and the "
            "blank. Pass the charset of its training with --charset FILE, one character per line (the space, if the model predicts it, is "
            "a line with one space, usually the last)."
        )
    if max_ratio is None:
        max_ratio = 40 if is_server else 12 if config.use_guidance else 4
    processor_class = SVTRv2ServerImageProcessor if is_server else SVTRv2ImageProcessor
    image_processor = processor_class(max_ratio, pixels_per_frame=config.pixels_per_frame)
    model = SVTRv2ForCTC(config)
    model.load_state_dict(convert_state_dict(state_dict, config))
    model.eval().save_pretrained(output)
    processor = SVTRv2Processor(image_processor, build_tokenizer(characters))
    processor.save_pretrained(output)
    return model, processor
