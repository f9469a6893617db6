# SPDX-License-Identifier: Apache-2.0
"""Metrics for a plain `Trainer`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from ..data.collator import check_processor
from ..processing_svtrv2 import SVTRv2Processor
from .metrics import compare


PADDING = -100  # of labels, and of the frames that `Trainer` adds to shorter batches


def predict_ids(logits: Any, labels: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG001
    """Reduce logits (B, frames, vocab_size) to the most likely id of each frame (B, frames).

    Pass it to `Trainer` as `preprocess_logits_for_metrics`: the trainer then collects one id per frame instead of a score per class.
    """
    return (logits[0] if isinstance(logits, (tuple, list)) else logits).argmax(-1)


def make_compute_metrics(processor: SVTRv2Processor) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return a function for the argument `compute_metrics` of `Trainer`.

    It compares texts under the protocol "exact", and takes logits or, with [`predict_ids`], frame ids. Characters of labels outside
    the charset count as errors. It returns

    - `word_accuracy`: share of images whose text is correct, 0 to 1;
    - `cer`: character error rate, the sum of edit distances divided by the number of characters of the labels, 0 or more; lower is
      better, so set `greater_is_better=False` if you select the best model by it;
    - `one_minus_ned`: mean of 1 - edit distance / length of the longer text, 0 to 1.
    """
    check_processor(processor)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        outputs, labels = prediction.predictions, prediction.label_ids
        if not isinstance(outputs, list):  # with eval_do_concat_batches=False, lists have an item for each batch
            outputs, labels = [outputs], [labels]
        predicted: list[str] = []
        for frames in outputs:
            frames = frames[0] if isinstance(frames, tuple) else frames
            if frames.ndim == 3:
                frames = np.where((frames == PADDING).all(-1), PADDING, frames.argmax(-1))
            predicted += processor.batch_decode(frames)
        expected = [_text(processor, label) for batch in labels for label in batch]
        score = compare(predicted, expected)
        return {"word_accuracy": score.word_accuracy, "cer": score.cer, "one_minus_ned": score.one_minus_ned}

    return compute_metrics


def _text(processor: SVTRv2Processor, label: np.ndarray) -> str:
    """Return a label as text, in which U+FFFD replaces characters outside the charset."""
    tokenizer = processor.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(label[label >= 0].tolist())
    return "".join("\ufffd" if token == tokenizer.unk_token else token for token in tokens)
