# SPDX-License-Identifier: Apache-2.0
"""This project's model, by its processor, and the same compiled."""

from collections.abc import Sequence

import torch
from PIL import Image

from svtrv2_hf.evaluation.speed import GRAPHS, compile_for_reading, logits_by_size

from .peer import Peer, Settings, count_parameters


class Ours(Peer):
    """Processor, model, processor: as in the README."""

    name = "ours"
    note = "processor, model and post-processing of this project, eager"

    def __init__(self, settings: Settings):
        self.model, self.processor = settings.model, settings.processor
        self.trained = settings.trained
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        outputs = self.model(**self.processor(list(images), return_tensors="pt"))
        return [reading["text"] for reading in self.processor.post_process_text_recognition(outputs)]


class OursCompiled(Ours):
    """Images of one size at a time, since each size has graphs of its own."""

    name = "ours compiled"
    note = "the same by torch.compile, graphs for each image size, which take about half a minute"

    def __init__(self, settings: Settings):
        super().__init__(settings)
        torch._dynamo.config.cache_size_limit = GRAPHS
        self.compiled = compile_for_reading(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        prepared = [self.processor.image_processor.prepare(image) for image in images]
        logits = logits_by_size(self.compiled, prepared, self.model.device, self.model.dtype)
        readings = [self.processor.post_process_text_recognition({"logits": frames[None]})[0] for frames in logits]
        return [reading["text"] for reading in readings]
