# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments of the trainer, which honors or refuses each of them."""

from collections.abc import Mapping
from typing import Any

from ..data.batches import TrainingBatches
from ..data.collator import SVTRv2DataCollator


USE_TRAINER = "use transformers' Trainer with svtrv2_hf.SVTRv2DataCollator."
REFUSED = {
    "model_init": f"averages, frozen stages and checkpoints refer to one model: pass a model, or {USE_TRAINER}",
    "compute_loss_func": "evaluation would use another loss: override compute_loss in a subclass.",
}


def check_trainer(
    model: Any, processing_class: Any, data_collator: Any, train_dataset: Any, others: Mapping[str, Any]
) -> None:
    """Check arguments of [`SVTRv2Trainer`].

    Raises:
        ValueError: an argument is missing or cannot be honored.
    """
    for name, reason in REFUSED.items():
        if others.get(name) is not None:
            raise ValueError(f"{name} is not supported: {reason}")
    if hasattr(model, "peft_config"):
        raise ValueError(
            f"SVTRv2Trainer resumes from complete checkpoints, not from adapters such as {type(model).__name__}: {USE_TRAINER}"
        )
    if not (hasattr(processing_class, "image_processor") and hasattr(processing_class, "tokenizer")):
        raise ValueError(f"processing_class must be the SVTRv2Processor of the model, not {processing_class!r}.")
    if data_collator is not None and not isinstance(data_collator, SVTRv2DataCollator):
        raise ValueError(
            "data_collator must be a SVTRv2DataCollator, whose columns and label rules apply, since the trainer forms batches of "
            f"one image size itself. For a custom collator, {USE_TRAINER}"
        )
    if data_collator is not None and isinstance(train_dataset, TrainingBatches):
        raise ValueError("data_collator has no effect on training batches, which have their own label rules: omit it.")
