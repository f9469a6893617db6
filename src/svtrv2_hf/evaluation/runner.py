# SPDX-License-Identifier: Apache-2.0
"""Evaluation of a model on datasets, with results files: `svtrv2 evaluate`."""

import copy
import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from tqdm import tqdm
from transformers.utils import logging

from ..charsets import Normalization, charset_of, normalize_unicode
from ..checkpoint import checkpoint_folder
from ..console import printable, warn
from ..data.batches import EvaluationBatches
from ..data.loader import Loader, plain_worker_errors
from ..data.sample import Source
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..paths import user_path
from ..processing_svtrv2 import SVTRv2Processor
from ..redaction import redact
from ..runtime.model import SVTRv2ForCTCRuntime, load_for_backend
from ..sources import Place, default_name, open_source, split_spec
from .benchmarks import BENCHMARKS, averages, benchmark_at, default_protocol, find_sets
from .error_figure import write_figure
from .error_page import write_page
from .errors import Errors
from .prediction import Prediction, predict
from .protocols import EvaluationProtocol
from .provenance import provenance, weights_digest
from .results import SetResult
from .tables import csv_rows, markdown


def evaluate_sets(
    model: str,
    data: str | None = None,
    sets: Sequence[str] | None = None,
    labels: str | None = None,
    protocol: EvaluationProtocol | None = None,
    max_ratio: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | None = None,
    output: str | None = None,
    errors: str | None = None,
    normalize: Normalization = "none",
    backend: str = "torch",
    file_name: str | None = None,
) -> int:
    """Evaluate a model on datasets, print tables, and write results files.

    Args:
        model: folder or Hub id of a saved model, or "default".
        data, sets, labels: see [`open_sets`].
        protocol, max_ratio, batch_size, workers, normalize: see [`evaluate_set`].
        device: defaults to a GPU if available.
        output: a `.json` file, written after each dataset; tables are written with the extensions `.csv` and `.md`.
        errors: a folder for the error analysis (`errors.html`, `errors.png`) and all predictions (`predictions.jsonl`).
        backend: "torch", or a backend of [`SVTRv2ForCTCRuntime`], of which `file_name` is a file.

    Returns:
        0 without warnings; 1 if a dataset or an image was unreadable, a benchmark does not have the expected number of samples, or
        a protocol does not suit the labels.

    Raises:
        ValueError, OSError: no dataset can be opened, or the model cannot be loaded.
    """
    sources, without_list = open_sets(data, sets or [], labels)
    if without_list:
        warn(f"{labels} not found, default labels are used: {', '.join(without_list)}.")
    for name, source in sources.items():
        if isinstance(source, Exception):  # reported before the evaluation, so that it can be fixed first
            warn(f"{name} cannot be evaluated: {source}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    network, processor = load_for_backend(model, backend, file_name, use_guidance=False)
    exported = network.file if isinstance(network, SVTRv2ForCTCRuntime) else None
    network = network.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    collected = Errors()
    options: dict[str, Any] = {
        "protocol": protocol,
        "max_ratio": max_ratio,
        "batch_size": batch_size,
        "workers": workers,
        "normalize": normalize,
    }
    results: dict[str, Any] = {
        "model": model,
        "weights_sha256": weights_digest(checkpoint_folder(model), exported),
        **({} if exported is None else {"file": f"{backend}/{exported.name}"}),
        "parameters": network.num_parameters(),
        "max_ratio": max_ratio or "of each dataset",
        "protocol": protocol or "of each dataset",
        "labels": labels,
        **({} if normalize == "none" else {"normalize": normalize}),
        **provenance(),
        "sets": {},
        "unfinished": dict.fromkeys(sources, "not reached"),
    }
    with ExitStack() as stack:
        log: TextIO | None = None
        if errors is not None:
            Path(errors).mkdir(parents=True, exist_ok=True)
            log = stack.enter_context((Path(errors) / "predictions.jsonl").open("w", encoding="utf-8"))
        for name, source in sources.items():
            before = copy.deepcopy(collected)
            try:
                if isinstance(source, Exception):
                    raise source
                result = evaluate_set(network, processor, source, name, errors=collected, log=log, **options)
            except Exception as error:  # the other datasets are evaluated after any error
                collected = before
                results["unfinished"][name] = redact(f"{type(error).__name__}: {error}")
            else:
                if labels is not None and name not in without_list:
                    result["labels"] = labels
                results["sets"][name] = result
                del results["unfinished"][name]
            results["averages"] = averages(
                {n: (result["samples"], result["correct"]) for n, result in results["sets"].items()}
            )
            results["errors"] = collected.summary()
            if output is not None:
                write_results(results, Path(output))
    print(printable(markdown(results), keep="\n"))
    if errors is not None:
        title = f"Errors of {'the bundled checkpoint' if model == 'default' else model}"
        write_page(collected, Path(errors) / "errors.html", title)
        write_figure(collected, Path(errors) / "errors.png", title)
    warnings = [warning for result in results["sets"].values() for warning in result.get("warnings", [])]
    warnings += [f"{name} was not evaluated: {why}" for name, why in results["unfinished"].items()]
    for warning in warnings:
        warn(warning)
    return 1 if warnings else 0


_NAMED = re.compile(r"([^=:/?]+)=(.+)", flags=re.DOTALL)  # NAME=SOURCE, but not hub:user/dataset?split=test


def open_sets(
    data: str | None, sets: Sequence[str], labels: str | None = None
) -> tuple[dict[str, Source | ValueError | OSError], list[str]]:
    """Open datasets.

    A source without a name has the name of the benchmark whose folder it is, or else its own. For datasets on the Hub, the
    default split is `test`.

    Args:
        data: folder that contains the folders of the datasets; see [`find_sets`].
        sets: names of datasets in `data` (default: all), `NAME=SOURCE`, or sources, as for `open_source`. With `data`, a word without
            a slash or colon is a name.
        labels: name of another label file, used for the datasets that have it in their folder.

    Returns:
        The datasets by name, benchmarks first and in their usual order, with the error of each that cannot be opened; and
        the names of the datasets without that label file, which use their default labels.

    Raises:
        ValueError, OSError: no dataset is given, a dataset was not found, two datasets have the same name, none has that
            label file, or none can be opened.
    """
    if data is not None and data.startswith("hub:"):
        raise ValueError(f"--data {data} is a dataset, not a folder of datasets: svtrv2 evaluate {data} reads it.")
    names, given = [], []
    for word in sets:
        if named := _NAMED.fullmatch(word):
            given.append((benchmark_at(named[1]) or named[1], named[2]))
        elif ":" in word or "/" in word or (data is None and Place(split_spec(word)[0]).files):
            place, options = split_spec(word)
            name = options.get("name")
            given.append((benchmark_at(name or place.removeprefix("hub:")) or name or default_name(place), word))
        else:
            names.append(word)
    if data is None and (names or not given):
        raise ValueError("Specify a folder of datasets (--data FOLDER), or datasets (NAME=SOURCE).")
    if data is not None and given and not names:
        raise ValueError(f"None of the datasets is in --data {data}: name some of its folders, or omit --data.")
    folders = find_sets(Path(data), names or None) if data is not None else {}
    places = {name: str(folder) for name, folder in folders.items()}
    for name, place in given:
        if name in places:
            raise ValueError(f"Two datasets are named {name}: {places[name]} and {place}. Rename one: NAME={place}.")
        places[name] = place
    without = []
    if labels is not None:
        for name, place in places.items():
            folder, _ = split_spec(place)
            listing = user_path(folder) / labels
            if listing.is_file():
                places[name] = f"{listing}{place.removeprefix(folder)}"
            else:
                without.append(name)
        if len(without) == len(places):
            raise FileNotFoundError(f"No dataset has the label file {labels}: {', '.join(without)}.")
    opened: dict[str, Source | ValueError | OSError] = {}
    for name in [*BENCHMARKS, *(name for name in places if name not in BENCHMARKS)]:
        if name in places:
            try:
                opened[name] = open_source(places[name], split="test")
            except (ValueError, OSError) as error:
                opened[name] = error
    errors = [source for source in opened.values() if isinstance(source, Exception)]
    if len(errors) == len(opened):
        raise errors[0]
    return opened, without


def evaluate_set(
    model: SVTRv2ForCTC | SVTRv2ForCTCRuntime,
    processor: SVTRv2Processor,
    source: Source,
    name: str,
    protocol: EvaluationProtocol | None = None,
    max_ratio: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    errors: Errors | None = None,
    log: TextIO | None = None,
    normalize: Normalization = "none",
) -> dict[str, Any]:
    """Evaluate a model on one dataset.

    Args:
        model: the model.
        processor: processor of the model.
        source: the dataset.
        name: name of the dataset, which may be a benchmark.
        protocol: defaults to the protocol of the benchmark; for other datasets, to "exact".
        max_ratio: maximum aspect ratio of resized images; defaults to that of the benchmark or of the model.
        batch_size: batch size, which does not influence the results.
        workers: number of data-loading workers.
        errors: collects the errors.
        log: text file for a JSON line per prediction.
        normalize: Unicode normalization form in which predictions and labels are compared.

    Returns:
        The result of [`SetResult`], the protocol and the maximum ratio; for a benchmark with other settings than usual
        `unlike_published`, which describes them; and `warnings` if there are any.
    """
    benchmark = BENCHMARKS.get(name)
    charset = charset_of(processor.tokenizer)
    usual = default_protocol(name)
    protocol = protocol or usual
    usual_ratio = (benchmark.max_ratio if benchmark else None) or processor.image_processor.max_ratio
    image_processor = copy.copy(processor.image_processor)
    image_processor.max_ratio = max_ratio or usual_ratio
    batches = Loader(EvaluationBatches(source, image_processor, batch_size), num_workers=workers)
    result = SetResult(protocol, charset, benchmark.max_label_length if benchmark and protocol == usual else None)
    predictions = cast(
        Iterable[Prediction],
        tqdm(predict(model, processor, batches), printable(name), source.num_samples, unit=" images", disable=None),
    )
    with plain_worker_errors():
        for prediction in predictions:
            if normalize != "none":
                sample = prediction.sample._replace(text=normalize_unicode(prediction.sample.text, normalize))
                text = normalize_unicode(prediction.text, normalize)
                prediction = dataclasses.replace(prediction, sample=sample, text=text)
            correct = result.add(prediction)
            if errors is not None:
                errors.add(name, prediction, protocol)
            if log is not None:
                log.write(json.dumps(_line(name, prediction, correct), ensure_ascii=False) + "\n")
    differences = []
    if benchmark and protocol != usual:
        differences.append(f"evaluated with the {protocol} protocol instead of {usual}")
    if benchmark and image_processor.max_ratio != usual_ratio:
        differences.append(f"resized with a max ratio of {image_processor.max_ratio} instead of {usual_ratio}")
    if benchmark and normalize != "none":
        differences.append(f"normalized to {normalize.upper()}")
    warnings = list(_warnings(name, source, result))
    return {
        "protocol": protocol,
        "max_ratio": image_processor.max_ratio,
        **result.to_dict(),
        **({"unlike_published": ", and ".join(differences)} if differences else {}),
        **({"warnings": warnings} if warnings else {}),
    }


def _warnings(name: str, source: Source, result: SetResult) -> Iterator[str]:
    benchmark = BENCHMARKS.get(name)
    samples = int(result.score.samples)
    for image in result.unreadable:
        yield f"{name}: {image} is unreadable and counts as an error."
    if benchmark:
        counts = [(name, result.score.samples, benchmark.samples)]
        if result.protocol == benchmark.protocol:  # with which the lengths are counted
            for group in benchmark.length_groups:
                scores = [score.samples for length, score in result.by_length.items() if length in group.lengths]
                counts.append((group.name, sum(scores), group.samples))
        for part, count, expected in counts:
            if count != expected:
                yield (
                    f"{part} has {count:,.0f} samples, but the benchmark has {expected:,}: its accuracy is not comparable "
                    "with published results."
                )
        if result.empty:
            yield f"{name}: {result.empty:,} of {samples:,} labels are empty, unlike in any benchmark: check the labels."
    elif 2 * result.empty > samples:
        yield f"{name}: {result.empty:,} of {samples:,} labels are empty, so the accuracy is not meaningful: check the labels."
    many = 2 * result.cut > samples
    if many or (benchmark and benchmark.protocol == "no_spaces" and result.protocol == "alphanumeric"):
        yield (
            f"{name}: the {result.protocol} protocol ignores letters or digits, or everything, of {result.cut:,} of {samples:,} "
            "labels, so the accuracy is not meaningful: use --protocol exact or no_spaces."
        )
    if source.num_samples not in (None, samples):
        yield f"{name}: got {samples:,} samples, but expected {source.num_samples:,}."


def _line(name: str, prediction: Prediction, correct: bool) -> dict[str, Any]:
    line = {
        "set": name,
        "image": prediction.sample.name,
        "label": prediction.sample.text,
        "text": prediction.text,
        "score": round(prediction.score, 4),
        "correct": correct,
    }
    return {**line, "error": prediction.error} if prediction.error else line


def write_results(results: dict[str, Any], path: Path) -> None:
    """Write results to `path`, and tables to `.csv` and `.md` files next to it, each atomically."""
    table = io.StringIO()
    csv.writer(table).writerows(csv_rows(results))
    texts = {
        ".json": json.dumps(results, indent=1, ensure_ascii=False) + "\n",
        ".md": markdown(results) + "\n",
        ".csv": table.getvalue(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        target = path.with_suffix(suffix)
        unfinished = target.with_name(f".{target.name}.unfinished")
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(target)
