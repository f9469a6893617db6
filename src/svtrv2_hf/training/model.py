# SPDX-License-Identifier: Apache-2.0
"""The model that a run begins with: new, or a saved one, for its own charset or another."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..charsets import ENGLISH_94, build_tokenizer, charset_of, read_charset
from ..checkpoint import checkpoint_folder, load_model_and_processor
from ..configuration_svtrv2 import PRESETS, SVTRv2Config
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, SVTRv2ServerImageProcessor
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..processing_svtrv2 import SVTRv2Processor
from .arguments import DataAndModelArguments


WIDTH_MULTIPLE = 32  # pixels, of images of a fixed height


def model_and_processor(chosen: DataAndModelArguments) -> tuple[SVTRv2ForCTC, SVTRv2Processor]:
    """A new model of a size, or a saved one made to fit what the arguments ask for.

    Raises:
        OSError, ValueError: there is neither such a size nor such a folder, or no such charset.
    """
    charset = None if chosen.charset is None else read_charset(chosen.charset, chosen.normalize)
    if chosen.model in PRESETS:
        charset = list(ENGLISH_94) if charset is None else charset
        config = SVTRv2Config.preset(chosen.model, vocab_size=len(charset) + 1, use_guidance=bool(chosen.use_guidance))
        processor = SVTRv2Processor(SVTRv2ImageProcessor(), build_tokenizer(charset))
        model = SVTRv2ForCTC(config)
    else:
        folder = _saved(chosen.model)
        guidance = {} if chosen.use_guidance is None else {"use_guidance": chosen.use_guidance}
        # whatever it was saved in: half of the steps of training would be lost to the rounding of bfloat16
        model, processor = load_model_and_processor(folder, dtype=torch.float32, **guidance)
        known = charset_of(processor.tokenizer)
        if charset is not None and charset != known:
            model = adapt_to_charset(model, known, charset)
            processor = SVTRv2Processor(processor.image_processor, build_tokenizer(charset))
    if chosen.max_ratio is not None:
        processor.image_processor.max_ratio = chosen.max_ratio
    share_widths(processor.image_processor)
    return model, processor


def share_widths(image_processor: SVTRv2ImageProcessor) -> None:
    """Rounds up the widths of images of a fixed height: each would be a bucket of its own, and most would never be full."""
    if isinstance(image_processor, SVTRv2ServerImageProcessor):
        image_processor.width_multiple = max(image_processor.width_multiple, WIDTH_MULTIPLE)


def _saved(name: str) -> str:
    try:
        return checkpoint_folder(name)
    except ValueError as error:
        if Path(name).exists():
            raise
        raise ValueError(
            f"--model {name} is no size ({', '.join(PRESETS)}), not default, the package's own, and no folder; nor can it be a name "
            "on the Hub, which is written OWNER/NAME."
        ) from error


@torch.no_grad()
def adapt_to_charset(model: SVTRv2ForCTC, known: Sequence[str], charset: Sequence[str]) -> SVTRv2ForCTC:
    """A model for another charset that keeps everything else, and what `model` knows of the characters they share.

    In the head, a new character begins as the average of the known ones, which says "a character, but not which", and a
    little noise; in the guidance branch, as in a new model.

    Args:
        model: as trained for `known`.
        known: its characters, in the order of its head.
        charset: the characters that the new model is to know.

    Raises:
        ValueError: `known` is not the model's charset.
    """
    if model.config.vocab_size != len(known) + 1:
        raise ValueError(f"The model scores {model.config.vocab_size - 1} characters, the charset has {len(known)}.")
    config = type(model.config).from_dict({**model.config.to_dict(), "vocab_size": len(charset) + 1})
    adapted = SVTRv2ForCTC(config)
    ids = {character: number for number, character in enumerate(known, start=1)}
    shared = {number: ids[character] for number, character in enumerate(charset, start=1) if character in ids}
    kept = {0: 0, **shared}
    before = model.state_dict()
    characters = before["head.weight"][1:]
    for name, tensor in adapted.state_dict().items():
        old = before[name]
        if name in ("head.weight", "head.bias"):
            mean, std = old[1:].mean(0), characters.std()
            tensor[1:] = mean + (0.1 * std * torch.randn_like(tensor[1:]) if old.ndim > 1 else 0.0)
            rows = kept
        elif name in ("guidance.character_embedding.weight", "guidance.head.weight", "guidance.head.bias"):
            # behind the characters come entries that stand for no character
            others = len(old) - len(known) - 1
            rows = {**kept, **{len(charset) + 1 + i: len(known) + 1 + i for i in range(others)}}
        else:
            tensor.copy_(old)
            continue
        tensor[list(rows)] = old[list(rows.values())]
    return adapted
