# SPDX-License-Identifier: Apache-2.0
"""Reads labelled images with a model and adds up how well."""

from collections.abc import Iterable
from typing import Any

import torch

from ..charsets import charset_of
from ..data.buckets import pixel_values_of
from ..data.labels import LabelEncoder, RejectedSampleError
from ..modeling_svtrv2 import SVTRv2ForCTC, ctc_loss
from ..processing_svtrv2 import SVTRv2Processor, pad_labels
from .metrics import Protocol, Score, compare


@torch.no_grad()
def evaluate(
    model: SVTRv2ForCTC, processor: SVTRv2Processor, batches: Iterable[dict[str, Any]], protocol: Protocol = "english"
) -> Score:
    """Reads the batches of [`EvaluationBatches`] by the best path, and scores them.

    Only sums are kept, never logits, so that neither the number of samples nor the charset costs memory. The model is put
    into evaluation mode and back. Its loss is CTC's alone, also where there is a guidance branch.
    """
    training = model.training
    model.eval()
    charset = charset_of(processor.tokenizer)
    encoder = LabelEncoder(charset, max_length=10**9, unknown_characters="drop_sample")
    score = Score()
    for batch in batches:
        score += Score(samples=batch["unreadable"], unreadable=batch["unreadable"])
        if not batch["texts"]:
            continue
        output = model(pixel_values_of(batch["pixels"].to(model.device)))
        paths = output.logits.argmax(-1).cpu()
        readings = ["".join(charset[i - 1] for i in path.unique_consecutive().tolist() if i) for path in paths]
        score += compare(readings, batch["texts"], protocol)
        score += _loss(output, batch["texts"], encoder)
    model.train(training)
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
