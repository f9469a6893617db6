# SPDX-License-Identifier: Apache-2.0
"""This project's model with its processor."""

from collections.abc import Sequence

import torch
from PIL import Image

from .peer import Peer, Settings, count_parameters


class Ours(Peer):
    """Processor, model and post-processing, as in the README."""

    name = "svtrv2-hf"

    def __init__(self, settings: Settings):
        self.model, self.processor = settings.model, settings.processor
        self.trained = settings.trained
        self.note = (
            f"{'trained' if self.trained else 'random'} weights; processor, model and post-processing of this project"
        )
        self.parameters = count_parameters(self.model)

    @torch.no_grad()
    def read(self, images: Sequence[Image.Image]) -> list[str]:
        outputs = self.model(**self.processor(list(images), return_tensors="pt"))
        return [prediction["text"] for prediction in self.processor.post_process_text_recognition(outputs)]
