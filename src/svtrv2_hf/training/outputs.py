# SPDX-License-Identifier: Apache-2.0
"""Outputs of the model for the samples of a dataset, in its order, for `predict` and `compute_metrics`."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from ..data.sample import IndexedSource, Sample, Source
from ..evaluation.prediction import Prediction
from ..processing_svtrv2 import pad_labels


class NumberedSample(NamedTuple):
    """A [`Sample`] with its number in the dataset; torch copies samples without other attributes."""

    image: bytes
    text: str
    name: str
    number: int


class NumberedSource(Source):
    """A source whose samples are [`NumberedSample`]."""

    weight = None

    def __init__(self, source: Source):
        self.source, self.name, self.num_samples = source, source.name, source.num_samples

    def read(self, part: int = 0, parts: int = 1, seed: int | None = None, epoch: int = 0) -> Iterator[Sample]:
        assert seed is None and not epoch
        if parts == 1 or isinstance(self.source, IndexedSource):
            samples = self.source.read(part, parts)
        else:  # a part may consist of shards, not of every nth sample
            samples = islice(self.source.read(), part, None, parts)
        for number, sample in enumerate(samples):
            yield cast(Sample, NumberedSample(*sample, number * parts + part))

    def texts(self) -> Iterator[str]:
        return self.source.texts()


class Outputs:
    """Outputs of the model and labels of the samples of a [`NumberedSource`], in the order of the dataset.

    Args:
        tokenizer: converts labels to ids; characters outside the charset become the unknown token.
        preprocess: as `preprocess_logits_for_metrics` of `Trainer`.
    """

    def __init__(self, tokenizer: Any, preprocess: Any = None):
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.rows: dict[int, tuple[list[np.ndarray] | None, list[int]]] = {}  # arrays of a sample, and its label

    def add(self, batch: dict[str, Any], output: Any) -> None:
        """Keep the outputs of a batch."""
        ids = [self._ids(sample) for sample in batch["samples"]]
        result = output.logits
        if self.preprocess is not None:
            result = self.preprocess(result, torch.from_numpy(pad_labels(ids)).to(result.device))
        parts = [part.detach().cpu() for part in (result if isinstance(result, (tuple, list)) else [result])]
        arrays = [(part.float() if part.is_floating_point() else part).numpy() for part in parts]
        for row, (sample, label) in enumerate(zip(batch["samples"], ids, strict=True)):
            self.rows[sample.number] = [array[row] for array in arrays], label

    def with_unreadable(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yield the predictions, and keep the labels of unreadable images, whose outputs consist of padding."""
        for prediction in predictions:
            if prediction.size is None:
                sample = cast(Any, prediction.sample)
                self.rows[sample.number] = None, self._ids(sample)
            yield prediction

    def _ids(self, sample: Sample) -> list[int]:
        return self.tokenizer.convert_tokens_to_ids(list(sample.text))

    @staticmethod
    def arrays(rows: Mapping[int, tuple[list[np.ndarray] | None, list[int]]]) -> tuple[Any, np.ndarray]:
        """Return the outputs of all samples, an array or a tuple of arrays padded with -100, and the labels likewise."""
        outputs, labels = zip(*(rows[number] for number in sorted(rows)), strict=True)
        example = next((output for output in outputs if output is not None), [np.zeros(0, np.int64)])
        combined = []
        for part, first in enumerate(example):
            given = [(row, output[part]) for row, output in enumerate(outputs) if output is not None]
            sizes = zip(*(array.shape for _, array in given or [(0, first)]), strict=True)
            padded = np.full((len(outputs), *map(max, sizes)), -100, first.dtype)
            for row, array in given:
                index: Any = (row, *map(slice, array.shape))
                padded[index] = array
            combined.append(padded)
        return combined[0] if len(combined) == 1 else tuple(combined), pad_labels(labels)
