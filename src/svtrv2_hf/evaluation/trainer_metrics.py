# SPDX-License-Identifier: Apache-2.0
"""Metrics for a plain `Trainer`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from transformers import EvalPrediction

from ..processing_svtrv2 import SVTRv2Processor


PADDING = -100  # of labels, and of the frames that `Trainer` adds to shorter batches


def predict_ids(logits: Any, labels: torch.Tensor | None = None) -> torch.Tensor:  # noqa: ARG001
    """Reduce logits (B, frames, vocab_size) to the most likely id of each frame (B, frames).

    Pass it to `Trainer` as `preprocess_logits_for_metrics`: the trainer then collects one id per frame instead of a score per class.
    """
    return (logits[0] if isinstance(logits, (tuple, list)) else logits).argmax(-1)


def make_compute_metrics(processor: SVTRv2Processor) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return a function for the argument `compute_metrics` of `Trainer`.

    It compares texts exactly, with case, punctuation and spaces, and takes logits or, with [`predict_ids`], frame ids. Characters of
    labels outside the charset count as errors. It returns

    - `word_accuracy`: share of images whose text is correct, 0 to 1;
    - `cer`: character error rate, the sum of edit distances divided by the number of characters of the labels, 0 or more;
    - `one_minus_ned`: mean of 1 - edit distance / length of the longer text, 0 to 1.
    """

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        frames = prediction.predictions
        frames = frames[0] if isinstance(frames, (tuple, list)) else frames
        if frames.ndim == 3:
            frames = np.where((frames == PADDING).all(-1), PADDING, frames.argmax(-1))
        predicted = processor.batch_decode(frames)
        expected = [_text(processor, label) for label in prediction.label_ids]
        edits = [Levenshtein.distance(a, b) for a, b in zip(predicted, expected, strict=True)]
        return {
            "word_accuracy": float(np.mean([edit == 0 for edit in edits])),
            "cer": sum(edits) / max(1, sum(map(len, expected))),
            "one_minus_ned": float(
                np.mean([Levenshtein.normalized_similarity(a, b) for a, b in zip(predicted, expected, strict=True)])
            ),
        }

    return compute_metrics


def _text(processor: SVTRv2Processor, label: np.ndarray) -> str:
    """Return a label as text, in which U+FFFD replaces characters outside the charset."""
    tokenizer = processor.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(label[label >= 0].tolist())
    return "".join("\ufffd" if token == tokenizer.unk_token else token for token in tokens)
