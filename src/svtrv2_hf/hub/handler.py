# SPDX-License-Identifier: Apache-2.0
"""Handler of Hugging Face Inference Endpoints, which `svtrv2 publish --handler` adds to a model. It does not import svtrv2_hf."""

import base64
import binascii
from typing import Any

from PIL import Image
from transformers import pipeline


MAX_PIXELS = 16_000_000
PARAMETERS = {"return_characters", "return_words", "rotate_vertical", "allowed_characters"}


class EndpointHandler:
    """Recognizes the text of images in requests.

    Args:
        path: folder of the model.
    """

    def __init__(self, path: str = ""):
        self.read = pipeline("image-to-text", model=path, trust_remote_code=True)

    def __call__(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the result of each image, as the pipeline; an unreadable image has an `error`.

        Args:
            data: `inputs`, an image or a list of images, encoded in base64 in requests with JSON; and optionally `parameters`:
                `return_characters`, `return_words`, `rotate_vertical` and `allowed_characters`.

        Raises:
            ValueError: an input is not an image, or a parameter is unknown.
        """
        inputs = data.get("inputs")
        parameters = data.get("parameters") or {}
        if unknown := sorted(set(parameters) - PARAMETERS):
            raise ValueError(f"Unknown parameter {unknown[0]!r}: the parameters are {', '.join(sorted(PARAMETERS))}.")
        images = [_decode(image) for image in (inputs if isinstance(inputs, list) else [inputs])]
        results = self.read(images, batch_size=16, on_error="return", max_pixels=MAX_PIXELS, **parameters)
        return [result for [result] in results]


def _decode(image: Any) -> Any:
    """Return an image for the pipeline. Texts must not reach it, because it opens paths and URLs."""
    if isinstance(image, (bytes, Image.Image)):
        return image
    try:
        start, comma, content = image.partition(",")
        return base64.b64decode(content if comma and start.endswith(";base64") else image, validate=True)
    except (AttributeError, binascii.Error, ValueError) as error:
        raise ValueError("An input must be an image in base64, not a path or a URL.") from error
