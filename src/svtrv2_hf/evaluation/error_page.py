# SPDX-License-Identifier: Apache-2.0
"""The errors of a model as one self-contained HTML file, rendered from `templates/errors.html.j2`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..image_processing_svtrv2 import load_rgb
from ..reporting import data_url, percent, plural
from .benchmarks import wilson_interval
from .errors import BINS, DESCRIPTIONS, Bin, ErrorKind, Errors, visible
from .protocols import PROTOCOLS


LARGEST_IMAGE = (480, 96)  # width and height in pixels of the images on the page
CONFUSED = 16  # characters in the confusion table
LISTED = 8  # confusions in each list
WIDE = 7  # aspect ratio of an image from which its card takes two columns
SELDOM = 20  # occurrences of a character from which its share of errors is listed


def write_page(errors: Errors, path: str | Path, title: str) -> None:
    """Write an HTML page with counts, confusions, calibration, and the kept mistakes with their images.

    Args:
        errors: collected errors.
        path: HTML file to write; images are embedded in it.
        title: title of the page, plain text.
    """
    total, confused = errors.total, _confused(errors)
    shown = Counter(mistake.kind for dataset in errors.sets.values() for mistake in dataset.shown)
    protocols = {p: [name for name, dataset in errors.sets.items() if dataset.protocol == p] for p in PROTOCOLS}
    page = _environment().get_template("errors.html.j2").render(
        title=title,
        errors=errors,
        total=total,
        calibration_error=errors.expected_calibration_error,
        ignores_case=any(dataset.protocol != "exact" for dataset in errors.sets.values()),
        kinds=[kind for kind in ErrorKind if total.kinds[kind]],
        kind_notes=DESCRIPTIONS,
        protocols=protocols,
        protocol_notes=PROTOCOLS,
        scores=list(_score_rows(errors.bins))[::-1],
        confusions=errors.ranked_confusions(),
        confused=confused,
        most_confused=max((errors.confusions[pair] for pair in product(confused, confused)), default=0),
        hardest=_hardest(errors),
        listed=LISTED,
        seldom=SELDOM,
        cards=list(_cards(errors)),
        set_options=[(str(n), name, len(dataset.shown)) for n, (name, dataset) in enumerate(errors.sets.items()) if dataset.shown],
        kind_options=[(kind.value, _words(kind), shown[kind]) for kind in ErrorKind if shown[kind]],
    )  # fmt: skip
    Path(path).write_text(page.lstrip(), encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"number": format, "words": _words}
    environment.globals |= {"percent": percent, "plural": plural, "visible": visible, "words": _words}
    return environment


def _printable(value: Any) -> Any:
    """Replace unprintable characters of the value of any expression by visible ones."""
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if c.isprintable() else visible(c) for c in value)


def _words(kind: ErrorKind) -> str:
    return kind.value.replace("_", " ")


def _score_rows(bins: Sequence[Bin]) -> Iterator[dict[str, Any]]:
    """Yield the figures of the bins with predictions, from the lowest score to the highest."""
    total = sum(scores.samples for scores in bins)
    for number, scores in enumerate(bins):
        if not scores.samples:
            continue
        kept, correct = (sum(getattr(other, name) for other in bins[number:]) for name in ("samples", "correct"))
        score = scores.score / scores.samples
        low, high = wilson_interval(scores.correct, scores.samples)
        yield {
            "number": number,
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "samples": scores.samples,
            "correct": scores.correct,
            "score": score,
            "low": low,
            "high": high,
            "kept": percent(kept, total),
            "correct_of_kept": percent(correct, kept),
            "summary": f"{plural(scores.samples, 'prediction')}, mean score {score:.3f}, {scores.correct:,} correct",
        }


def _confused(errors: Errors) -> list[str | None]:
    """Return the characters most confused with each other, and `None` for no character; empty without confusions."""
    involved: Counter[str] = Counter()
    for (true, predicted), count in errors.confusions.items():
        if true is not None and predicted is not None:
            involved.update({true: count, predicted: count})
    chosen = sorted(sorted(involved, key=lambda c: (-involved[c], c))[:CONFUSED])
    return [*chosen, None] if chosen else []


def _hardest(errors: Errors) -> list[tuple[str, int, int]]:
    """Return the characters with the highest share of errors, with the numbers of errors and of occurrences."""
    wrong: Counter[str] = Counter()
    for (true, _), count in errors.confusions.items():
        if true is not None:
            wrong[true] += count
    frequent = [c for c in wrong if errors.characters[c] >= SELDOM]
    frequent.sort(key=lambda c: (-wrong[c] / errors.characters[c], c))
    return [(c, wrong[c], errors.characters[c]) for c in frequent[:LISTED]]


def _cards(errors: Errors) -> Iterator[dict[str, Any]]:
    for number, of_set in enumerate(errors.sets.values()):
        worst, typical = set(of_set.worst), set(of_set.typical)
        for mistake in of_set.shown:
            sample = mistake.prediction.sample
            image = load_rgb(sample.image, sample.name)
            yield {
                "mistake": mistake,
                "set_number": number,
                "choices": [name for name, group in (("worst", worst), ("typical", typical)) if mistake in group],
                "width": image.width,
                "height": image.height,
                "wide": image.width > WIDE * image.height,
                "image": data_url(image, LARGEST_IMAGE),
            }
