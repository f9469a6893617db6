# SPDX-License-Identifier: Apache-2.0
"""What the demo knows of reading; nothing here needs Gradio."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import pipeline

from ..checkpoint import load_model_and_processor
from ..image_loading_svtrv2 import UnreadableImageError, load_rgb
from .uploads import MEGABYTES


EXAMPLES = Path(__file__).parent / "examples"
MEGAPIXELS = 16  # of the largest image that is taken; decoding takes up to 25 bytes of memory for each pixel
DEFAULT_NAME = "svtrv2-nano-synthetic"  # of the package's own model, on the page


@dataclass(frozen=True)
class Reading:
    """What one model reads in one image.

    Attributes:
        model: its name.
        text: what was read.
        score: geometric mean of the characters' scores, 0 for an empty reading.
        characters: `{"text", "score", "start", "end"}` of each; x in pixels of the image.
        height: of the image as the model sees it, in pixels.
        width: the same.
        milliseconds: from the opened image to the text.
    """

    model: str
    text: str
    score: float
    characters: list[dict[str, Any]]
    height: int
    width: int
    milliseconds: float


class Reader:
    """A model under its name."""

    def __init__(self, model: str, name: str):
        """
        Args:
            model: a folder, a name on the Hub, or "default".
            name: to show.

        Raises:
            OSError, ValueError: The model is not found, or its files are damaged.
        """
        self.name = name
        loaded, processor = load_model_and_processor(model)
        self._pipeline = pipeline("text-recognition", model=loaded, processor=processor)

    def read(self, image: Image.Image) -> Reading:
        """Reads an RGB image; any number of threads may do so at the same time."""
        started = time.perf_counter()
        [result] = self._pipeline(image, return_characters=True, max_ratio="auto")
        milliseconds = 1000 * (time.perf_counter() - started)
        height, width = self._pipeline.processor.image_processor.target_size(*image.size, "auto")
        return Reading(
            self.name,
            result["generated_text"],
            round(result["score"], 4),
            [{name: _rounded(value) for name, value in part.items()} for part in result["characters"]],
            height,
            width,
            round(milliseconds, 1),
        )


def load_readers(models: Sequence[str]) -> list[Reader]:
    """Models under the last parts of their names; under their full names, where the last parts are the same."""
    names = [DEFAULT_NAME if model == "default" else Path(model).resolve().name for model in models]
    if len(set(names)) < len(names):
        names = list(models)
    return [Reader(model, name) for model, name in zip(models, names, strict=True)]


def open_upload(path: str | Path) -> Image.Image:
    """Opens a file that somebody sent.

    Raises:
        UnreadableImageError: it is too large, or no image; the message is for whoever sent it, and tells what to do.
    """
    file = Path(path)
    if file.stat().st_size > MEGABYTES * 2**20:
        raise UnreadableImageError(
            f"{file.name} has more than {MEGABYTES} MB. Crop the word or line out of it, or save it smaller."
        )
    try:
        return load_rgb(file, name=file.name, max_pixels=MEGAPIXELS * 10**6)
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{error} Send the crop of a word or line as PNG, JPEG or WebP.") from error


def example_files() -> list[Path]:
    """The drawn images that come with the package."""
    return sorted(EXAMPLES.glob("*.png"))


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
