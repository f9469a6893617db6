"""What README and guides say is what the project does."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import evaluate
import pytest
import torch
from conftest import draw, golden_state_dict, make_folder
from huggingface_hub import ModelCard

import svtrv2_hf
from svtrv2_hf.cli import main
from svtrv2_hf.configuration_svtrv2 import PRESETS
from svtrv2_hf.evaluation.benchmarks import PUBLISHED


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.stem != "upstreaming"  # which is of another project's files and commands
}
PAGES = {"README": README, **GUIDES}
PYTHON_BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL), 1)
    if name != "demo"  # which needs a server: see test_demo.py
]
SHELL_BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def test_every_block_is_of_a_known_kind():
    assert set(re.findall(r"^```(\w+)", README, flags=re.MULTILINE)) == {"python", "bash"}
    assert len(PYTHON_BLOCKS) >= 6
    assert all(block.startswith(("svtrv2 ", "make ", "pip ")) for block in SHELL_BLOCKS)


@pytest.fixture
def crops(tmp_path, monkeypatch):
    """A working directory with the images that the pages name."""
    (tmp_path / "photos").mkdir()
    for name in ("word.png", "line.png", "photos/one.png", "photos/two.png"):
        draw("Hello").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_python_blocks_run(block, saved, crops, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", crops / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", crops / "metrics")
    block = block.replace("path/to/folder", str(saved))
    exec(block, {})


def test_shell_blocks_run(crops):
    """Those of `svtrv2`, one after the other, as somebody would type them; but for the number of training steps."""
    torch.save(golden_state_dict("tiny_rctc"), crops / "best.pth")
    make_folder(crops / "data" / "plates", [f"A{number:03}" for number in range(32)])
    make_folder(crops / "data" / "plates_test", ["A001", "B22"])
    (crops / "plates.txt").write_text("\n".join("AB0123456789") + "\n", encoding="utf-8")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    blocks = [block for block in SHELL_BLOCKS if block.startswith("svtrv2 ")]
    assert [block.split()[1] for block in blocks] == ["read", "train", "convert", "publish"]
    told = {}
    for block in blocks:
        run = subprocess.run(
            ["bash", "-e", "-c", block.replace("--max_steps 1200", "--max_steps 2")],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, block + run.stdout + run.stderr
        told[block.split()[1]] = run.stdout
    assert [line.split("\t")[0] for line in told["read"].splitlines()] == [
        "word.png",
        "photos/one.png",
        "photos/two.png",
    ]
    assert (crops / "svtrv2-tiny" / "model.safetensors").is_file()
    assert (crops / "output" / "plates" / "learning_curve.png").is_file()
    assert "# plates" in (crops / "output" / "plates" / "README.md").read_text(encoding="utf-8")


def test_what_is_installed_and_made_is_there():
    """The other shell blocks, which would install packages or run these tests."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"'(?:svtrv2-hf|\.)\[(\w+)\]'", "\n".join(PAGES.values()))) <= set(extras)
    makefile = (ROOT / "Makefile").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pages = "\n".join([*PAGES.values(), contributing])
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)\b", pages, re.MULTILINE))
    named |= {block.split()[1] for block in SHELL_BLOCKS if block.startswith("make ")}
    assert {"demo", "test", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_cards_and_the_table_of_accuracies_are_what_their_results_say():
    status = subprocess.run(
        [sys.executable, ROOT / "scripts" / "render_cards.py", "--check"], capture_output=True, text=True
    )
    assert status.returncode == 0, status.stderr


CARDS = sorted((ROOT / "model_cards").glob("svtrv2-*.md"))


def test_there_is_a_card_for_each_system_of_the_paper_and_for_ours():
    assert len(CARDS) == 8
    papers = [path for path in CARDS if "paper" in path.read_text(encoding="utf-8").split("---")[1]]
    assert len(papers) == len(PUBLISHED) == 7


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_have_metadata_that_the_hub_understands(path):
    data = ModelCard.load(path).data
    assert (data.pipeline_tag, data.library_name, data.metrics) == ("image-to-text", "transformers", ["accuracy"])
    assert data.license in ("apache-2.0", "other") and data.language in ("en", "zh")
    assert len(data.eval_results) >= 3
    assert all(0 < result.metric_value <= 100 for result in data.eval_results)
    published = [result.source_url for result in data.eval_results if result.source_url]
    assert len(published) == (0 if "synthetic" in path.stem else len(data.eval_results))


def test_fine_tuning_figures():
    """Of the run that the guide tells of."""
    for name in ("plates_nano", "plates_server_standin"):
        results = json.loads((ROOT / "model_cards" / "results" / f"{name}.json").read_text())
        for run in results["runs"]:
            assert f"{100 * run['word_accuracy']:.1f} %" in GUIDES["training"]
        assert f"{results['train_images']} photographs" in GUIDES["training"]
        assert f"{results['runs'][0]['steps']:,} steps" in GUIDES["training"]


def test_training_commands_are_understood():
    """Every `train.py` line names what there is."""
    from svtrv2_hf.training.arguments import DataAndModelArguments, SVTRv2TrainingArguments

    known = {name for cls in (DataAndModelArguments, SVTRv2TrainingArguments) for name in cls.__dataclass_fields__}
    joined = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = [
        line
        for line in joined.splitlines()
        if re.match(r" *((python|accelerate) .*scripts/train.py|svtrv2 train)", line)
    ]
    assert len(lines) >= 6
    for line in lines:
        options = re.findall(r"--(\w+)", re.split(r"scripts/train.py|svtrv2 train", line)[1])
        assert set(options) <= known, line
    for recipe in re.findall(r"scripts/recipes/(\w+\.yaml)", joined):
        assert (ROOT / "scripts" / "recipes" / recipe).is_file()


def test_options_of_the_commands(capsys):
    """Every `svtrv2 COMMAND --option` is understood."""
    joined = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if re.match(r" *svtrv2 \w+", line)]
    assert len(lines) >= 8
    for line in lines:
        command, options = line.split()[1], re.findall(r"(--[\w-]+)", line.split("#")[0])
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert all(re.search(rf"{option}\b", told) for option in options), line


def test_options_of_the_pipeline():
    options = re.findall(r"^\| `(\w+)=", GUIDES["reading"], flags=re.MULTILINE)
    assert len(options) >= 8
    for option in options:
        assert option in svtrv2_hf.SVTRv2TextRecognitionPipeline.__call__.__doc__


def test_sizes():
    for size, preset in PRESETS.items():
        row = next(line for line in GUIDES["converting"].splitlines() if line.startswith(f"| {size} "))
        assert ", ".join(map(str, preset["hidden_sizes"])) in row
        assert ", ".join(map(str, preset["depths"])) in row
