# SPDX-License-Identifier: Apache-2.0
"""Collation of images and texts for a plain `Trainer` or a training loop of your own."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any

import torch
from transformers.image_processing_utils import BatchFeature

from ..charsets import charset_of
from ..image_loading_svtrv2 import load_rgb
from ..processing_svtrv2 import SVTRv2Processor, pad_labels
from .labels import LabelEncoder, RejectedSampleError, Rejection, UnknownCharacters, frames_needed


def check_processor(processor: Any) -> None:
    """Raise a TypeError for another object than a processor."""
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise TypeError(
            f"Expected the processor of a model, not an object of type {type(processor).__name__}: pass "
            "AutoProcessor.from_pretrained(...)."
        )


class SVTRv2DataCollator:
    """Collate rows of a dataset into a batch for [`SVTRv2ForCTC`].

    The images of a batch may differ in size. With `Trainer`, set `remove_unused_columns=False`, so that the rows keep their images.

    Args:
        processor ([`SVTRv2Processor`]): processor of the model.
        image_column (`str`, *optional*, defaults to `"image"`): column with images, in any form that [`load_rgb`] takes.
        text_column (`str`, *optional*, defaults to `"text"`): column with labels.
        max_label_length (`int`, *optional*): skip samples whose label has more characters.
        unknown_characters (`str`, *optional*, defaults to `"error"`): handling of labels with characters outside the charset:
            raise an error (`"error"`), skip the sample (`"drop_sample"`) or remove the characters (`"drop_character"`).

    Attributes:
        skipped (`Counter[str]`): number of skipped samples by reason: `"empty"`, `"too_long"`, `"unknown_characters"`, and
            `"unalignable"` for labels with more characters than their image has frames. Each data-loading worker counts its own.
    """

    def __init__(
        self,
        processor: SVTRv2Processor,
        image_column: str = "image",
        text_column: str = "text",
        max_label_length: int | None = None,
        unknown_characters: UnknownCharacters = "error",
    ):
        check_processor(processor)
        self.processor = processor
        self.image_column = image_column
        self.text_column = text_column
        charset = charset_of(processor.tokenizer)
        self.encoder = LabelEncoder(charset, max_label_length, unknown_characters)
        self.skipped: Counter[str] = Counter()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> BatchFeature:
        """Return `pixel_values` (B, 3, H, W), `image_sizes` (B, 2) and `labels` (B, longest label), padded with -100.

        Raises:
            ValueError: a row lacks a column, a label has characters outside the charset, or all samples of the batch are skipped.
            TypeError: a row is not a mapping, or a label is not a string.
            UnreadableImageError: an image cannot be decoded.
        """
        images, labels, reasons = [], [], Counter[str]()
        for row in rows:
            self._check_row(row)
            try:
                image = load_rgb(row[self.image_column])
                labels.append(self._encode(row[self.text_column] or "", image.size))
                images.append(image)
            except RejectedSampleError as error:
                reasons[str(error.reason)] += 1
        self.skipped += reasons
        if not rows:
            raise ValueError("The batch has no rows.")
        if not images:
            counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
            raise ValueError(f"All {len(rows)} samples of a batch were skipped ({counts}): check their labels.")
        batch = self.processor(images=images, return_tensors="pt")
        batch["labels"] = torch.from_numpy(pad_labels(labels))
        return batch

    def _check_row(self, row: Any) -> None:
        if not isinstance(row, Mapping):
            raise TypeError(f"Expected rows with columns, not an object of type {type(row).__name__}.")
        for column in (self.image_column, self.text_column):
            if column not in row:
                hint = ""
                if not row:
                    hint = " Set remove_unused_columns=False in the training arguments."
                elif "pixel_values" in row:
                    hint = " The collator applies the processor: pass images and texts."
                raise ValueError(f"Column {column!r} not found in the row; its columns are {sorted(row)}.{hint}")
        text = row[self.text_column]
        if not isinstance(text, (str, NoneType)):
            raise TypeError(
                f"Column {self.text_column!r} has the label {text!r} of type {type(text).__name__}: load labels as strings, since "
                "numbers lose leading zeros."
            )

    def _encode(self, text: str, size: tuple[int, int]) -> list[int]:
        ids = self.encoder.encode(text)
        processor = self.processor.image_processor
        frames = processor.target_size(*size)[1] // processor.pixels_per_frame
        if frames_needed(ids) > frames:
            raise RejectedSampleError(
                Rejection.UNALIGNABLE, f"{text!r} needs {frames_needed(ids)} frames, the image has {frames}"
            )
        return ids
