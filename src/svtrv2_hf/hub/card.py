# SPDX-License-Identifier: Apache-2.0
"""Model cards, rendered from templates with the contents of a folder and its results."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, meta

from ..charsets import charset_of
from ..checkpoint import load_config, load_processor
from ..evaluation.metrics import rounded
from ..evaluation.protocols import PROTOCOLS
from ..evaluation.tables import markdown
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..redaction import redact_values
from ..reporting import markdown_table
from .check import exported_files


TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
TAGS = ["ocr", "text-recognition", "scene-text-recognition", "ctc", "svtrv2"]


def metadata(
    name: str,
    license: str,
    language: str | None = None,
    results: Mapping[str, Any] | None = None,
    source: tuple[str, str] | None = None,
    **others: Any,
) -> ModelCardData:
    """Return the metadata of a card for the Hub, with word accuracy and character error rate (CER) of each dataset, in percent.

    Datasets with warnings, such as a part of a benchmark, are omitted, since metadata cannot hold the warning.

    Args:
        name: name of the model.
        license: license of the weights, as an identifier of the Hub.
        language: language of the texts.
        results: results of `svtrv2 evaluate`.
        source: name and URL of the publication, if the results are published by others.
        others: further fields of `huggingface_hub.ModelCardData`.
    """
    names = {"accuracy": "Word accuracy", "cer": "CER"}
    evaluated = [
        EvalResult(
            task_type="image-to-text",
            task_name="Text recognition",
            dataset_type=dataset.lower(),
            dataset_name=dataset,
            metric_type=metric,
            metric_name=f"{names[metric]} ({PROTOCOLS[result['protocol']]})",
            metric_value=round(100 * rounded(figure, 4), 2),
            source_name=source[0] if source else None,
            source_url=source[1] if source else None,
        )
        for dataset, result in (results["sets"] if results else {}).items()
        if result["samples"] and not result.get("warnings")
        for metric, figure in (("accuracy", result["word_accuracy"]), ("cer", result.get("cer")))
        if figure is not None  # results of earlier versions have no CER
    ]
    return ModelCardData(
        model_name=name,
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag="image-to-text",
        tags=TAGS,
        metrics=list(dict.fromkeys(["accuracy", *(result.metric_type for result in evaluated)])),
        **others,
        eval_results=evaluated or None,
    )


def fill_template(template: Path, data: ModelCardData, **values: Any) -> str:
    """Render a card with [`~huggingface_hub.ModelCard.from_template`].

    Args:
        template: Jinja template of a card, which contains `{{ card_data }}`.
        data: metadata of the card.
        values: values of all other variables of the template.

    Raises:
        ValueError: a variable of the template has no value.
    """
    variables = meta.find_undeclared_variables(Environment().parse(template.read_text(encoding="utf-8")))
    if missing := variables - {"card_data", *values}:
        raise ValueError(f"The template {template.name} has variables without a value: {', '.join(sorted(missing))}.")
    return f"{ModelCard.from_template(data, template_path=str(template), **values)}\n"


def render_card(
    folder: Path, repo: str, license: str | None, language: str | None = None, results: Mapping[str, Any] | None = None
) -> str:
    """Render the card of a saved model: size, charset, use, accuracy, training and limits.

    Args:
        folder: folder of the model; the card describes the training if the folder has its `run.json`.
        repo: `OWNER/NAME` on the Hub.
        license: license of the weights.
        language: language of the texts.
        results: results of `svtrv2 evaluate`.

    Raises:
        ValueError: the license is missing, or is not an identifier of the Hub.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license or ""):
        raise ValueError(
            "A card needs the license of the weights, which depends on the training data: "
            f"{'--license' if license is None else f'--license {license!r}'} must be an identifier of the Hub in lower case without "
            "spaces, such as apache-2.0, cc-by-4.0 or other."
        )
    file = folder / "run.json"
    run = redact_values(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None
    config = load_config(folder)
    charset = charset_of(load_processor(folder).tokenizer)
    parameters = SVTRv2ForCTC(config).drop_guidance().num_parameters()
    name = repo.split("/")[1]
    return fill_template(
        TEMPLATE,
        metadata(name, str(license), language, results),
        name=name,
        repo=repo,
        size=f"{f'size {config.preset_name}, ' if config.preset_name else ''}{parameters / 1e6:.2f} M parameters",
        charset=charset,
        shown=("".join(charset) if len(charset) <= 120 else "".join(charset[:100]) + " …").strip(),
        accuracy=markdown(results) if results is not None else None,
        run=run,
        recipe=json.dumps(run["recipe"], indent=1, ensure_ascii=False) if run and run["recipe"] else None,
        has_curve=(folder / "learning_curve.png").is_file(),
        exported=_exported(folder),
    )


def _exported(folder: Path) -> str | None:
    """Return a table of the files of svtrv2 export and their sizes, or `None`."""
    models = [path for path in exported_files(folder) if path.suffix in (".onnx", ".bin")]
    rows = [[f"`{path.relative_to(folder).as_posix()}`", f"{path.stat().st_size / 1e6:.2f}"] for path in models]
    return markdown_table(["file", "MB"], rows) if rows else None
