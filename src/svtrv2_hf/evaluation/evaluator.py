# SPDX-License-Identifier: Apache-2.0
"""Reads labelled images with a model, one by one or adding up how well."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from ..charsets import charset_of
from ..data.batches import pixel_values_of
from ..data.labels import LabelEncoder, RejectedSampleError
from ..data.sample import Sample
from ..modeling_svtrv2 import SVTRv2ForCTC, ctc_loss
from ..pipeline_svtrv2 import evaluation_mode
from ..processing_svtrv2 import SVTRv2Processor, pad_labels
from .metrics import Protocol, Score, compare


@dataclass(frozen=True)
class Prediction:
    """The recognized text of one labeled image.

    Attributes:
        sample: the image as it is stored, its label, and its name.
        text: the recognized text; empty if the image is unreadable.
        score: confidence, 0 to 1.
        characters: characters of the text from left to right: {"text", "score", "start", "end"}, in pixels of the original image.
        size: width and height of the original image in pixels; `None` if it is unreadable.
        error: why the image is unreadable, or `None`.
    """

    sample: Sample
    text: str
    score: float = 0.0
    characters: list[dict[str, Any]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    error: str | None = None


@torch.no_grad()
def read(model: SVTRv2ForCTC, processor: SVTRv2Processor, batches: Iterable[dict[str, Any]]) -> Iterator[Prediction]:
    """Recognizes the text of the batches of [`EvaluationBatches`] with best-path decoding."""
    for batch in batches:
        for sample, error in batch["unreadable"]:
            yield Prediction(sample, "", error=error)
        if not batch["samples"]:
            continue
        with evaluation_mode(model):
            output = model(pixel_values_of(batch["pixels"].to(model.device)).to(model.dtype))
        sizes = [(height, width) for width, height in batch["sizes"]]
        found = processor.post_process_text_recognition(output, target_sizes=sizes, return_characters=True)
        for sample, size, reading in zip(batch["samples"], batch["sizes"], found, strict=True):
            yield Prediction(sample, reading["text"], reading["score"], reading["characters"], size)


@torch.no_grad()
def evaluate(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    batches: Iterable[dict[str, Any]],
    protocol: Protocol = "english",
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Score:
    """Reads the batches of [`EvaluationBatches`] by the best path, and scores them.

    Only sums are kept, never logits, so that neither the number of samples nor the charset costs memory. The model computes
    in evaluation mode and is in its former mode afterwards. Its loss is CTC's alone, also where there is a guidance branch.

    Args:
        autocast: the context that the model is called in. The batches are made outside of it, for they may be drawn.
    """
    charset = charset_of(processor.tokenizer)
    encoder = LabelEncoder(charset, max_length=10**9, unknown_characters="drop_sample")
    score = Score()
    for batch in batches:
        unreadable = len(batch["unreadable"])
        score += Score(samples=unreadable, unreadable=unreadable)
        if not batch["samples"]:
            continue
        texts = [sample.text for sample in batch["samples"]]
        with autocast(), evaluation_mode(model):
            output = model(pixel_values_of(batch["pixels"].to(model.device)))
        paths = output.logits.argmax(-1).cpu()
        readings = ["".join(charset[i - 1] for i in path.unique_consecutive().tolist() if i) for path in paths]
        score += compare(readings, texts, protocol)
        score += _loss(output, texts, encoder)
    return score


def _loss(output: Any, texts: list[str], encoder: LabelEncoder) -> Score:
    rows, labels = [], []
    for row, text in enumerate(texts):
        try:
            labels.append(encoder.encode(text))
            rows.append(row)
        except RejectedSampleError:
            pass  # it has no loss, and `loss_samples` tells
    if not rows:
        return Score()
    losses, unalignable = ctc_loss(
        output.logits[rows],
        output.logits_lengths[rows],
        torch.from_numpy(pad_labels(labels)).to(output.logits.device),
        blank=0,
    )
    return Score(loss=losses.sum().item(), loss_samples=(~unalignable).sum().item())
