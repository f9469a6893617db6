# SPDX-License-Identifier: Apache-2.0
"""The initial model of a run: new, or a checkpoint, for its own charset or another."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..charsets import PRINTABLE_ASCII, build_tokenizer, charset_of, read_charset
from ..checkpoint import checkpoint_folder, load_model_and_processor
from ..configuration_svtrv2 import PRESETS, SVTRv2Config
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, SVTRv2ServerImageProcessor
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..processing_svtrv2 import SVTRv2Processor
from .arguments import DataAndModelArguments


WIDTH_MULTIPLE = 32  # pixels, for images with a fixed height


def model_and_processor(chosen: DataAndModelArguments) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """Return a new model of a size, or a checkpoint adapted to the arguments.

    Raises:
        OSError, ValueError: the model or the charset does not exist.
    """
    charset = None if chosen.charset is None else read_charset(chosen.charset, chosen.normalize)
    if chosen.model in PRESETS:
        charset = list(PRINTABLE_ASCII) if charset is None else charset
        config = SVTRv2Config.preset(chosen.model, vocab_size=len(charset) + 1, use_guidance=bool(chosen.use_guidance))
        processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(charset))
        model = SVTRv2ForCTC(config)
    else:
        guidance = {} if chosen.use_guidance is None else {"use_guidance": chosen.use_guidance}
        # always float32, because rounding to bfloat16 would lose half of the updates
        model, processor = load_model_and_processor(_folder(chosen.model), dtype=torch.float32, **guidance)
        known = charset_of(processor.tokenizer)
        if charset is not None and charset != known:
            model = adapt_to_charset(model, known, charset)
            processor = SVTRv2Processor(processor.image_processor, build_tokenizer(charset))
    if chosen.max_ratio is not None:
        processor.image_processor.max_ratio = chosen.max_ratio
    share_widths(processor.image_processor)
    return model, processor


def share_widths(image_processor: SVTRv2ImageProcessor) -> None:
    """Round up the widths of images with a fixed height, because most buckets of a single width would never be full."""
    if isinstance(image_processor, SVTRv2ServerImageProcessor):
        image_processor.width_multiple = max(image_processor.width_multiple, WIDTH_MULTIPLE)


def _folder(name: str) -> str:
    try:
        return checkpoint_folder(name)
    except ValueError as error:
        if Path(name).exists():
            raise
        raise ValueError(
            f"--model {name}: not a model size ({', '.join(PRESETS)}), an existing folder, default, or a Hub id (OWNER/NAME)."
        ) from error


@torch.no_grad()
def adapt_to_charset(model: SVTRv2ForCTC, known: Sequence[str], charset: Sequence[str]) -> SVTRv2ForCTC:
    """Return a model for another charset with the weights of `model`, including those of shared characters.

    In the head, a new character starts as the average of the known characters ("a character, but unknown which") with a little
    noise; in the guidance branch, as in a new model.

    Args:
        model: model for `known`.
        known: its charset, in the order of its head.
        charset: charset of the new model.

    Raises:
        ValueError: `known` does not match the model.
    """
    if model.config.vocab_size not in (
        len(known) + 1,
        len(known) + 2,
    ):  # with or without a class for the unknown token
        raise ValueError(f"The model scores {model.config.vocab_size - 1} characters, the charset has {len(known)}.")
    config = type(model.config).from_dict({**model.config.to_dict(), "vocab_size": len(charset) + 1})
    adapted = SVTRv2ForCTC(config)
    ids = {character: number for number, character in enumerate(known, start=1)}
    shared = {number: ids[character] for number, character in enumerate(charset, start=1) if character in ids}
    kept = {0: 0, **shared}
    before = model.state_dict()
    for name, tensor in adapted.state_dict().items():
        old, rows = before[name], kept
        if name in ("head.weight", "head.bias"):
            noise = 0.1 * old[1:].std() * torch.randn_like(tensor[1:]) if old.ndim > 1 else 0.0
            tensor[1:] = old[1:].mean(0) + noise
        elif name in ("guidance.character_embedding.weight", "guidance.head.weight", "guidance.head.bias"):
            # special tokens follow the characters
            others = len(old) - model.config.vocab_size
            rows = {**kept, **{len(charset) + 1 + i: model.config.vocab_size + i for i in range(others)}}
        else:
            tensor.copy_(old)
            continue
        tensor[list(rows)] = old[list(rows.values())]
    return adapted
