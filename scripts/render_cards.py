#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Render the model cards, and the tables of the README and the guides, from results files.

    python scripts/render_cards.py           # write them
    python scripts/render_cards.py --check   # list those that are out of date

The cards are that of the bundled checkpoint, in `model_cards/` and next to its weights, and one per system of the paper listed in
`model_cards/paper.json`, with the results published by its authors.
"""

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark  # in the folder of this script
import benchmark_data
import torch

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, default_checkpoint
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.evaluation.benchmarks import BENCHMARKS, PUBLISHED, PublishedResult
from svtrv2_hf.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from svtrv2_hf.evaluation.speed import multiply_adds
from svtrv2_hf.evaluation.speed_report import render
from svtrv2_hf.evaluation.tables import markdown
from svtrv2_hf.hub.card import fill_template, metadata
from svtrv2_hf.reporting import markdown_table
from svtrv2_hf.sources import FORMATS, describe
from svtrv2_hf.training.arguments import METRIC_SCHEDULES, NOT_SUPPORTED


README = Path(__file__).parents[1] / "README.md"
CARDS = README.parent / "model_cards"
RESULTS = CARDS / "results"
TEMPLATES = CARDS / "templates"
PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]
NAMED = ("IIIT5k", "SVT", "IC13_857")  # datasets shown in the README
CLASSES = {"en": 95, "zh": 6624}  # classes of the paper's models, the blank included
CHARACTERS = {
    "en": "the 94 printable ASCII characters, without the space",
    "zh": "6,623 Chinese and other characters",
}
PROTOCOL: dict[str, EvaluationProtocol] = {"en": "alphanumeric", "zh": "no_spaces"}  # of the paper
TRAINING_DATA = {
    "Union14M-L-Filter": "3,224,143 photographed words: Union14M-L without the images of its benchmark",
    "MJ+ST": "MJSynth and SynthText, synthetic English words",
    "BCTR": "the training sets of the Chinese text recognition benchmark of Fudan University",
}
LIMITS = {
    "en": "Predictions contain only ASCII characters, without spaces. Few training images are long lines (LTB in the table).",
    "zh": "Trained with images up to eight times as wide as high: longer lines are resized to that ratio.",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if a file is out of date"
    )
    check = parser.parse_args().check
    out_of_date = [
        (path, text) for path, text in cards().items() if not path.is_file() or path.read_text("utf-8") != text
    ]
    for path, text in out_of_date:
        if not check:
            path.write_text(text, encoding="utf-8")
        print(f"{path} {'is out of date: run scripts/render_cards.py' if check else 'written'}.", file=sys.stderr)
    return int(check and bool(out_of_date))


def cards() -> dict[Path, str]:
    """Return the content of every file."""
    card = default_card()
    papers = json.loads((CARDS / "paper.json").read_text(encoding="utf-8"))
    return {
        **{page: with_tables(page) for page in PAGES},
        CARDS / "svtrv2-nano-synthetic.md": card,
        **{CARDS / f"{paper['name']}.md": paper_card(paper) for paper in papers},
        # Images and results are not part of the package.
        Path(default_checkpoint()) / "README.md": re.sub(
            r"\[([^]]+)\]\(results/[^)]+\)", r"\1", card.replace("![", "[")
        ),
    }


def default_card() -> str:
    """Return the card of the bundled checkpoint."""
    run, evaluation, chinese = (read(f"synthetic_nano/{name}") for name in ("run", "evaluation", "evaluation_chinese"))
    sets = evaluation["sets"]
    named = {name: sets[name] for name in NAMED}
    return fill_template(
        TEMPLATES / "synthetic.md.j2",
        metadata("SVTRv2 nano, trained on synthetic text", "apache-2.0", "en", {"sets": named}),
        mean=mean(evaluation),
        parameters=f"{evaluation['parameters'] / 1e6:.2f}",
        accuracy=markdown(evaluation),
        accuracy_chinese=markdown(chinese),
        kinds=kinds(evaluation["errors"]),
        confusions=confusions(evaluation["errors"]),
        training=training_record(run),
        fonts=fonts(),
    )


def paper_card(paper: dict[str, Any]) -> str:
    """Return the card of a system of the paper."""
    name, language, size = paper["name"], paper["language"], paper["size"]
    [result] = [
        result
        for result in PUBLISHED
        if (result.system, result.training_data) == (paper["system"], paper["training_data"])
    ]
    protocol = PROTOCOL[language]
    sets = {
        name: {"samples": 1, "protocol": protocol, "word_accuracy": percent / 100}
        for name, percent in result.sets.items()
    }
    data = metadata(
        name,
        "other",
        language,
        {"sets": sets},
        ("SVTRv2 paper", "https://arxiv.org/abs/2411.15858"),
        license_name="not-stated-for-the-weights",
        license_link="https://github.com/Topdu/OpenOCR/blob/main/LICENSE",
        datasets=["topdu/OpenOCR-Data"],
    )
    config = SVTRv2Config(**PRESETS[size], vocab_size=CLASSES[language])
    with torch.device("meta"):  # without weights
        model = SVTRv2ForCTC(config).eval()
    published = result.parameters_millions
    return fill_template(
        TEMPLATES / "paper.md.j2",
        data,
        name=name,
        size=size,
        system=paper["system"],
        training_data=paper["training_data"],
        characters=CHARACTERS[language],
        weights=weights(paper),
        source=result.source,
        compared=PROTOCOLS[protocol],
        published=published_table(result),
        parameters=f"{model.num_parameters() / 1e6:.2f}",
        published_parameters="" if published is None else f" (published: {published})",
        multiply_adds=f"{multiply_adds(model, (32, 128)) / 1e9:.3f}",
        limits=LIMITS[language],
        training=training(paper),
    )


def weights(paper: dict[str, Any]) -> str:
    """Describe how to download and convert the weights of a system of the paper."""
    if paper["weights"] is None:
        return (
            "The authors have not published the weights, according to their table. The recipes below train such a model; unless you "
            "compare training data, use the model trained on Union14M-L-Filter, which is more accurate."
        )
    options = " --charset ppocr_keys_v1.txt --max-ratio 8" if paper["language"] == "zh" else ""
    text = (
        f"The authors' weights are on Google Drive and must be downloaded manually: [{paper['system']}]({paper['weights']}), with "
        f"configuration and log. Download the checkpoint, `best.pth`, and convert it:\n\n"
        f"    svtrv2 convert best.pth --output {paper['name']}{options}\n\n"
        "The converter infers everything else from the tensors, and stops if a tensor is unused or missing."
    )
    if paper["language"] == "zh":
        text += " The charset file is `tools/utils/ppocr_keys_v1.txt` of OpenOCR."
    return text


def published_table(result: PublishedResult) -> str:
    """Return the published results of a system as a table."""
    samples = {part.name: part.samples for entry in BENCHMARKS.values() for part in (entry, *entry.length_groups)}
    rows: list[list[Any]] = [[name, f"{samples[name]:,}", percent] for name, percent in result.sets.items()]
    rows += [[f"{group}, mean over its datasets", None, percent] for group, percent in result.averages.items()]
    return markdown_table(["dataset", "samples", "published"], rows)


def training_record(run: dict[str, Any]) -> str:
    """Describe a training run from its record."""
    done, planned = run["steps"], run["recipe"]["max_steps"]
    steps = f"{done:,} steps" if done == planned else f"{done:,} of the recipe's {planned:,} steps"
    return "\n\n".join(
        [
            f"    {run['command']}",
            f"{steps}, {run['samples']:,} images, {run['hours']:.1f} hours on {run['machine']}; seed {run['seed']}, evaluated {run['date']}, "
            f"code of commit\n{run['commit']}.",
            curve(run["evaluations"]),
            f"<details><summary>The recipe</summary>\n\n```json\n{json.dumps(run['recipe'], indent=1)}\n```\n\n</details>",
        ]
    )


def training(paper: dict[str, Any]) -> str:
    """Describe the training data of a system, and the recipes to train such a model."""
    commands = []
    for number, recipe in enumerate(paper["recipes"], 1):
        output = f"output/{paper['name']}" + ("" if number == len(paper["recipes"]) else "_stage1")
        model = paper["size"] if number == 1 else f"output/{paper['name']}_stage1"
        commands.append(
            f"    accelerate launch --num_processes 4 scripts/train.py scripts/recipes/{recipe}.yaml --model {model} --output_dir {output}"
        )
    return (
        f"On {paper['training_data']}, {TRAINING_DATA[paper['training_data']]}. With svtrv2-hf, the authors' settings are (4 GPUs as published; "
        "we have not yet run them to completion):\n\n" + "\n".join(commands)
    )


def with_tables(page: Path) -> str:
    """Return a page with its tables rendered from the results files."""
    marked = re.compile(
        r"(<!-- rendered by scripts/render_cards\.py: ([\w ]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL
    )
    return marked.sub(
        lambda match: f"{match[1]}\n{TABLES[match[2]]()}\n\n{match[3]}", page.read_text(encoding="utf-8")
    )


def sizes() -> str:
    """Return a table of the models with their sizes and accuracies."""
    evaluation = read("synthetic_nano/evaluation")
    measured = [f"{100 * evaluation['sets'][name]['word_accuracy']:.1f}" for name in NAMED]
    parameters = f"{evaluation['parameters'] / 1e6:.2f} M"
    rows = [["nano", parameters, "synthetic text", *measured, None, None, "included in the package"]]
    rows += [
        [
            {"T": "tiny", "S": "small", "B": "base"}[result.system[-1]],
            f"{result.parameters_millions:.2f} M",
            result.training_data,
            *(f"{result.sets[name]:.1f}" for name in NAMED),
            *(f"{result.averages[group]:.2f}" for group in ("Common", "Union14M-Benchmark")),
            "published by the authors",
        ]
        for result in PUBLISHED
        if result.parameters_millions is not None
    ]
    header = ["size", "parameters", "trained on", *NAMED, "six common datasets", "Union14M", "results"]
    return markdown_table(header, rows, align="lrlrrrrrl")


def registry() -> str:
    """Return a table of all benchmarks: number of images, protocol, folder names, paper and data."""
    rows: list[list[Any]] = []
    for entry in BENCHMARKS.values():
        protocol = entry.protocol + (f", max ratio {entry.max_ratio}" if entry.max_ratio else "")
        links = f"[paper]({entry.paper}), [data]({entry.data})"
        rows.append(
            [entry.name, f"{entry.samples:,}", protocol, ", ".join(f"`{name}`" for name in entry.aliases), links]
        )
        rows += [[group.name, f"{group.samples:,}", None, None, None] for group in entry.length_groups]
    return markdown_table(["dataset", "images", "protocol", "other folder names", "source"], rows, align="lrl")


def arguments() -> str:
    """Return a table of the arguments of transformers that training refuses."""
    rows = [[", ".join(f"`{name}`" for name in names), reason] for reason, names in NOT_SUPPORTED.items()]
    schedules = ", ".join(f"`{name}`" for name in METRIC_SCHEDULES)
    rows.append([f"`lr_scheduler_type` {schedules}", "an evaluation may be postponed until training resumes"])
    rows.append(["`fp16` on a CPU", "use `bf16`"])
    return markdown_table(["refused", "because"], rows, align="ll")


TABLES: dict[str, Callable[[], str]] = {
    "sizes": sizes,
    "sources": lambda: describe(FORMATS),
    "arguments": arguments,
    "benchmarks": registry,
    "protocols": lambda: markdown_table(
        ["protocol", "compares"], [[f"`{p}`", text] for p, text in PROTOCOLS.items()], "l"
    ),
    "speed in short": lambda: benchmark.peer_table(read("speed_tiny_cpu"), short=True),
    "speed": lambda: benchmark.table(read("speed_tiny_cpu")),
    "peers": lambda: benchmark.peer_table(read("peers_nano_cpu")),
    "image sizes": lambda: render(read("reading_tiny_cpu")),
    "data": lambda: benchmark_data.table(read("data_cpu")),
    "fine tuning": lambda: fine_tuning_table(read("fine_tuning_nano")),
}


def fine_tuning_table(results: dict[str, Any]) -> str:
    """Return the word accuracy by data, number of samples and learning rate."""
    accuracy = {(run["data"], run["samples"], run["learning_rate"]): run["word_accuracy"] for run in results["runs"]}
    rates = sorted({rate for _, _, rate in accuracy}, reverse=True)
    rows = [
        [results["data"][name], samples, *(accuracy.get((name, samples, rate)) for rate in rates)]
        for name, samples in dict.fromkeys((name, samples) for name, samples, _ in accuracy)
    ]
    before = {results["data"][name]: value for name, value in results["before"].items()}
    return markdown_table(
        ["data", "training images", "before", *(f"learning rate {rate:g}" for rate in rates)],
        [
            [
                name,
                f"{samples:,}",
                *("-" if value is None else f"{100 * value:.1f}" for value in (before.get(name), *values)),
            ]
            for name, samples, *values in rows
        ],
        "l",
    )


def mean(evaluation: dict[str, Any]) -> str:
    """Return the mean accuracy on the three datasets, in percent."""
    return f"{100 * evaluation['averages']['Common']['arithmetic']:.1f}"


def read(name: str) -> dict[str, Any]:
    """Return the content of a results file."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def kinds(errors: dict[str, Any]) -> str:
    """Return the kinds of errors in each dataset as a table."""
    sets = list(errors["kinds"])
    rows = [
        [kind.replace("_", " "), *(errors["kinds"][name][kind] for name in sets)]
        for kind in errors["kinds"][sets[0]]
        if any(errors["kinds"][name][kind] for name in sets)
    ]
    return markdown_table(["error", *sets], rows)


def confusions(errors: dict[str, Any], number: int = 20) -> str:
    """List the most frequent confusions."""

    def name(character: str | None) -> str:
        return "nothing" if character is None else f"`{character}`"

    return ", ".join(
        f"{name(true)} predicted as {name(predicted)} ({count})"
        for true, predicted, count in errors["confusions"][:number]
    )


def curve(evaluations: list[dict[str, Any]]) -> str:
    """Return the word accuracy over the steps as a table."""
    names = [name.removesuffix("_word_accuracy") for name in evaluations[0] if name.endswith("_word_accuracy")]
    rows = []
    for evaluation in evaluations:
        values = [evaluation[f"{name}_word_accuracy"] for name in names] + [evaluation["word_accuracy"]]
        rows.append([f"{evaluation['step']:,}", *(f"{100 * value:.1f}" for value in values)])
    return markdown_table(["step", *names, "mean"], rows, align="r")


def fonts() -> str:
    """List all fonts by license and package."""
    with (RESULTS / "synthetic_nano" / "fonts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_license: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_license[row["license"]][row["package"]].append(row["font"])
    parts = []
    for license, packages in sorted(by_license.items(), key=lambda item: -sum(map(len, item[1].values()))):
        number = sum(map(len, packages.values()))
        listed = "; ".join(f"{package}: {', '.join(names)}" for package, names in sorted(packages.items()))
        parts.append(f"<details><summary>{license} ({number})</summary>\n\n{listed}\n\n</details>")
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
