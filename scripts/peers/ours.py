# SPDX-License-Identifier: Apache-2.0
"""This project's model, by its processor, and the same compiled."""

from collections.abc import Sequence

import torch
from PIL import Image

from svtrv2_hf.evaluation.speed import compile_for_reading

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
    """One image at a time: a batch of several sizes is no single graph."""

    name = "ours compiled"
    note = "the same by torch.compile, a graph for each image size, which take about half a minute each"
    batches = False

    def __init__(self, settings: Settings):
        super().__init__(settings)
        torch._dynamo.config.cache_size_limit = 64  # sizes of images, of which torch expects no more than 8
        self.compiled = compile_for_reading(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        readings = []
        for image in images:
            outputs = self.compiled(self.processor(image, return_tensors="pt")["pixel_values"])
            readings += self.processor.post_process_text_recognition(outputs)
        return [reading["text"] for reading in readings]
