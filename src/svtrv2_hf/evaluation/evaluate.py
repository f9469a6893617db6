# SPDX-License-Identifier: Apache-2.0
"""The command `svtrv2 evaluate`: reads labelled sets with a model, and writes down how well."""

import copy
import csv
import dataclasses
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO, cast

import torch
from tqdm import tqdm
from transformers.utils import logging

from ..charsets import Normalization, charset_of, normalize_unicode
from ..checkpoint import checkpoint_folder, load_model_and_processor
from ..console import printable
from ..data.batches import EvaluationBatches
from ..data.loader import Loader, plain_worker_errors
from ..data.sample import Source
from ..modeling_svtrv2 import SVTRv2ForCTC
from ..paths import user_path
from ..processing_svtrv2 import SVTRv2Processor
from ..redaction import redact
from ..sources import default_name, open_source, split_spec
from .benchmarks import BENCHMARKS, Benchmark, averages, benchmark_at, find_sets
from .error_figure import write_figure
from .error_page import write_page
from .errors import Errors
from .evaluator import Prediction, read
from .metrics import Protocol, usual_protocol
from .provenance import provenance, weights_digest
from .results import SetResult
from .tables import csv_rows, markdown


def run(
    model: str,
    data: str | None = None,
    sets: Sequence[str] | None = None,
    labels: str | None = None,
    protocol: Protocol | None = None,
    max_ratio: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str | None = None,
    output: str | None = None,
    errors: str | None = None,
    normalize: Normalization = "none",
) -> int:
    """The command `svtrv2 evaluate`.

    Args:
        model: a saved recogniser's folder or name on the Hub, or "default".
        data: a folder that holds the sets' folders.
        sets: names of sets to look for in `data` (default: all that are there), or `NAME=SOURCE`, or sources alone, as
            `open_source` takes them.
        labels: the name of another list of labels, for the sets that have it in their folder.
        protocol: for all sets; by default that of the benchmark, and for other sets the one that suits the model's charset.
        max_ratio: widest image in units of its height; by default that of the benchmark or of the model.
        batch_size, workers: do not change what is read.
        device: where to compute; by default a GPU if there is one.
        output: a `.json` file, written after each set; the same name with `.csv` and `.md` holds tables.
        normalize: the Unicode normalization form in which predictions and labels are compared; a saved model does not store it.
        errors: a folder for the error analysis (`errors.html`, `errors.png`) and all predictions (`readings.jsonl`).

    Returns:
        0 if every set and image could be read, every benchmark has as many samples as it should, and the protocols suit the
        labels; 1 if not.

    Raises:
        ValueError, OSError: there is nothing to read, or a set or the model cannot be opened.
    """
    if output is not None and Path(output).suffix != ".json":
        raise ValueError(f"--output {output} must end in .json; tables are written beside it.")
    sources, without_list = open_sets(data, sets or [], labels)
    if without_list:
        print(f"svtrv2: without {labels}, read by their usual labels: {', '.join(without_list)}.", file=sys.stderr)
    for name, source in sources.items():
        if isinstance(source, Exception):  # reported before the work, in case it is to be mended first
            print(f"svtrv2: {name} cannot be evaluated: {source}", file=sys.stderr)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    folder = checkpoint_folder(model)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    recogniser, processor = load_model_and_processor(model, use_guidance=False)
    recogniser = recogniser.to(device).eval()
    found = Errors()
    results: dict[str, Any] = {
        "model": model,
        "weights_sha256": weights_digest(folder),
        "parameters": recogniser.num_parameters(),
        "max_ratio": max_ratio or "of each set",
        "protocol": protocol or "of each set",
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
            log = stack.enter_context((Path(errors) / "readings.jsonl").open("w", encoding="utf-8"))
        for name, source in sources.items():
            before = copy.deepcopy(found)
            try:
                if isinstance(source, Exception):
                    raise source
                one = evaluate_set(
                    recogniser,
                    processor,
                    source,
                    name,
                    protocol,
                    max_ratio,
                    batch_size,
                    workers,
                    found,
                    log,
                    normalize,
                )
            except Exception as error:  # whatever is wrong with one set, the others are read
                found = before
                results["unfinished"][name] = redact(f"{type(error).__name__}: {error}")
            else:
                if labels is not None and name not in without_list:
                    one["labels"] = labels
                results["sets"][name] = one
                del results["unfinished"][name]
            counts = {name: (one["samples"], one["correct"]) for name, one in results["sets"].items()}
            results["averages"] = averages(counts)
            results["errors"] = found.summary()
            if output is not None:
                write(results, Path(output))
    print(printable(markdown(results), keep="\n"))
    if errors is not None:
        title = f"Errors of {'the default checkpoint' if model == 'default' else model}"
        write_page(found, Path(errors) / "errors.html", title)
        write_figure(found, Path(errors) / "errors.png", title)
    faults = [warning for one in results["sets"].values() for warning in one.get("warnings", [])]
    faults += [f"{name} was not evaluated: {why}" for name, why in results["unfinished"].items()]
    for fault in faults:
        print(f"svtrv2: {printable(fault)}", file=sys.stderr)
    return 1 if faults else 0


_NAMED = re.compile(r"([^=:/?]+)=(.+)", flags=re.DOTALL)  # NAME=SOURCE, but not hub:user/dataset?split=test


def open_sets(
    data: str | None, sets: Sequence[str], labels: str | None = None
) -> tuple[dict[str, Source | ValueError | OSError], list[str]]:
    """Opens the sets to read.

    A source without a name takes that of the benchmark whose folder it is, or else the source's own. Of a dataset of the Hub
    the split `test` is read if the source names none.

    Args:
        data, sets, labels: as of `run`.

    Returns:
        the sets by name, benchmarks first and in their usual order, or the error of a set that cannot be opened; and the names of
        those that have no such list of labels and are read by their usual one.

    Raises:
        ValueError, OSError: nothing is asked for, a set is not there, two have one name, none has such a list of labels, or none
            can be opened.
    """
    if data is not None and data.startswith("hub:"):
        raise ValueError(f"--data {data} is no folder of sets, but one set: --sets {data} reads it.")
    names, given = [], []
    for word in sets:
        if named := _NAMED.fullmatch(word):
            given.append((benchmark_at(named[1]) or named[1], named[2]))
        elif ":" in word or "/" in word:
            place, options = split_spec(word)
            name = options.get("name")
            given.append((benchmark_at(name or place.removeprefix("hub:")) or name or default_name(place), word))
        else:
            names.append(word)
    if data is None and (names or not given):
        raise ValueError("Name a folder that holds the sets (--data), or sets by --sets NAME=SOURCE.")
    if data is not None and given and not names:
        raise ValueError(
            f"--sets names none of the sets in {data}, which would not be read: name some, or leave out --data."
        )
    found = find_sets(Path(data), names or None) if data is not None else {}
    places = {name: str(folder) for name, folder in found.items()}
    for name, place in given:
        if name in places:
            raise ValueError(
                f"Two sets have the name {name}: {places[name]} and {place}. Name one otherwise: NAME={place}."
            )
        places[name] = place
    without = []
    if labels is not None:
        for name, place in places.items():
            if listed := _by_list(place, labels):
                places[name] = listed
            else:
                without.append(name)
        if len(without) == len(places):
            raise FileNotFoundError(f"None of the sets has a list of labels {labels}: {', '.join(without)}.")
    order = [*BENCHMARKS, *(name for name in places if name not in BENCHMARKS)]
    opened: dict[str, Source | ValueError | OSError] = {}
    for name in order:
        if name in places:
            try:
                opened[name] = open_source(places[name], split="test")
            except (ValueError, OSError) as error:
                opened[name] = error
    errors = [one for one in opened.values() if isinstance(one, Exception)]
    if len(errors) == len(opened):
        raise errors[0]
    return opened, without


def _by_list(place: str, labels: str) -> str | None:
    """The same source by another list of labels in its folder; `None` if there is none."""
    folder, _ = split_spec(place)
    listing = user_path(folder) / labels
    return f"{listing}{place.removeprefix(folder)}" if listing.is_file() else None


def evaluate_set(
    model: SVTRv2ForCTC,
    processor: SVTRv2Processor,
    source: Source,
    name: str,
    protocol: Protocol | None = None,
    max_ratio: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    errors: Errors | None = None,
    log: TextIO | None = None,
    normalize: Normalization = "none",
) -> dict[str, Any]:
    """Reads one set.

    Args:
        model: in evaluation mode.
        processor: of the model.
        source: the set.
        name: if it is that of a benchmark, its protocol and its number of samples are taken from there.
        protocol, max_ratio, batch_size, workers, normalize: as of `run`.
        errors: collects what is misread.
        log: a text file, gets a JSON line for each reading.

    Returns:
        as of [`SetResult`], with the protocol and the max ratio; `unlike_published`, how a benchmark was read otherwise than by
        those whose figures are published; and `warnings` if anything is not as it should be.
    """
    benchmark = BENCHMARKS.get(name)
    charset = charset_of(processor.tokenizer)
    usual = benchmark.protocol if benchmark else usual_protocol(charset)
    protocol = protocol or usual
    usual_ratio = (benchmark.max_ratio if benchmark else None) or processor.image_processor.max_ratio
    image_processor = copy.copy(processor.image_processor)
    image_processor.max_ratio = max_ratio or usual_ratio
    batches = Loader(EvaluationBatches(source, image_processor, batch_size), num_workers=workers)
    result = SetResult(protocol, charset, benchmark.max_label_length if benchmark and protocol == usual else None)
    predictions = cast(
        Iterable[Prediction],
        tqdm(read(model, processor, batches), name, source.num_samples, unit=" images", disable=None),
    )
    with plain_worker_errors():
        for prediction in predictions:
            if normalize != "none":
                sample = prediction.sample._replace(text=normalize_unicode(prediction.sample.text, normalize))
                prediction = dataclasses.replace(
                    prediction, sample=sample, text=normalize_unicode(prediction.text, normalize)
                )
            correct = result.add(prediction)
            if errors is not None:
                errors.add(name, prediction, protocol)
            if log is not None:
                log.write(json.dumps(_line(name, prediction, correct), ensure_ascii=False) + "\n")
    unlike_published = []
    if benchmark and protocol != usual:
        unlike_published.append(f"compared by the {protocol} protocol, not the {usual} one")
    if benchmark and image_processor.max_ratio != usual_ratio:
        unlike_published.append(f"read at a max ratio of {image_processor.max_ratio}, not {usual_ratio}")
    if benchmark and normalize != "none":
        unlike_published.append(f"compared in Unicode's {normalize.upper()}")
    warnings = list(_warnings(name, result))
    samples = int(result.score.samples)
    if source.num_samples not in (None, samples):
        warnings.append(f"{name}: {samples:,} samples were read of {source.num_samples:,} that it should have.")
    return {
        "protocol": protocol,
        "max_ratio": image_processor.max_ratio,
        **result.to_dict(),
        **({"unlike_published": ", and ".join(unlike_published)} if unlike_published else {}),
        **({"warnings": warnings} if warnings else {}),
    }


def _warnings(name: str, result: SetResult) -> Iterator[str]:
    benchmark = BENCHMARKS.get(name)
    samples = int(result.score.samples)
    for image in result.unreadable:
        yield f"{name}: {image} could not be read and counts as misread."
    if benchmark:
        yield from _wrong_counts(benchmark, result)
        if result.empty:
            yield f"{name}: {result.empty:,} of {samples:,} labels are empty, which no benchmark's are: look at its labels."
    elif samples and result.empty == samples:
        yield f"{name}: all {samples:,} labels are empty, so that the accuracy says nothing: look at its labels."
    if 2 * result.cut > samples or (benchmark and benchmark.protocol == "chinese" != result.protocol):
        hint = "; --protocol chinese compares everything but spaces" if result.protocol == "english" else ""
        yield (
            f"{name}: the {result.protocol} protocol leaves out letters or digits, or everything, of {result.cut:,} of {samples:,} "
            f"labels, so that the accuracy says little{hint}."
        )


def _wrong_counts(benchmark: Benchmark, result: SetResult) -> Iterator[str]:
    counts = [(benchmark.name, result.score.samples, benchmark.samples)]
    if result.protocol == benchmark.protocol:  # by which the lengths are counted
        for group in benchmark.length_groups:
            found = sum(part.samples for length, part in result.by_length.items() if length in group.lengths)
            counts.append((group.name, found, group.samples))
    for name, found, expected in counts:
        if found != expected:
            yield (
                f"{name} has {found:,.0f} samples, but the benchmark has {expected:,}: its accuracy cannot be compared with "
                "published ones."
            )


def _line(name: str, prediction: Prediction, correct: bool) -> dict[str, Any]:
    line = {
        "set": name,
        "image": prediction.sample.name,
        "label": prediction.sample.text,
        "text": prediction.text,
        "score": round(prediction.score, 4),
        "right": correct,
    }
    return {**line, "error": prediction.error} if prediction.error else line


def write(results: dict[str, Any], path: Path) -> None:
    """Writes `path`, and the tables beside it as `.csv` and `.md`, each in one step: what is there is always whole."""
    table = io.StringIO()
    csv.writer(table).writerows(csv_rows(results))
    texts = {
        ".json": json.dumps(results, indent=1, ensure_ascii=False) + "\n",
        ".md": markdown(results) + "\n",
        ".csv": table.getvalue(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix, text in texts.items():
        place = path.with_suffix(suffix)
        unfinished = place.with_name(f".{place.name}.unfinished")
        unfinished.write_text(text, encoding="utf-8", newline="")
        unfinished.replace(place)
