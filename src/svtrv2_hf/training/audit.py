# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 audit`: what a training run would make of its data."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, cast

from ..charsets import ENGLISH_94, Normalization, charset_of, normalize_unicode, read_charset
from ..checkpoint import load_processor
from ..configuration_svtrv2 import PRESETS
from ..console import printable
from ..data.audit import AuditReport, audit_into
from ..data.audit_chart import plot
from ..data.audit_report import render, render_histograms, total
from ..data.augmentation import Augmentation
from ..data.labels import LabelEncoder
from ..data.sample import Source
from ..data.sheets import augmentation_sheet
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb
from ..sources import open_source
from ..sources.file_source import FileSource
from .arguments import DataAndModelArguments, read_recipe
from .model import share_widths


def run(
    words: Sequence[str],
    model: str | None = None,
    charset: str | None = None,
    max_label_length: int | None = None,
    max_ratio: int | None = None,
    unknown_characters: str | None = None,
    normalize: str | None = None,
    workers: int = 0,
    limit: int | None = None,
    output: str | None = None,
) -> int:
    """The command `svtrv2 audit`: prints a report on sources and writes it to a folder.

    Args:
        words: sources as `open_source` takes them; the first may be a training recipe, whose data are then examined by
            its rules.
        model, charset, max_label_length, max_ratio, unknown_characters, normalize: as in training; go before what the recipe says.
        workers, limit: as in [`audit`].
        output: folder for `audit.json`, `audit.md`, `audit.png` and, where there is augmentation, `augmentation.png`.

    Returns:
        0 if training would take every sample as it is, 1 if not, or if a source cannot be read to its end; 130 if interrupted. What
        was read by then is reported.

    Raises:
        ValueError, OSError: recipe, charset or all sources cannot be read, or they contradict each other.
    """
    recipe: Mapping[str, Any] = {}
    if words and words[0].endswith((".yaml", ".yml")):
        recipe, words = read_recipe(words[0]), words[1:]
        words = [*_specs(recipe, "train_data"), *words]
    given = {
        "model": model,
        "charset": charset,
        "max_label_length": max_label_length,
        "max_ratio": max_ratio,
        "unknown_characters": unknown_characters,
        "normalize": normalize,
    }
    settings = {name: value for values in (recipe, given) for name, value in values.items() if value is not None}
    encoder, image_processor = _rules(settings)
    form = cast(Normalization, settings.get("normalize", "none"))
    augmentation = _augmentation(settings)
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)
    errors: list[ValueError | OSError] = []
    sources = [(source, source.name) for source in _open_all(words, errors)]
    sources += [(source, f"{source.name} (eval)") for source in _open_all(_specs(recipe, "eval_data"), errors, "test")]
    if not sources and not errors:
        raise ValueError("The recipe names no train_data and no eval_data, and there is no source beside it.")

    reports: list[AuditReport] = []
    interrupted = False
    try:
        for source, name in sources:
            reports.append(AuditReport(name, encoder, image_processor, form))
            try:
                audit_into(reports[-1], source, workers, limit, progress=True)
            except (ValueError, OSError) as error:  # whatever is wrong with one source, the others are examined
                errors.append(error)
                continue
            found, expected = reports[-1].samples, source.num_samples
            if limit is None and expected not in (None, found):
                errors.append(ValueError(f"{name} has {found:,} samples, not {expected:,}: correct ?samples=NUMBER."))
    except KeyboardInterrupt:
        interrupted = True
    if errors and not any(report.samples for report in reports):
        raise errors[0]
    for fault in errors:
        print(printable(f"svtrv2: {fault}"), file=sys.stderr)
    remarks = [f"Not read, or not to the end: {fault}" for fault in errors]
    remarks += [_repeated(source, name) for source, name in sources if isinstance(source, FileSource)]
    remarks = [remark for remark in remarks if remark]
    if limit is not None:
        remarks.append(f"At most {limit:,} samples of each source were read.")
    if interrupted:
        unread = ", ".join(name for _, name in sources[len(reports) :])
        remarks.append(
            "Interrupted: this is about the samples read by then."
            + (f" Nothing was read of {unread}." if unread else "")
        )
    print(printable("\n\n".join([render(reports), *remarks]), keep="\n"))
    if output is not None:
        _write(reports, remarks, Path(output))
        (Path(output) / "augmentation.png").unlink(missing_ok=True)  # of an earlier audit by another recipe
        drawn = "" if augmentation is None else _draw_augmentation(sources[0][0], augmentation, Path(output))
        print(f"Written: audit.json, audit.md and audit.png {drawn}in {output}.", file=sys.stderr)
    if interrupted:
        return 130
    return 0 if not errors and all(report.faultless for report in reports) else 1


def _open_all(specs: Sequence[str], errors: list[ValueError | OSError], split: str = "train") -> list[Source]:
    """The sources that can be opened; the errors of the others are added to `errors`."""
    opened = []
    for spec in specs:
        try:
            opened.append(open_source(spec, split))
        except (ValueError, OSError) as error:
            errors.append(error)
    return opened


def _repeated(source: FileSource, name: str) -> str:
    """A sentence about images that a list has more than once; nothing, if there is none."""
    repeated = source.repeated()
    if not repeated:
        return ""
    # those that cannot all be right come first
    paths = sorted(repeated, key=lambda path: (len(repeated[path]) < 2, path))
    differing = sum(len(texts) > 1 for texts in repeated.values())
    images = f"{len(repeated):,} image{'' if len(repeated) == 1 else 's'}"
    shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
    return f"{name} lists {images} more than once, {differing:,} of them with different texts: {shown}."


def _specs(recipe: Mapping[str, Any], name: str) -> list[str]:
    specs = recipe.get(name) or []
    if isinstance(specs, str):
        specs = [specs]
    if not isinstance(specs, list) or not all(isinstance(spec, str) for spec in specs):
        raise ValueError(f"{name} in the recipe must be a source or a list of sources, not {specs!r}.")
    return specs


def _rules(settings: Mapping[str, Any]) -> tuple[LabelEncoder, SVTRv2ImageProcessor]:
    """What a training run with these settings goes by; a model to go on from has a charset and a widest size of its own."""
    form = settings.get("normalize", "none")
    normalize_unicode("", form)  # refuses a wrong one
    model = settings.get("model")
    saved = None
    if model is not None and model not in PRESETS:
        saved = load_processor(str(model))
    if settings.get("charset") is not None:
        characters = read_charset(settings["charset"], form)
    else:
        characters = list(ENGLISH_94) if saved is None else charset_of(saved.tokenizer)
    image_processor = SVTRv2ImageProcessor() if saved is None else saved.image_processor
    if settings.get("max_ratio") is not None:
        image_processor = SVTRv2ImageProcessor(**{**image_processor.to_dict(), "max_ratio": settings["max_ratio"]})
    share_widths(image_processor)
    longest = settings.get("max_label_length", 25)
    if not isinstance(longest, int) or longest < 1:
        raise ValueError(f"max_label_length={longest!r} must be an integer, 1 or more.")
    return LabelEncoder(characters, longest, settings.get("unknown_characters", "error")), image_processor


def _augmentation(settings: Mapping[str, Any]) -> Augmentation | None:
    """That of a training run with these settings, if it has any.

    Raises:
        ValueError: they are no numbers, or out of their range.
    """
    defaults = {one.name: one.default for one in fields(DataAndModelArguments)}
    number, magnitude = (settings.get(name, defaults[name]) for name in ("augment_operations", "augment_magnitude"))
    try:  # as the words of a command line, which training makes of them: YAML takes 1e1 for one
        number, magnitude = int(str(number)), float(str(magnitude))
    except ValueError as error:
        raise ValueError(
            f"augment_operations={number!r} must be a whole number, and augment_magnitude={magnitude!r} a number."
        ) from error
    return Augmentation(number, magnitude=magnitude) if number else None


def _write(reports: Sequence[AuditReport], remarks: Sequence[str], folder: Path) -> None:
    encoder, image_processor = reports[0].encoder, reports[0].image_processor
    content = {
        "charset": "".join(encoder.ids),
        "max_label_length": encoder.max_length,
        "unknown_characters": encoder.unknown_characters,
        "normalize": reports[0].normalize,
        "max_ratio": image_processor.max_ratio,
        "remarks": remarks,
        "sources": [report.to_dict() for report in reports],
        "total": total(reports).to_dict(),
    }
    (folder / "audit.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    parts = [render(reports), *remarks, render_histograms(reports), "![Charts](audit.png)"]
    text = "\n\n".join(["# Audit of training data", *parts])
    (folder / "audit.md").write_text(printable(text, keep="\n") + "\n", encoding="utf-8")
    plot(reports, folder / "audit.png")


def _draw_augmentation(source: Source, augmentation: Augmentation, folder: Path) -> str:
    """What the operations of augmentation do to the first image that can be read; nothing, if none of the first can."""
    for sample in islice(source.read(), 100):
        try:
            augmentation_sheet(load_rgb(sample.image, sample.name), augmentation).save(folder / "augmentation.png")
        except UnreadableImageError:
            continue
        return "and augmentation.png "
    return ""
