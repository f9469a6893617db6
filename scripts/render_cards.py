#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Renders the model cards, and the tables of README and guides, from results files.

    python scripts/render_cards.py           # writes them
    python scripts/render_cards.py --check   # says which are not what their results say

There is a card for the default checkpoint, which goes into `model_cards/` and beside the checkpoint's weights, and one for each
system of the paper, `model_cards/paper.json`, with the figures that its authors published.
"""

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import benchmark  # beside this script
import benchmark_data
import torch

from svtrv2_hf import SVTRv2Config, SVTRv2ForCTC, default_checkpoint
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.evaluation.benchmarks import BENCHMARKS, PUBLISHED, PublishedResult
from svtrv2_hf.evaluation.speed import multiply_adds, render
from svtrv2_hf.evaluation.tables import markdown
from svtrv2_hf.hub.card import metadata


README = Path(__file__).parents[1] / "README.md"
CARDS = README.parent / "model_cards"
RESULTS = CARDS / "results"
PAGES = [README, *sorted((README.parent / "docs").glob("*.md"))]
NAMED = ("IIIT5k", "SVT", "IC13_857")  # the sets that the README shows
CLASSES = {"en": 95, "zh": 6624}  # of the paper's models, the blank included
CHARACTERS = {
    "en": "the 94 printable ASCII characters; it knows no space",
    "zh": "6,623 Chinese and other characters",
}
COMPARED = {"en": "letters and digits, case ignored", "zh": "everything but spaces, case ignored"}
TRAINING_DATA = {
    "Union14M-L-Filter": "3,224,143 photographed words: Union14M-L without the images that its benchmark has, too",
    "MJ+ST": "MJSynth and SynthText, drawn English words",
    "BCTR": "the training sets of the Chinese text recognition benchmark of Fudan University",
}
LIMITS = {
    "en": "Readings have no spaces, and hold nothing but ASCII. Of long lines it was trained on few (LTB in the table).",
    "zh": "Trained with images up to eight times as wide as high: longer lines are squeezed.",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; the exit status is 1 if a card is out of date"
    )
    check = parser.parse_args().check
    out_of_date = []
    for path, text in cards().items():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        out_of_date.append(path)
        if not check:
            path.write_text(text, encoding="utf-8")
    for path in out_of_date:
        print(
            f"{path} {'is not what its results say: run scripts/render_cards.py' if check else 'written'}.",
            file=sys.stderr,
        )
    return 1 if check and out_of_date else 0


def cards() -> dict[Path, str]:
    """Every file, and what it should say."""
    card = default_card()
    papers = json.loads((CARDS / "paper.json").read_text(encoding="utf-8"))
    return {
        **{page: with_tables(page) for page in PAGES},
        CARDS / "svtrv2-nano-drawn.md": card,
        **{CARDS / f"{paper['name']}.md": paper_card(paper) for paper in papers},
        # Pictures and results do not travel with the package.
        Path(default_checkpoint()) / "README.md": re.sub(
            r"\[([^]]+)\]\(results/[^)]+\)", r"\1", card.replace("![", "[")
        ),
    }


def default_card() -> str:
    """The card of the checkpoint that comes with the package."""
    run, evaluation, chinese = (read(f"drawn_nano/{name}") for name in ("run", "evaluation", "evaluation_chinese"))
    sets = evaluation["sets"]
    named = {name: sets[name] for name in NAMED}
    data = metadata("SVTRv2 nano, trained on drawn text", "apache-2.0", "en", {"sets": named})
    values = {
        "metadata": data.to_yaml(),
        "mean": mean(evaluation),
        "parameters": f"{evaluation['parameters'] / 1e6:.2f}",
        "accuracy": markdown(evaluation),
        "accuracy_chinese": markdown(chinese),
        "kinds": kinds(evaluation["errors"]),
        "confusions": confusions(evaluation["errors"]),
        "training": stage_of_training(run),
        "fonts": fonts(),
    }
    return fill("drawn", values)


def paper_card(paper: dict[str, Any]) -> str:
    """The card of a system of the paper."""
    name, language, size = paper["name"], paper["language"], paper["size"]
    [result] = [
        one for one in PUBLISHED if (one.system, one.training_data) == (paper["system"], paper["training_data"])
    ]
    protocol = {"en": "english", "zh": "chinese"}[language]
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
    with torch.device("meta"):  # weights are not needed
        model = SVTRv2ForCTC(config).eval()
    published = result.parameters_millions
    values = {
        "metadata": data.to_yaml(),
        "name": name,
        "size": size,
        "system": paper["system"],
        "training_data": paper["training_data"],
        "characters": CHARACTERS[language],
        "weights": weights(paper),
        "source": result.source,
        "compared": COMPARED[language],
        "published": published_table(result),
        "parameters": f"{model.num_parameters() / 1e6:.2f}",
        "published_parameters": "" if published is None else f" (published: {published})",
        "multiply_adds": f"{multiply_adds(model, (32, 128)) / 1e9:.3f}",
        "limits": LIMITS[language],
        "training": training(paper),
    }
    return fill("paper", values)


def weights(paper: dict[str, Any]) -> str:
    """How to get the weights of one of the paper's systems and to convert them."""
    if paper["weights"] is None:
        return (
            "The authors have not published them (their table says so). The recipes below train such a model; for any use other than "
            "comparing training data, the model trained on Union14M-L-Filter reads better."
        )
    options = " --charset ppocr_keys_v1.txt --max-ratio 8" if paper["language"] == "zh" else ""
    text = (
        f"The authors keep them on a drive that no program can fetch from: [{paper['system']}]({paper['weights']}), with configuration "
        f"and log. Download the checkpoint, `best.pth`, and convert it:\n\n"
        f"    svtrv2 convert best.pth --output {paper['name']}{options}\n\n"
        "The converter finds everything else in the tensors, and stops if one of them is left over or missing."
    )
    if paper["language"] == "zh":
        text += " The list of characters is `tools/utils/ppocr_keys_v1.txt` of OpenOCR."
    return text


def published_table(result: PublishedResult) -> str:
    """What was published of a system."""
    samples = {part.name: part.samples for one in BENCHMARKS.values() for part in (one, *one.length_groups)}
    rows = [f"| {name} | {samples[name]:,} | {percent} |" for name, percent in result.sets.items()]
    rows += [f"| {group}, mean of its sets | | {percent} |" for group, percent in result.averages.items()]
    return "\n".join(["| set | samples | published |", "|---|---:|---:|", *rows])


def stage_of_training(run: dict[str, Any]) -> str:
    """What a run was, from the record that it left."""
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
    """What a system was trained on, and the recipes that train another."""
    commands = []
    for number, recipe in enumerate(paper["recipes"], 1):
        output = f"output/{paper['name']}" + ("" if number == len(paper["recipes"]) else "_stage1")
        model = paper["size"] if number == 1 else f"output/{paper['name']}_stage1"
        commands.append(
            f"    accelerate launch --num_processes 4 scripts/train.py scripts/recipes/{recipe}.yaml --model {model} --output_dir {output}"
        )
    return (
        f"On {paper['training_data']}, {TRAINING_DATA[paper['training_data']]}. With svtrv2-hf, the authors' settings are (not run to their end by us yet; "
        "4 GPUs as published):\n\n" + "\n".join(commands)
    )


def fill(template: str, values: dict[str, str]) -> str:
    """A template with its places filled, all of them."""
    text = (CARDS / "templates" / f"{template}.md").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"<<{name}>>", value)
    if "<<" in text:
        raise ValueError(f"The template has a place that nothing fills: {text[text.index('<<') :][:40]!r}.")
    return text


def with_tables(page: Path) -> str:
    """A page with its tables as the results files have them."""
    place = re.compile(
        r"(<!-- rendered by scripts/render_cards\.py: ([\w ]+) -->\n).*?(<!-- end -->)", flags=re.DOTALL
    )
    return place.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page.read_text(encoding="utf-8"))


def sizes() -> str:
    """The models, their sizes and accuracies."""
    evaluation = read("drawn_nano/evaluation")
    ours = [f"{100 * evaluation['sets'][name]['word_accuracy']:.1f}" for name in NAMED]
    rows = [["nano", f"{evaluation['parameters'] / 1e6:.2f} M", "drawn text", *ours, "", "", "comes with the package"]]
    rows += [
        [
            {"T": "tiny", "S": "small", "B": "base"}[one.system[-1]],
            f"{one.parameters_millions:.2f} M",
            one.training_data,
            *(f"{one.sets[name]:.1f}" for name in NAMED),
            *(f"{one.averages[group]:.2f}" for group in ("Common", "Union14M-Benchmark")),
            "as published",
        ]
        for one in PUBLISHED
        if one.parameters_millions is not None
    ]
    header = ["size", "parameters", "trained on", *NAMED, "six common sets", "Union14M", ""]
    return lines_of([header, ["---"] * len(header), *rows])


def lines_of(rows: Iterable[Iterable[str]]) -> str:
    """Rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def speed_in_short() -> str:
    """Recognisers side by side, the figures that one looks for first."""
    results = read("speed_tiny_cpu")
    times = {(row["name"], row["images"] > 1): row["median_ms"] / row["images"] for row in results["peer_speed"]}
    rows = []
    for peer in results["peers"]:
        name, parameters = peer["name"], peer["parameters"]
        rows.append(
            [
                f"**SVTRv2 {results['size']}, ours**" if name == "ours" else name,
                "" if parameters is None else f"{parameters / 1e6:.1f} M",
                *(f"{times[name, batched]:.1f}" if (name, batched) in times else "" for batched in (False, True)),
            ]
        )
    together = results["peer_images"]["images"]
    header = ["recogniser", "parameters", "ms, one image at a time", f"ms an image, {together} together"]
    return (
        f"From images in memory to texts, {together} words of {results['peer_images']['source']}, {results['threads']} threads of "
        f"{results['machine']}, torch {results['torch']}; medians.\n\n" + lines_of([header, ["---"] * 4, *rows])
    )


def registry() -> str:
    """Every benchmark: images, protocol, other names of its folder, and where it is described and to be had."""
    rows = []
    for one in BENCHMARKS.values():
        protocol = one.protocol + (f", max ratio {one.max_ratio}" if one.max_ratio else "")
        links = f"[paper]({one.described}), [data]({one.data})"
        rows.append([one.name, f"{one.samples:,}", protocol, ", ".join(f"`{name}`" for name in one.aliases), links])
        rows += [[group.name, f"{group.samples:,}", "", "", ""] for group in one.length_groups]
    header = ["set", "images", "protocol", "also found as", "source"]
    return lines_of([header, ["---", "---:", "---", "---", "---"], *rows])


TABLES: dict[str, Callable[[], str]] = {
    "sizes": sizes,
    "benchmarks": registry,
    "speed in short": speed_in_short,
    "speed": lambda: benchmark.table(read("speed_tiny_cpu")),
    "peers": lambda: benchmark.peer_table(read("peers_nano_cpu")),
    "image sizes": lambda: render(read("reading_tiny_cpu")),
    "data": lambda: benchmark_data.table(read("data_cpu")),
}


def mean(evaluation: dict[str, Any]) -> str:
    """The mean accuracy over the three sets, in percent."""
    return f"{100 * evaluation['averages']['Common']['arithmetic']:.1f}"


def read(name: str) -> dict[str, Any]:
    """One of the results files."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def kinds(errors: dict[str, Any]) -> str:
    """What is wrong in the sets, as a table."""
    sets = list(errors["kinds"])
    lines = [f"| error | {' | '.join(sets)} |", f"|---|{'---:|' * len(sets)}"]
    for kind in errors["kinds"][sets[0]]:
        if any(errors["kinds"][name][kind] for name in sets):
            counts = " | ".join(str(errors["kinds"][name][kind]) for name in sets)
            lines.append(f"| {kind.replace('_', ' ')} | {counts} |")
    return "\n".join(lines)


def confusions(errors: dict[str, Any], number: int = 20) -> str:
    """The most frequent confusions in words."""

    def name(character: str | None) -> str:
        return "nothing" if character is None else f"`{character}`"

    return ", ".join(
        f"{name(true)} read as {name(read)} ({count})" for true, read, count in errors["confusions"][:number]
    )


def curve(evaluations: list[dict[str, Any]]) -> str:
    """Word accuracy over the steps, as a table."""
    names = [name.removesuffix("_word_accuracy") for name in evaluations[0] if name.endswith("_word_accuracy")]
    lines = [f"| step | {' | '.join(names)} | mean |", f"|---:|{'---:|' * (len(names) + 1)}"]
    for one in evaluations:
        values = [one[f"{name}_word_accuracy"] for name in names] + [one["word_accuracy"]]
        lines.append(f"| {one['step']:,} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    return "\n".join(lines)


def fonts() -> str:
    """Every font, by licence and package."""
    with (RESULTS / "drawn_nano" / "fonts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_licence: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_licence[row["license"]][row["package"]].append(row["font"])
    parts = []
    for licence, packages in sorted(by_licence.items(), key=lambda item: -sum(map(len, item[1].values()))):
        number = sum(map(len, packages.values()))
        listed = "; ".join(f"{package}: {', '.join(names)}" for package, names in sorted(packages.items()))
        parts.append(f"<details><summary>{licence} ({number})</summary>\n\n{listed}\n\n</details>")
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
