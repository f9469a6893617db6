# SPDX-License-Identifier: Apache-2.0
"""A reading as HTML: the text, the image with the place of each character, and a bar for each score.

All text that comes from an image is escaped: it may hold what looks like HTML.
"""

import base64
import io
from html import escape
from typing import Any

from PIL import Image

from .readers import Reading


LARGEST = (640, 220)  # width and height in units of the picture; those of the page are pixels, where there is room
LABELS = 26  # units below the picture for the characters
SURE, UNSURE = 0.9, 0.5  # scores at which the colour of a bar changes


def panel(reading: Reading, image: Image.Image) -> str:
    """A reading, and the image that was read, as HTML."""
    text = f'<p class="text">{escape(reading.text)}</p>' if reading.text else '<p class="text none">Nothing read.</p>'
    return (
        f'<section class="reading"><h2>{escape(reading.model)}</h2>{text}'
        f'<p class="facts">Score {reading.score:.3f} · resized to {reading.height} x {reading.width} pixels '
        f"(height x width) · {reading.milliseconds:.0f} ms</p>"
        f"{picture(image, reading.characters)}{bars(reading.characters)}</section>"
    )


def message(text: str) -> str:
    """What to tell instead of a reading, as HTML."""
    return f'<section class="reading"><p class="problem" role="alert">{escape(text)}</p></section>'


def hint(model: str) -> str:
    """What stands there before anything was read, as HTML."""
    return f'<section class="reading"><h2>{escape(model)}</h2><p class="facts">The reading will be shown here.</p></section>'


def picture(image: Image.Image, characters: list[dict[str, Any]]) -> str:
    """The image as SVG, with the span of each character marked and the character below.

    Args:
        image: RGB.
        characters: `{"text", "score", "start", "end"}` of each; x in pixels of the image.
    """
    scale = min(LARGEST[0] / image.width, LARGEST[1] / image.height)
    width, height = image.width * scale, image.height * scale
    spans = [(part["start"] * scale, (part["end"] - part["start"]) * scale) for part in characters]
    font = min(18.0, *(max(1.6 * span, 7.0) for _, span in spans)) if spans else 18.0
    marks = []
    for number, ((start, span), part) in enumerate(zip(spans, characters, strict=True)):
        name, place = escape(_visible(part["text"])), f'x="{start:.1f}" width="{span:.1f}"'
        marks.append(
            f'<g class="mark{number % 2}"><title>{name}, score {part["score"]:.3f}</title>'
            f'<rect class="span" {place} y="0" height="{height:.1f}"/><rect {place} y="{height:.1f}" height="4"/>'
            f'<text x="{start + span / 2:.1f}" y="{height + 5 + font:.1f}" font-size="{font:.1f}">{name}</text></g>'
        )
    said = f"The image, with the places of {len(characters)} characters marked" if characters else "The image"
    return (
        f'<svg class="picture" role="img" aria-label="{said}" viewBox="0 0 {width:.1f} {height + LABELS:.1f}" '
        f'preserveAspectRatio="xMinYMin meet" '
        f'style="max-height:{height + LABELS:.0f}px"><image href="{_data_url(image)}" width="{width:.1f}" '
        f'height="{height:.1f}" preserveAspectRatio="none"/>{"".join(marks)}</svg>'
    )


def bars(characters: list[dict[str, Any]]) -> str:
    """A list of characters with a bar and a percentage for the score of each, as HTML."""
    items = []
    for part in characters:
        grade = "sure" if part["score"] >= SURE else "unsure" if part["score"] >= UNSURE else "doubtful"
        percent = 100 * part["score"]
        items.append(
            f'<li><span class="bar" aria-hidden="true"><span class="{grade}" style="height:{percent:.1f}%"></span></span>'
            f"<b>{escape(_visible(part['text']))}</b> <small>{percent:.0f}<span> %</span></small></li>"
        )
    return f'<ol class="bars" role="list" aria-label="Score of each character">{"".join(items)}</ol>' if items else ""


def _visible(character: str) -> str:
    return "␣" if character == " " else character


def _data_url(image: Image.Image) -> str:
    """At twice the size that is shown, for displays of high density."""
    shown = image.copy()
    shown.thumbnail((2 * LARGEST[0], 2 * LARGEST[1]))
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


STYLE = """
.reading h2 { margin: 0; font-size: 0.9rem; font-weight: 600; color: var(--body-text-color); opacity: 0.75; overflow-wrap: anywhere; }
.reading .text { margin: 0.1rem 0 0.3rem; font: 600 1.7rem/1.3 ui-monospace, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; color: var(--body-text-color); }
.reading .none { font-style: italic; font-weight: 400; }
.reading .facts { margin: 0 0 0.8rem; font-size: 0.85rem; color: var(--body-text-color); opacity: 0.75; }
.reading .problem { margin: 0; padding: 0.8rem 1rem; border-left: 4px solid #dc2626; color: var(--body-text-color);
  background: var(--background-fill-secondary); overflow-wrap: anywhere; }
@media (width <= 640px) { footer .divider { display: none; } }
.reading .picture { display: block; width: 100%; overflow: visible; }
.picture text { text-anchor: middle; fill: var(--body-text-color); font-family: ui-monospace, monospace; }
.picture .mark0 rect { fill: #2563eb; }
.picture .mark1 rect { fill: #ea580c; }
.picture rect.span { fill-opacity: 0.14; }
.reading .bars { display: flex; flex-wrap: wrap; gap: 0.6rem 0.1rem; margin: 0.8rem 0 0; padding: 0; list-style: none; }
.reading .bars li { width: 1.8rem; margin: 0; padding: 0; text-align: center; line-height: 1.25; color: var(--body-text-color); }
.bars .bar { display: flex; align-items: flex-end; height: 2.6rem; margin: 0 0.35rem; border-radius: 3px; overflow: hidden;
  background: var(--border-color-primary); }
.bars .bar span { width: 100%; }
.bars .sure { background: #15803d; }
.bars .unsure { background: #d97706; }
.bars .doubtful { background: #dc2626; }
.bars b { font-family: ui-monospace, monospace; font-size: 1.05rem; }
.bars small { display: block; font-size: 0.7rem; opacity: 0.75; }
.bars small span { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
"""
