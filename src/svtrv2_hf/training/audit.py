# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 audit`: statistics and problems of training data."""

import json
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ..charsets import PRINTABLE_ASCII, charset_of, read_charset
from ..checkpoint import load_processor
from ..configuration_svtrv2 import PRESETS
from ..console import note, printable, warn
from ..data.audit import AuditReport, audit
from ..data.audit_report import plot, render, total
from ..data.augmentation import Augmentation
from ..data.labels import LabelEncoder
from ..data.sample import Source
from ..data.sheets import augmentation_sheet
from ..image_processing_svtrv2 import SVTRv2ImageProcessor, UnreadableImageError, load_rgb
from ..paths import is_recipe
from ..reporting import first, plural
from ..sources import open_source
from ..sources.file_source import FileSource
from .arguments import DataAndModelArguments, parse_data_arguments, recipe_words
from .model import share_widths


def run(
    words: Sequence[str], workers: int = 0, limit: int | None = None, output: str | None = None, **options: Any
) -> int:
    """Print a report on sources, and write it to a folder.

    Args:
        words: sources as in [`open_source`]; the first may be a training recipe instead, whose data are audited by its rules.
        workers, limit: see [`audit`].
        output: folder for `audit.json`, `audit.md`, `audit.png` and, with augmentation, `augmentation.png`.
        options: `model`, `charset`, `max_label_length`, `max_ratio`, `unknown_characters` and `normalize` as in training; they
            override the recipe. `None` is the default.

    Returns:
        0 if training would use every sample unchanged; 1 if not, or if a source cannot be read completely; 130 if interrupted. The
        samples read until then are reported.

    Raises:
        ValueError, OSError: the recipe, the charset or all sources cannot be read, or an option is invalid.
    """
    settings: list[str] = []
    if words and is_recipe(words[0]):
        settings, words = recipe_words(words[0]), words[1:]
    for option, value in options.items():
        settings += [] if value is None else [f"--{option}={value}"]
    chosen = parse_data_arguments(settings)
    encoder, image_processor = _rules(chosen)
    augmentation = None
    if chosen.augment_operations:
        augmentation = Augmentation(chosen.augment_operations, magnitude=chosen.augment_magnitude)
    errors: list[ValueError | OSError] = []
    sources = [(source, source.name) for source in _open_all([*chosen.train_data, *words], "train", errors)]
    sources += [(source, f"{source.name} (eval)") for source in _open_all(chosen.eval_data, "test", errors)]
    if not sources and not errors:
        raise ValueError("The recipe has neither train_data nor eval_data: set one, or pass a source.")
    if output is not None:
        Path(output).mkdir(parents=True, exist_ok=True)

    reports: list[AuditReport] = []
    interrupted = False
    try:
        for source, name in sources:
            reports.append(AuditReport(name, encoder, image_processor, chosen.normalize))
            try:
                audit(source, reports[-1], workers, limit, progress=True)
            except (ValueError, OSError) as error:  # the other sources are still audited
                errors.append(error)
                continue
            samples, expected = reports[-1].samples, source.num_samples
            if limit is None and expected not in (None, samples):
                errors.append(
                    ValueError(f"{name} has {samples:,} samples, not {expected:,}: correct ?samples=NUMBER.")
                )
    except KeyboardInterrupt:
        interrupted = True
    if errors and not any(report.samples for report in reports):
        raise errors[0]
    for failure in errors:
        warn(str(failure))
    remarks = [f"Not read completely: {failure}" for failure in errors]
    remarks += [_repeated(source, name) for source, name in sources if isinstance(source, FileSource)]
    if limit is not None:
        remarks.append(f"At most {plural(limit, 'sample')} of each source were read.")
    if interrupted:
        remarks.append("Interrupted: this report covers the samples read until then.")
        remarks += [f"No samples of {name} were read." for _, name in sources[len(reports) :]]
    remarks = [remark for remark in remarks if remark]
    print(printable("\n\n".join([render(reports), *remarks]), keep="\n"))
    if output is not None:
        with_samples = [source for (source, _), report in zip(sources, reports, strict=False) if report.samples]
        written = _write(reports, remarks, with_samples, augmentation, Path(output))
        note(f"Written to {output}: {', '.join(written)}.")
    if interrupted:
        return 130
    return 0 if not errors and all(report.is_clean for report in reports) else 1


def _open_all(specs: Sequence[str], split: str, errors: list[ValueError | OSError]) -> list[Source]:
    """Open sources, and append the errors of those that cannot be opened to `errors`."""
    opened = []
    for spec in specs:
        try:
            opened.append(open_source(spec, split))
        except (ValueError, OSError) as error:
            errors.append(error)
    return opened


def _repeated(source: FileSource, name: str) -> str:
    """Return a sentence about images that a list has more than once, or an empty string."""
    repeated = source.repeated()
    if not repeated:
        return ""
    paths = sorted(repeated, key=lambda path: (len(repeated[path]) < 2, path))  # contradictory labels first
    contradictory = sum(len(texts) > 1 for texts in repeated.values())
    images = plural(len(repeated), "image")
    return f"{name} lists {images} more than once, {contradictory:,} of them with different texts: {first(paths)}."


def _rules(chosen: DataAndModelArguments) -> tuple[LabelEncoder, SVTRv2ImageProcessor]:
    """Return the rules of a training run; a saved model provides a charset and a maximum aspect ratio."""
    saved = None if chosen.model in PRESETS else load_processor(chosen.model)
    if chosen.charset is not None:
        characters = read_charset(chosen.charset, chosen.normalize)
    else:
        characters = list(PRINTABLE_ASCII) if saved is None else charset_of(saved.tokenizer)
    image_processor = SVTRv2ImageProcessor() if saved is None else saved.image_processor
    if chosen.max_ratio is not None:
        image_processor = type(image_processor)(**{**image_processor.to_dict(), "max_ratio": chosen.max_ratio})
    share_widths(image_processor)
    return LabelEncoder(characters, chosen.max_label_length, chosen.unknown_characters), image_processor


def _write(
    reports: Sequence[AuditReport],
    remarks: Sequence[str],
    sources: Sequence[Source],
    augmentation: Augmentation | None,
    folder: Path,
) -> list[str]:
    """Write all files, and return their names."""
    encoder = reports[0].encoder
    content = {
        "charset": "".join(encoder.ids),
        "max_label_length": encoder.max_length,
        "unknown_characters": encoder.unknown_characters,
        "normalize": reports[0].normalize,
        "max_ratio": reports[0].image_processor.max_ratio,
        "remarks": remarks,
        "sources": [report.to_dict() for report in reports],
        "total": total(reports).to_dict(),
    }
    (folder / "audit.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    parts = ["# Audit of training data", render(reports), *remarks, "![Charts](audit.png)"]
    (folder / "audit.md").write_text(printable("\n\n".join(parts), keep="\n") + "\n", encoding="utf-8")
    plot(reports, folder / "audit.png")
    sheet = folder / "augmentation.png"
    sheet.unlink(missing_ok=True)  # from an audit with other settings
    for sample in islice(chain.from_iterable(source.read() for source in sources), 100 if augmentation else 0):
        try:
            augmentation_sheet(load_rgb(sample.image, sample.name), augmentation).save(sheet)
            break
        except UnreadableImageError:
            continue
    return ["audit.json", "audit.md", "audit.png", *([sheet.name] if sheet.exists() else [])]
