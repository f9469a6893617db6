# SPDX-License-Identifier: Apache-2.0
"""Models, predictions and images of the demo; this module does not need Gradio."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import pipeline

from ..image_loading_svtrv2 import UnreadableImageError, load_rgb
from ..runtime.model import load_for_backend
from .uploads import MEGABYTES


EXAMPLES = Path(__file__).parent / "examples"
MEGAPIXELS = 16  # maximum size of an image; decoding needs up to 25 bytes per pixel
DEFAULT_NAME = "svtrv2-nano-synthetic"  # name of the bundled checkpoint on the page


@dataclass(frozen=True)
class Prediction:
    """The prediction of a model for an image.

    Attributes:
        model: name of the model.
        text: the recognized text.
        score: geometric mean of the scores of the characters, 0 for an empty text.
        characters: `{"text", "score", "start", "end"}` of each character; start and end are x coordinates in pixels of
            the image.
        height: height of the resized image in pixels.
        width: width of the resized image in pixels.
        milliseconds: duration from the decoded image to the text.
    """

    model: str
    text: str
    score: float
    characters: list[dict[str, Any]]
    height: int
    width: int
    milliseconds: float


class DemoModel:
    """A model with a name.

    Args:
        model: a folder, a Hub id, or "default".
        name: name on the page.
        backend: "torch", or a backend of [`SVTRv2ForCTCRuntime`], of which `file_name` is a file.

    Raises:
        OSError, ValueError: the model is not found, or its files are damaged.
    """

    def __init__(self, model: str, name: str, backend: str = "torch", file_name: str | None = None):
        self.name = name
        loaded, processor = load_for_backend(model, backend, file_name)
        self._pipeline = pipeline("text-recognition", model=loaded, processor=processor)

    def predict(self, image: Image.Image) -> Prediction:
        """Recognize the text of an RGB image; thread-safe."""
        started = time.perf_counter()
        [result] = self._pipeline(image, return_characters=True, max_ratio="auto")
        milliseconds = 1000 * (time.perf_counter() - started)
        height, width = self._pipeline.processor.image_processor.target_size(*image.size, "auto")
        characters = [
            {name: round(value, 4) if isinstance(value, float) else value for name, value in character.items()}
            for character in result["characters"]
        ]
        return Prediction(
            self.name,
            result["text"],
            round(result["score"], 4),
            characters,
            height,
            width,
            round(milliseconds, 1),
        )


def load_models(models: Sequence[str], backend: str = "torch", file_name: str | None = None) -> list[DemoModel]:
    """Load models, named by the last part of their path, or by the entire path if the last parts are equal."""
    names = [DEFAULT_NAME if model == "default" else Path(model).resolve().name for model in models]
    if len(set(names)) < len(names):
        names = list(models)
    return [DemoModel(model, name, backend, file_name) for model, name in zip(models, names, strict=True)]


def open_upload(path: str | Path) -> Image.Image:
    """Open an uploaded file.

    Raises:
        UnreadableImageError: the file is too large, or not an image; the message is for the visitor.
    """
    file = Path(path)
    if file.stat().st_size > MEGABYTES * 2**20:
        raise UnreadableImageError(
            f"{file.name} is larger than {MEGABYTES} MB. Crop the word or line, or save it in a smaller size."
        )
    try:
        return load_rgb(file, name=file.name, max_pixels=MEGAPIXELS * 10**6)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{error} Upload the crop of a word or line as PNG, JPEG or WebP.") from error


def example_files() -> list[Path]:
    """Return the paths of the bundled images of synthetic text."""
    return sorted(EXAMPLES.glob("*.png"))
