# SPDX-License-Identifier: Apache-2.0
"""PP-OCRv6 with RapidOCR, whose package includes the weights."""

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from PIL import Image

from .peer import Peer, Settings, UnavailableError


class RapidOcr(Peer):
    """The steps of `RapidOCR()(image, use_det=False, use_cls=False)`, which takes a single image, for a list of images."""

    name = "PP-OCRv6 small, RapidOCR"
    packages = ("rapidocr", "onnxruntime")
    trained = True

    def __init__(self, settings: Settings):
        try:
            from rapidocr import RapidOCR
        except ImportError as error:
            raise UnavailableError(f"pip install {' '.join(self.packages)} ({error})") from error
        self.versions = {package: version(package) for package in self.packages}
        self.note = (
            f"{', '.join(f'{name} {number}' for name, number in self.versions.items())}, trained weights; 48 pixels high and at least 320 "
            "wide, as in RapidOCR"
        )
        self.engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Rec.rec_batch_num": 32,
                "EngineConfig.onnxruntime.intra_op_num_threads": settings.threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )

    def read(self, images: Sequence[Image.Image]) -> list[str]:
        blue_first = [np.ascontiguousarray(np.asarray(image)[:, :, ::-1]) for image in images]
        return list(self.engine.recognize_txt([self.engine.preprocess_img(image)[0] for image in blue_first]).txts)
