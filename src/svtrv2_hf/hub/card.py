# SPDX-License-Identifier: Apache-2.0
"""Model cards, rendered from what a folder and its results tell."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..charsets import charset_of
from ..checkpoint import load_config, load_processor
from ..configuration_svtrv2 import SVTRv2Config
from ..evaluation.metrics import rounded
from ..evaluation.tables import markdown
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..processing_svtrv2 import SVTRv2Processor
from ..redaction import redact, redact_values


METRIC = {
    "english": "Word accuracy (letters and digits, case ignored)",
    "chinese": "Word accuracy (all but spaces, case ignored)",
}
TAGS = ["ocr", "text-recognition", "scene-text-recognition", "ctc", "svtrv2"]


def metadata(
    name: str,
    license: str,
    language: str | None = None,
    results: Mapping[str, Any] | None = None,
    source: tuple[str, str] | None = None,
    **others: Any,
) -> ModelCardData:
    """The metadata of a card as the Hub understands them, with the word accuracy of each set.

    Sets with warnings, such as a part of a benchmark, are left out: the metadata have no place to say so.

    Args:
        name: of the model.
        license: of its weights, as the Hub names it.
        language: of the texts that it reads.
        results: as `svtrv2 evaluate` writes them.
        source: name and address of who published the results, where it is somebody else.
        others: fields of `huggingface_hub.ModelCardData`.
    """
    evaluated = [
        EvalResult(
            task_type="image-to-text",
            task_name="Text recognition",
            dataset_type=set_name.lower(),
            dataset_name=set_name,
            metric_type="accuracy",
            metric_name=METRIC[one["protocol"]],
            metric_value=round(100 * rounded(one["word_accuracy"], 4), 2),
            source_name=source[0] if source else None,
            source_url=source[1] if source else None,
        )
        for set_name, one in (results or {"sets": {}})["sets"].items()
        if one["samples"] and not one.get("warnings")
    ]
    return ModelCardData(
        model_name=name,
        language=language,
        license=license,
        library_name="transformers",
        pipeline_tag="image-to-text",
        tags=TAGS,
        metrics=["accuracy"],
        **others,
        eval_results=evaluated or None,
    )


def render_card(
    folder: Path, repo: str, license: str | None, language: str | None = None, results: Mapping[str, Any] | None = None
) -> str:
    """A card for a saved recogniser: what it is, how to use it, how it was trained and how well it reads.

    Args:
        folder: of the recogniser; if training left its `run.json` there, the card tells of it.
        repo: `OWNER/NAME` on the Hub.
        license: of its weights.
        language: of the texts that it reads.
        results: as `svtrv2 evaluate` writes them.

    Raises:
        ValueError: there is no licence, without which nobody may use the model, or it is not written as the Hub writes it.
    """
    if not license:
        raise ValueError(
            "A card needs the licence of the weights, which depends on the data: pass --license, for instance apache-2.0."
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise ValueError(
            f"--license {license!r} is not written as the Hub writes licences, in small letters without spaces: apache-2.0, cc-by-4.0, "
            "..., or other."
        )
    config, processor = load_config(folder), load_processor(folder)
    name = repo.split("/")[1]
    parts = [
        f"---\n{metadata(name, license, language, results).to_yaml()}\n---",
        f"# {name}",
        f"Reads crops of single words and lines: an SVTRv2 ([paper](https://arxiv.org/abs/2411.15858)) of {_size(config)}, trained "
        f"with svtrv2-hf. {_charset(processor)}",
        _USE.replace("REPO", repo),
        _LIMITS,
    ]
    if results is not None:
        parts.insert(-1, f"## Accuracy\n\n{markdown(results)}")
    if (folder / "run.json").is_file():
        parts.insert(-1, _training(json.loads((folder / "run.json").read_text(encoding="utf-8")), folder))
    return "\n\n".join(parts) + "\n"


_USE = """## Use

```python
from transformers import pipeline

read = pipeline("image-to-text", "REPO", trust_remote_code=True)
read("word.png")  # [{"generated_text": ..., "score": ...}]
```

or, with svtrv2-hf installed, without trusting the code of the repository:

```python
import svtrv2_hf
from transformers import pipeline

read = pipeline("text-recognition", "REPO")
```"""

_LIMITS = """## Limits

One line of text at a time, upright or turned by little; text turned by a quarter needs `rotate_vertical=True`. Characters outside the charset are
read as others, or not at all. A score tells how sure the model is, which is not how often it is right."""


def _size(config: SVTRv2Config) -> str:
    parameters = SVTRv2ForCTC(config).drop_guidance().num_parameters() / 1e6
    size = f"size {config.preset_name}, " if config.preset_name else ""
    return f"{size}{parameters:.2f} M parameters"


def _charset(processor: SVTRv2Processor) -> str:
    characters = charset_of(processor.tokenizer)
    shown = "".join(characters) if len(characters) <= 120 else "".join(characters[:100]) + " …"
    space = " and the space" if " " in characters else "; no space"
    # two backticks, since one of the characters may be a backtick
    return f"It knows {len(characters) - (' ' in characters)} characters{space}: `` {shown.strip()} ``"


def _training(run: Mapping[str, Any], folder: Path) -> str:
    samples = "" if run["samples"] is None else f", {run['samples']:,} samples"
    hours = "" if run["hours"] is None else f", {run['hours']:.1f} hours"
    lines = [
        "## Training",
        f"    {redact(run['command'])}",  # earlier versions recorded it as it was
        f"{run['steps']:,} steps{samples}{hours} on {run['machine']}; seed {run['seed']}, {run['date']}.",
    ]
    if (folder / "learning_curve.png").is_file():
        lines.append("![Learning curve](learning_curve.png)")
    if run["recipe"]:
        recipe = json.dumps(redact_values(run["recipe"]), indent=1, ensure_ascii=False)
        lines.append(f"The recipe:\n\n```json\n{recipe}\n```")
    return "\n\n".join(lines)
