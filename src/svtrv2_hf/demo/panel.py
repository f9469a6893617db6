# SPDX-License-Identifier: Apache-2.0
"""Predictions as HTML: the text, the image with the position of each character, and a bar for each score.

The templates escape all text, which may look like HTML.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ..reporting import data_url
from .models import Prediction


TEMPLATES = Path(__file__).with_name("templates")
IMAGE_SIZE = (640, 220)  # maximum width and height of the image, in pixels if the page is wide enough
LABEL_HEIGHT = 26  # height of the characters below the image
SURE, UNSURE = 0.9, 0.5  # minimum scores of the colors of bars

_TEMPLATE = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, undefined=StrictUndefined
).get_template("panel.html.j2")


def placeholder(model: str) -> str:
    """Render the panel of a model before the first prediction."""
    return _TEMPLATE.render(model=model, prediction=None, problem=None)


def message(text: str) -> str:
    """Render an error message for the visitor."""
    return _TEMPLATE.render(problem=text)


def panel(prediction: Prediction, image: Image.Image) -> str:
    """Render a prediction for an RGB image."""
    scale = min(IMAGE_SIZE[0] / image.width, IMAGE_SIZE[1] / image.height)
    characters: list[dict[str, Any]] = [
        {
            "text": "␣" if character["text"] == " " else character["text"],
            "score": character["score"],
            "grade": "sure"
            if character["score"] >= SURE
            else "unsure"
            if character["score"] >= UNSURE
            else "doubtful",
            "start": round(character["start"] * scale, 1),
            "center": round((character["start"] + character["end"]) / 2 * scale, 1),
            "width": round((character["end"] - character["start"]) * scale, 1),
        }
        for character in prediction.characters
    ]
    return _TEMPLATE.render(
        model=prediction.model,
        prediction=prediction,
        problem=None,
        characters=characters,
        image=data_url(image, (2 * IMAGE_SIZE[0], 2 * IMAGE_SIZE[1])),  # for high-density displays
        width=round(image.width * scale, 1),
        height=round(image.height * scale, 1),
        label_height=LABEL_HEIGHT,
        font_size=round(min([18, *(max(1.6 * character["width"], 7) for character in characters)]), 1),
    )
