# SPDX-License-Identifier: Apache-2.0
"""Training batches of synthetic text, rendered directly as tensors."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, count
from typing import Any

import torch

from ..data.batches import Counts, Progress, TrainingBatches, Waiting
from ..data.labels import LabelEncoder
from ..image_processing_svtrv2 import SVTRv2ImageProcessor
from ..processing_svtrv2 import pad_labels
from .frame_labels import UNKNOWN, frame_labels
from .renderer import Renderer
from .source import CHUNK, SyntheticSource


class SyntheticBatches(TrainingBatches):
    """Training batches rendered directly as tensors, without encoding images.

    Args:
        source: source of texts and images.
        encoder, image_processor, batch_size, seed: see [`TrainingBatches`].
        device: device to render on. A GPU requires a data loader without workers.
        with_frame_labels: add `frame_labels` to the batches; see [`frame_labels`].
    """

    def __init__(
        self,
        source: SyntheticSource,
        encoder: LabelEncoder,
        image_processor: SVTRv2ImageProcessor,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        with_frame_labels: bool = False,
    ):
        super().__init__([source.name], encoder, image_processor, batch_size, seed)
        self.source = source
        self.num_samples = source.num_samples
        self.device = torch.device(device)
        self.with_frame_labels = with_frame_labels

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "fingerprints": [self.source.fingerprint]}

    def samples(self, part: int, parts: int, counts: Counts, done: Progress) -> Iterator[Waiting | None]:
        waiting, first = set(done.waiting), done.read // CHUNK
        before = sorted({number // CHUNK for number in waiting if number // CHUNK < first})
        chunks = chain(before, count(first))
        for planned in self.source.plan(self._renderer, self.image_processor, self.seed, part, parts, chunks):
            chunk, offset = divmod(planned.number, CHUNK)
            number = (chunk - part) // parts * CHUNK + offset
            if number >= done.read or number in waiting:
                yield self.accept(number, planned.text, lambda item=planned: (item, item.size), 0, counts)  # type: ignore[misc]

    def make_batch(self, waiting: Sequence[Waiting], counts: Counts) -> dict[str, torch.Tensor]:  # noqa: ARG002
        texts = [sample.item.text for sample in waiting]
        indices = torch.tensor([sample.item.number for sample in waiting])
        rendered = self._renderer.render(texts, waiting[0].size, self.seed, indices)
        labels = torch.from_numpy(pad_labels([sample.ids for sample in waiting]))
        batch = {"pixels": rendered.pixels, "labels": labels}
        if self.with_frame_labels:
            width, per_frame = waiting[0].size[1], self.image_processor.pixels_per_frame
            batch["frame_labels"] = frame_labels(rendered.centers, labels, width, per_frame)
            # If characters were dropped, the positions no longer match the labels.
            dropped = torch.tensor([len(sample.ids) != len(sample.item.text) for sample in waiting])
            batch["frame_labels"][dropped] = UNKNOWN
        return batch

    @cached_property
    def _renderer(self) -> Renderer:
        return self.source.renderer(self.device)
