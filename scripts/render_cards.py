#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Renders the model cards, and the table of the README, from their results.

    python scripts/render_cards.py           # writes them
    python scripts/render_cards.py --check   # says which are not what their results say

The card of the default checkpoint goes into `model_cards/` and beside the checkpoint's weights.
"""

import argparse
import csv
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from svtrv2_hf import default_checkpoint
from svtrv2_hf.evaluation.tables import markdown
from svtrv2_hf.hub.card import metadata


README = Path(__file__).parents[1] / "README.md"
CARDS = README.parent / "model_cards"
RESULTS = CARDS / "results" / "drawn_nano"


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
    block = re.compile(r"(<!-- rendered [^>]*drawn_nano/[^>]*-->\n).*?(<!-- end -->)", flags=re.DOTALL)
    readme, found = block.subn(
        lambda ends: f"{ends[1]}\n{accuracy_in_short()}\n\n{ends[2]}", README.read_text(encoding="utf-8")
    )
    if found != 1:
        raise ValueError(f"{README} must have one place for the accuracy of the default checkpoint, and has {found}.")
    return {
        README: readme,
        CARDS / "svtrv2-nano-drawn.md": card,
        # Pictures and results do not travel with the package.
        Path(default_checkpoint()) / "README.md": re.sub(
            r"\[([^]]+)\]\(results/[^)]+\)", r"\1", card.replace("![", "[")
        ),
    }


def default_card() -> str:
    """The card of the checkpoint that comes with the package."""
    run, evaluation, chinese = (read(name) for name in ("run", "evaluation", "evaluation_chinese"))
    sets = evaluation["sets"]
    named = {name: sets[name] for name in ("IIIT5k", "SVT", "IC13_857")}
    data = metadata("SVTRv2 nano, trained on drawn text", "apache-2.0", "en", {"sets": named})
    template = (CARDS / "templates" / "drawn.md").read_text(encoding="utf-8")
    values = {
        "metadata": data.to_yaml(),
        "mean": mean(evaluation),
        "parameters": f"{evaluation['parameters'] / 1e6:.2f}",
        "accuracy": markdown(evaluation),
        "accuracy_chinese": markdown(chinese),
        "kinds": kinds(evaluation["errors"]),
        "confusions": confusions(evaluation["errors"]),
        "command": run["command"],
        "recipe": json.dumps(run["recipe"], indent=1),
        "commit": run["commit"],
        "date": run["date"],
        "machine": run["machine"],
        "steps": f"{run['steps']:,}",
        "samples": f"{run['samples']:,}",
        "hours": f"{run['hours']:.1f}",
        "seed": str(run["seed"]),
        "curve": curve(run["evaluations"]),
        "max_steps": f"{run['recipe']['max_steps']:,}",
        "fonts": fonts(),
    }
    for name, value in values.items():
        template = template.replace(f"<<{name}>>", value)
    if "<<" in template:
        raise ValueError(f"The template has a place that nothing fills: {template[template.index('<<') :][:40]!r}.")
    return template


def accuracy_in_short() -> str:
    """A table of the default checkpoint's accuracy, in percent."""
    evaluation = read("evaluation")
    names = ["IIIT5k", "SVT", "IC13_857"]
    values = [f"{100 * evaluation['sets'][name]['word_accuracy']:.1f}" for name in names]
    return "\n".join(
        [
            f"| | parameters | {' | '.join(names)} | mean |",
            "|---|---|---|---|---|---|",
            f"| default checkpoint | {evaluation['parameters'] / 1e6:.2f} M | {' | '.join(values)} | {mean(evaluation)} |",
        ]
    )


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
    with (RESULTS / "fonts.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    by_licence: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_licence[row["licence"]][row["package"]].append(row["font"])
    parts = []
    for licence, packages in sorted(by_licence.items(), key=lambda item: -sum(map(len, item[1].values()))):
        number = sum(map(len, packages.values()))
        listed = "; ".join(f"{package}: {', '.join(names)}" for package, names in sorted(packages.items()))
        parts.append(f"<details><summary>{licence}: {number} fonts</summary>\n\n{listed}\n\n</details>")
    return "\n\n".join(parts)


if __name__ == "__main__":
    sys.exit(main())
