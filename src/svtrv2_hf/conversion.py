# SPDX-License-Identifier: Apache-2.0
"""OpenOCR checkpoints to models of this project.

Everything is found out from the tensors: size, guidance branch, number of classes. Every key of the checkpoint is used
exactly once, and every parameter of ours comes from one of them, or the conversion is refused.

Source of the names: Topdu/OpenOCR at ae934e5.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
from .weight_files import WeightFileError, check_values, read_weights


logger = logging.get_logger(__name__)


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message says why."""


# Their name -> ours, tried in order on the whole key. Blocks are renumbered first, see `_number_blocks`.
RENAMED = [
    (r"encoder\.pope\.patch_embed\.(\d)\.conv\.(.+)", r"svtrv2.embeddings.layers.\1.convolution.\2"),
    (r"encoder\.pope\.patch_embed\.(\d)\.norm\.(.+)", r"svtrv2.embeddings.layers.\1.norm.\2"),
    (r"encoder\.stages\.(\d)\.blocks\.(\d+)\.norm1\.(.+)", r"svtrv2.stages.\1.blocks.\2.mixer_norm.\3"),
    (r"encoder\.stages\.(\d)\.blocks\.(\d+)\.norm2\.(.+)", r"svtrv2.stages.\1.blocks.\2.mlp_norm.\3"),
    (r"encoder\.stages\.(\d)\.blocks\.(\d+)\.mixer\.proj\.(.+)", r"svtrv2.stages.\1.blocks.\2.mixer.projection.\3"),
    (r"encoder\.stages\.(\d)\.blocks\.(\d+)\.(mixer|mlp)\.(.+)", r"svtrv2.stages.\1.blocks.\2.\3.\4"),
    (r"encoder\.stages\.(\d)\.downsample\.conv\.(.+)", r"svtrv2.stages.\1.downsample.convolution.\2"),
    (r"encoder\.stages\.(\d)\.downsample\.norm\.(.+)", r"svtrv2.stages.\1.downsample.norm.\2"),
    (r"ctc\.char_token", r"rearrangement.token"),
    (r"ctc\.fc_kv\.(weight|bias)", r"rearrangement.key+value.\1"),  # one tensor for two layers of ours
    (r"ctc\.w_atten_block\.norm1\.(.+)", r"rearrangement.attention_norm.\1"),
    (r"ctc\.w_atten_block\.norm2\.(.+)", r"rearrangement.mlp_norm.\1"),
    (r"ctc\.w_atten_block\.attn\.proj\.(.+)", r"rearrangement.attention.projection.\1"),
    (r"ctc\.w_atten_block\.attn\.qkv\.(.+)", r"rearrangement.attention.qkv.\1"),
    (r"ctc\.w_atten_block\.mlp\.(.+)", r"rearrangement.mlp.\1"),
    (r"ctc\.svtr_encoder\.norm\.(.+)", r"neck.norm.\1"),
    (r"ctc\.svtr_encoder\.svtr_block\.(\d+)\.norm1\.(.+)", r"neck.blocks.\1.attention_norm.\2"),
    (r"ctc\.svtr_encoder\.svtr_block\.(\d+)\.norm2\.(.+)", r"neck.blocks.\1.mlp_norm.\2"),
    (r"ctc\.svtr_encoder\.svtr_block\.(\d+)\.mixer\.proj\.(.+)", r"neck.blocks.\1.attention.projection.\2"),
    (r"ctc\.svtr_encoder\.svtr_block\.(\d+)\.mixer\.qkv\.(.+)", r"neck.blocks.\1.attention.qkv.\2"),
    (r"ctc\.svtr_encoder\.svtr_block\.(\d+)\.mlp\.(.+)", r"neck.blocks.\1.mlp.\2"),
    (r"ctc\.fc\.(.+)", r"head.\1"),
    (r"guidance\.char_embed\.embedding\.weight", r"guidance.character_embedding.weight"),
    (r"guidance\.next_token", r"guidance.next_token"),
    (r"guidance\.pre_token", r"guidance.previous_token"),
    (r"guidance\.prompt_next_embed", r"guidance.next_prompt"),
    (r"guidance\.prompt_pre_embed", r"guidance.previous_prompt"),
    (r"guidance\.norm_pred\.(.+)", r"guidance.norm.\1"),
    (r"guidance\.ques1_head\.(.+)", r"guidance.head.\1"),
    (r"guidance\.cmff_decoder\.0\.normq1\.(.+)", r"guidance.context_attention.query_norm.\1"),
    (r"guidance\.cmff_decoder\.0\.normkv1\.(.+)", r"guidance.context_attention.memory_norm.\1"),
    (r"guidance\.cmff_decoder\.0\.normq2\.(.+)", r"guidance.feature_attention.query_norm.\1"),
    (r"guidance\.cmff_decoder\.0\.normkv2\.(.+)", r"guidance.feature_attention.memory_norm.\1"),
]
for _theirs, _ours in (
    ("conv1", "reduction.0"),
    ("conv2", "reduction.1"),
    ("conv3", "expansion"),
    ("conv4", "fusion.0"),
    ("conv1x1", "fusion.1"),
):
    RENAMED.append((rf"ctc\.svtr_encoder\.{_theirs}\.conv\.(.+)", rf"neck.{_ours}.convolution.\1"))
    RENAMED.append((rf"ctc\.svtr_encoder\.{_theirs}\.norm\.(.+)", rf"neck.{_ours}.norm.\1"))
for _theirs, _ours in (("images_to_question", "context"), ("question_to_images", "feature")):
    for _layer, _name in (("q", "query"), ("kv", "key_value"), ("proj", "projection")):
        RENAMED.append(
            (
                rf"guidance\.cmff_decoder\.0\.{_theirs}_cross_attn\.{_layer}\.(.+)",
                rf"guidance.{_ours}_attention.{_name}.\1",
            )
        )


def local_file(place: str | Path) -> Path:
    """A file's path, or where `hub:OWNER/REPOSITORY/FILE` lies after it has been fetched from the Hub.

    Raises:
        ConversionError: the place names no file of a repository, or it cannot be fetched.
    """
    if not str(place).startswith("hub:"):
        return Path(place)
    owner, repository, file = [*str(place).removeprefix("hub:").split("/", 2), "", "", ""][:3]
    if not (owner and repository and file):
        raise ConversionError(f"{place} names no file of the Hub: write hub:OWNER/REPOSITORY/FILE.")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (OSError, ValueError) as error:  # of huggingface_hub's are all of these two kinds
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConversionError(
            f"{file} of {owner}/{repository} could not be fetched from the Hub: {first_line} If there is no network, fetch it "
            "elsewhere and give its path."
        ) from error


def load_checkpoint(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads the state dict of an OpenOCR checkpoint, `.pth` or `.safetensors`, running none of the code in it.

    The prefixes that DistributedDataParallel and torch.compile put before each name are removed with a warning.

    Raises:
        ConversionError: The file is something other than a checkpoint, or holds no state dict, or values that are not finite.
    """
    path = Path(path)
    if not path.exists():
        raise ConversionError(f"Checkpoint not found: {path}.")
    try:
        checkpoint = read_weights(path)
    except WeightFileError as error:
        raise ConversionError(str(error)) from error
    state_dict = checkpoint.get("state_dict", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise ConversionError(f"{path} does not hold a state dict of tensors.")
    if others := [
        name for name, value in state_dict.items() if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    ]:
        raise ConversionError(
            f"{path} does not hold a state dict of tensors alone: {', '.join(map(str, others[:5]))} are other values."
        )
    unwrapped = {re.sub(WRAPPERS, "", name): tensor for name, tensor in state_dict.items()}
    if unwrapped.keys() != state_dict.keys():
        if len(unwrapped) < len(state_dict):
            raise ConversionError(f"{path} holds tensors of the same name with and without the prefix of a wrapper.")
        logger.warning(
            f"The names in {path} begin with the prefix of a wrapper (module. or _orig_mod.), which is ignored."
        )
    try:
        check_values(unwrapped, f"The weights in {path}")
    except ValueError as error:
        raise ConversionError(str(error)) from error
    return unwrapped


def infer_config(state_dict: Mapping[str, torch.Tensor]) -> SVTRv2Config:
    """The configuration that a state dict of OpenOCR's belongs to.

    Heads of stages without convolution leave no trace in the tensors; all published models have 32 channels a head. Nor do
    strides: those of the 'server' model are told by its neck.

    Raises:
        ConversionError: it is not of the architecture of the paper, nor of the 'server' model.
    """
    if any(".token_mixer." in key for key in state_dict):
        raise ConversionError(
            "This is RepSVTR ('mobile'), a network of another kind, which this project does not have. The 'server' model of the same "
            "authors and the models of the paper can be converted."
        )
    keys = _number_blocks(state_dict)
    state_dict = {ours: state_dict[theirs] for theirs, ours in keys.items()}
    try:
        hidden_sizes, depths, heads, convolutions = [], [], [], []
        blocks_by_convolution: list[str] = []
        for stage in range(3):
            prefix = f"encoder.stages.{stage}.blocks."
            blocks = {key.removeprefix(prefix).split(".")[0] for key in state_dict if key.startswith(prefix)}
            hidden_size = state_dict[f"{prefix}0.norm1.weight"].shape[0]
            by_convolution = [
                key for key in state_dict if re.fullmatch(re.escape(prefix) + r"\d+\.mixer\.0\.weight", key)
            ]
            groups = {hidden_size // state_dict[key].shape[1] for key in by_convolution} or {hidden_size // 32}
            if len(groups) != 1:
                raise ConversionError(f"The convolutions of stage {stage} have several numbers of groups: {groups}.")
            hidden_sizes.append(hidden_size)
            depths.append(len(blocks))
            heads.append(groups.pop())
            convolutions.append(len(by_convolution))
            blocks_by_convolution += [key.removesuffix("0.weight") for key in by_convolution]
        others: dict[str, Any] = {}
        if blocks_by_convolution:
            first = blocks_by_convolution[0]
            others["kernel_size"] = state_dict[f"{first}0.weight"].shape[-1]
            others["convolutions_per_block"] = sum(f"{first}{number}.weight" in state_dict for number in range(10))
        if "ctc.svtr_encoder.conv1.conv.weight" in state_dict:
            blocks = {key.split(".")[3] for key in state_dict if key.startswith("ctc.svtr_encoder.svtr_block.")}
            size = state_dict["ctc.svtr_encoder.norm.weight"].shape[0]
            others |= {"neck": "mixing", "neck_hidden_size": size, "neck_depth": len(blocks), "height_strides": [2, 2]}
        prompt = state_dict.get("guidance.prompt_next_embed")  # a slot of its own, and one a character
        return SVTRv2Config(
            vocab_size=state_dict["ctc.fc.weight"].shape[0],
            hidden_sizes=hidden_sizes,
            depths=depths,
            num_attention_heads=heads,
            num_convolution_blocks=convolutions,
            stem_bias="encoder.pope.patch_embed.0.conv.bias" in state_dict,
            **others,
            mlp_ratio=state_dict["encoder.stages.0.blocks.0.mlp.fc1.weight"].shape[0] / hidden_sizes[0],
            use_guidance=prompt is not None,
            guidance_context_length=5 if prompt is None else prompt.shape[2] - 1,
        )
    except KeyError as error:
        raise ConversionError(
            f"This is no SVTRv2 checkpoint of the paper's architecture: it has no {error.args[0]}. Its keys begin with "
            f"{', '.join(sorted({'.'.join(key.split('.')[:2]) for key in state_dict}))}."
        ) from error


def convert_state_dict(state_dict: Mapping[str, torch.Tensor], config: SVTRv2Config) -> dict[str, torch.Tensor]:
    """OpenOCR's state dict by our names.

    Raises:
        ConversionError: keys are left over, missing or of the wrong shape; all of them are named.
    """
    converted: dict[str, torch.Tensor] = {}
    problems = []
    for theirs, numbered in _number_blocks(state_dict).items():
        ours = next(
            (re.sub(pattern, name, numbered) for pattern, name in RENAMED if re.fullmatch(pattern, numbered)), None
        )
        if ours is None:
            problems.append(f"left over: {theirs} {tuple(state_dict[theirs].shape)}")
        elif "key+value" in ours:
            for name, half in zip(("key", "value"), state_dict[theirs].chunk(2), strict=True):
                converted[ours.replace("key+value", name)] = half.clone()
        else:
            converted[ours] = state_dict[theirs]
    with torch.device("meta"):
        expected = SVTRv2ForCTC(config).state_dict()
    for name, tensor in expected.items():
        if name not in converted:
            problems.append(f"missing: what becomes {name} {tuple(tensor.shape)}")
        elif converted[name].shape != tensor.shape:
            problems.append(f"misshapen: {name} is {tuple(converted[name].shape)}, not {tuple(tensor.shape)}")
    problems += [f"left over: what becomes {name}" for name in converted.keys() - expected.keys()]
    if problems:
        raise ConversionError("The checkpoint does not fit SVTRv2:\n  " + "\n  ".join(problems))
    return converted


def _number_blocks(state_dict: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Their keys -> the same with blocks numbered without gaps and one name for each decoder.

    A stage of theirs that goes over from convolution to attention counts the layer that flattens the map as a block.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for key in state_dict:
        if found := re.match(r"(encoder\.stages\.\d+\.blocks\.)(\d+)\.", key):
            numbers[found[1]].add(int(found[2]))
    renumbered = {
        f"{prefix}{old}.": f"{prefix}{new}."
        for prefix, olds in numbers.items()
        for new, old in enumerate(sorted(olds))
    }
    result = {}
    for key in state_dict:
        found = re.match(r"encoder\.stages\.\d+\.blocks\.\d+\.", key)
        name = key.replace(found[0], renumbered[found[0]]) if found else key
        name = re.sub(r"^decoder\.gtc_decoder\.", "guidance.", name)
        name = re.sub(r"^decoder\.(ctc_decoder\.)?", "ctc.", name)
        result[key] = name
    return result


def convert(
    checkpoint: str | Path, output: str | Path, charset: Sequence[str] | None = None, max_ratio: int | None = None
) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """Writes the Hub folder of an OpenOCR checkpoint: weights, configuration, tokenizer, processor and code.

    Args:
        checkpoint: the `.pth` or `.safetensors` file, or `hub:OWNER/REPOSITORY/FILE`.
        output: the folder to write.
        charset (`list[str]`, *optional*): characters in the order of the head; by default the 94 of the English models. For the
            'server' model, the space comes last if it is missing, as upstream adds it to the list in its file.
        max_ratio (`int`, *optional*): largest width in units of the height; by default 12 where there is a guidance branch
            and 4 where there is none, as the published models were trained; 40 for the 'server' model, which knows no limit.

    Returns:
        What was written.

    Raises:
        ConversionError: the checkpoint is no SVTRv2, or the charset does not fit its head.
    """
    state_dict = load_checkpoint(local_file(checkpoint))
    config = infer_config(state_dict)
    characters = list(ENGLISH_94 if charset is None else charset)
    if config.neck == "mixing" and len(characters) + 2 == config.vocab_size and " " not in characters:
        characters.append(" ")
    if len(characters) + 1 != config.vocab_size:
        whose = "The default charset of 94 printable ASCII characters" if charset is None else "The charset"
        raise ConversionError(
            f"{whose} has {len(characters)} characters, but the head of {checkpoint} scores {config.vocab_size - 1} and the "
            "blank. Pass the character list that it was trained with, one character a line (--charset FILE; a space, "
            "where the model knows one, is a line of its own, usually the last)."
        )
    if max_ratio is None:
        max_ratio = 40 if config.neck == "mixing" else 12 if config.use_guidance else 4
    processor_class = SVTRv2ServerImageProcessor if config.neck == "mixing" else SVTRv2ImageProcessor
    image_processor = processor_class(max_ratio, pixels_per_frame=config.pixels_per_frame)
    model = SVTRv2ForCTC(config)
    model.load_state_dict(convert_state_dict(state_dict, config))
    model.eval().save_pretrained(output)
    processor = SVTRv2Processor(image_processor, build_tokenizer(characters))
    processor.save_pretrained(output)
    return model, processor
