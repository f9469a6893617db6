# SPDX-License-Identifier: Apache-2.0
"""Prediction of the texts of labeled images."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from ..data.batches import pixel_values_of
from ..data.sample import Sample
from ..modeling_svtrv2 import SVTRv2CTCOutput, SVTRv2ForCTC, ctc_loss
from ..pipeline_svtrv2 import evaluation_mode
from ..processing_svtrv2 import SVTRv2Processor, pad_labels
from ..runtime.model import SVTRv2ForCTCRuntime
from .metrics import Score, compare
from .protocols import EvaluationProtocol, normalize_text


@dataclass(frozen=True)
class Prediction:
    """The recognized text of one labeled image.

    Attributes:
        sample: the image as it is stored, its label, and its name.
        text: the recognized text; empty if the image is unreadable.
        score: confidence, 0 to 1.
        characters: characters of the text from left to right: {"text", "score", "start", "end"}, in pixels of the original image.
        size: width and height of the original image in pixels; `None` if it is unreadable.
        loss: CTC loss; `None` if it was not requested, or the label is empty, not in the charset, or too long for the image.
        error: why the image is unreadable, or `None`.
    """

    sample: Sample
    text: str
    score: float = 0.0
    characters: list[dict[str, Any]] = field(default_factory=list)
    size: tuple[int, int] | None = None
    loss: float | None = None
    error: str | None = None


@torch.no_grad()
def predict(
    model: SVTRv2ForCTC | SVTRv2ForCTCRuntime,
    processor: SVTRv2Processor,
    batches: Iterable[dict[str, Any]],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    with_characters: bool = True,
    with_loss: bool = False,
    on_output: Callable[[dict[str, Any], SVTRv2CTCOutput], None] | None = None,
) -> Iterator[Prediction]:
    """Predict the texts of the batches of [`EvaluationBatches`] with best-path decoding.

    The model predicts in evaluation mode and has its previous mode afterwards.

    Args:
        model: the model.
        processor: processor of the model.
        batches: batches of labeled images.
        autocast: returns the context of each forward pass.
        with_characters: locate the characters of each text.
        with_loss: compute the CTC loss of each sample.
        on_output: called with each batch that has images, and the output of the model.
    """
    for batch in batches:
        for sample, error in batch["unreadable"]:
            yield Prediction(sample, "", error=error)
        samples, sizes = batch["samples"], batch["sizes"]
        if not samples:
            continue
        with autocast(), evaluation_mode(model):
            output = model(pixel_values_of(batch["pixels"].to(model.device)))
        if on_output is not None:
            on_output(batch, output)
        target_sizes = [(height, width) for width, height in sizes]
        results = processor.post_process_text_recognition(output, target_sizes, return_characters=with_characters)
        losses: list[float | None] = [None] * len(samples)
        if with_loss:
            losses = _losses(output, [sample.text for sample in samples], processor, model.config.blank_token_id)
        for sample, size, result, loss in zip(samples, sizes, results, losses, strict=True):
            yield Prediction(sample, result["text"], result["score"], result.get("characters", []), size, loss)


def _losses(output: Any, texts: list[str], processor: SVTRv2Processor, blank: int) -> list[float | None]:
    tokenizer = processor.tokenizer
    labels = [tokenizer.convert_tokens_to_ids(list(text)) for text in texts]
    rows = [row for row, ids in enumerate(labels) if ids and tokenizer.unk_token_id not in ids]
    result: list[float | None] = [None] * len(texts)
    if rows:
        padded = torch.from_numpy(pad_labels([labels[row] for row in rows])).to(output.logits.device)
        losses, unalignable = ctc_loss(output.logits[rows], output.logits_lengths[rows], padded, blank)
        for row, loss, excluded in zip(rows, losses.tolist(), unalignable.tolist(), strict=True):
            result[row] = None if excluded else loss
    return result


def score_prediction(prediction: Prediction, protocol: EvaluationProtocol) -> Score:
    """Score one prediction.

    An unreadable image is an error, even if its label has no compared characters, and all characters of its label are missing.
    """
    label = prediction.sample.text
    if prediction.size is None:
        missing = len(normalize_text(label, protocol))
        return Score(samples=1, unreadable=1, edits=missing, characters=missing, emptied=not missing)
    score = compare([prediction.text], [label], protocol)
    if prediction.loss is not None:
        score.loss, score.loss_samples = prediction.loss, 1
    return score


def score_predictions(predictions: Iterable[Prediction], protocol: EvaluationProtocol = "exact") -> Score:
    """Sum up the scores of predictions."""
    return sum((score_prediction(prediction, protocol) for prediction in predictions), Score())
