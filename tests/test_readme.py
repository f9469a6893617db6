"""Code blocks, commands and tables of the README and the guides."""

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
from datasets import Dataset
from huggingface_hub import ModelCard

import svtrv2_hf
from svtrv2_hf.cli import main
from svtrv2_hf.configuration_svtrv2 import PRESETS


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
    if path.stem != "upstreaming"  # about files and commands of another project
}
PAGES = {"README": README, **GUIDES}
PYTHON_BLOCKS = [
    pytest.param(block, id=f"{name} {number}")
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL), 1)
    if name != "demo"  # needs a server, see test_demo.py
]
SHELL_BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def test_all_code_blocks_are_tested():
    assert set(re.findall(r"^```(\w+)", README, flags=re.MULTILINE)) == {"python", "bash"}
    assert all(block.startswith(("svtrv2 ", "pip ")) for block in SHELL_BLOCKS)


@pytest.fixture
def crops(tmp_path, monkeypatch):
    """Change to a folder with the images that the pages use."""
    (tmp_path / "photos").mkdir()
    for name in ("word.png", "line.png", "photos/one.png", "photos/two.png"):
        draw("Hello").save(tmp_path / name)
    make_folder(tmp_path / "data" / "train", ["Hello"] * 4)
    for split in ("train", "test"):
        make_folder(tmp_path / "data" / "crops" / split, ["Hello"])
        (tmp_path / "data" / "crops" / split / "metadata.csv").write_text("file_name,text\n0.png,Hello\n")
        (tmp_path / "data" / "crops" / split / "labels.tsv").unlink()
    make_folder(tmp_path / "crops", ["Hello"] * 2)
    (tmp_path / "crops" / "labels.tsv").unlink()
    (tmp_path / "texts").mkdir()
    Dataset.from_dict({"text": ["Hello"]}).to_parquet(tmp_path / "texts" / "0.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_python_blocks_run(block, saved, crops, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", crops / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", crops / "metrics")
    for name in re.findall(r"^(?:import|from) (\w+)", block, flags=re.MULTILINE):
        pytest.importorskip(name)  # engines that read crops in parallel
    block = block.replace("path/to/folder", str(saved))
    for long, short in (
        ("max_steps=600", "max_steps=1"),
        ("batch_size=32)", "batch_size=2)"),
        ("islice(batches, 1000)", "islice(batches, 1)"),
    ):
        block = block.replace(long, short)
    exec(block, {})


def test_shell_blocks_run(crops):
    """Runs the commands in order, with fewer training steps."""
    torch.save(golden_state_dict("tiny_rctc"), crops / "best.pth")
    make_folder(crops / "data" / "plates", [f"A{number:03}" for number in range(32)])
    make_folder(crops / "data" / "plates_test", ["A001", "B22"])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    blocks = [block for block in SHELL_BLOCKS if block.startswith("svtrv2 ")]
    assert [block.split()[1] for block in blocks] == ["read", "charset", "convert", "publish"]
    printed = {}
    for block in blocks:
        run = subprocess.run(
            [
                "bash",
                "-e",
                "-c",
                block.replace("--output_dir output/plates", "--output_dir output/plates --max_steps 2"),
            ],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, block + run.stdout + run.stderr
        printed[block.split()[1]] = run.stdout
    assert [line.split("\t")[0] for line in printed["read"].splitlines()] == [
        "word.png",
        "photos/one.png",
        "photos/two.png",
    ]
    assert (crops / "svtrv2-tiny" / "model.safetensors").is_file()
    assert (crops / "output" / "plates" / "learning_curve.png").is_file()
    assert "# plates" in (crops / "output" / "plates" / "README.md").read_text(encoding="utf-8")


def test_extras_and_make_targets_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = set(re.findall(r"'(?:svtrv2-hf|\.)\[([\w,]+)\]'", "\n".join(PAGES.values())))
    assert {extra for names in installed for extra in names.split(",")} <= set(extras)
    makefile = (ROOT / "Makefile").read_text()
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    pages = "\n".join([*PAGES.values(), contributing])
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)\b", pages, re.MULTILINE))
    named |= {block.split()[1] for block in SHELL_BLOCKS if block.startswith("make ")}
    assert {"demo", "test", "docs"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_cards_and_tables_are_up_to_date():
    status = subprocess.run(
        [sys.executable, ROOT / "scripts" / "render_cards.py", "--check"], capture_output=True, text=True
    )
    assert status.returncode == 0, status.stderr


CARDS = sorted((ROOT / "model_cards").glob("svtrv2-*.md"))


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_have_valid_metadata(path):
    data = ModelCard.load(path).data
    assert (data.pipeline_tag, data.library_name, data.metrics) == ("image-to-text", "transformers", ["accuracy"])
    assert data.license in ("apache-2.0", "other") and data.language in ("en", "zh")
    assert len(data.eval_results) >= 3
    assert all(0 < result.metric_value <= 100 for result in data.eval_results)
    published = [result.source_url for result in data.eval_results if result.source_url]
    assert len(published) in (0, len(data.eval_results))


def test_results_of_fine_tuning_match_their_files():
    for name in ("plates_nano", "plates_server_standin"):
        results = json.loads((ROOT / "model_cards" / "results" / f"{name}.json").read_text())
        for run in results["runs"]:
            assert f"{100 * run['word_accuracy']:.1f} %" in GUIDES["training"]
        assert f"{results['train_images']} photographs" in GUIDES["training"]
        assert f"{results['runs'][0]['steps']:,} steps" in GUIDES["training"]


def test_options_of_training_commands_exist():
    from svtrv2_hf.training.arguments import DataAndModelArguments, SVTRv2TrainingArguments

    known = {name for cls in (DataAndModelArguments, SVTRv2TrainingArguments) for name in cls.__dataclass_fields__}
    joined = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = [
        line
        for line in joined.splitlines()
        if re.match(r" *((python|accelerate) .*scripts/train.py|svtrv2 train)", line)
    ]
    assert lines
    for line in lines:
        options = re.findall(r"--(\w+)", re.split(r"scripts/train.py|svtrv2 train", line)[1])
        assert set(options) <= known, line
    for recipe in re.findall(r"scripts/recipes/(\w+\.yaml)", joined):
        assert (ROOT / "scripts" / "recipes" / recipe).is_file()


def test_options_of_other_commands_exist(capsys):
    joined = "\n".join(PAGES.values()).replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines() if re.match(r" *svtrv2 \w+", line)]
    assert lines
    for line in lines:
        command, options = line.split()[1], re.findall(r"(--[\w-]+)", line.split("#")[0])
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert all(re.search(rf"{option}\b", text) for option in options), line


def test_options_of_the_pipeline_are_documented():
    options = re.findall(r"^\| `(\w+)=", GUIDES["reading"], flags=re.MULTILINE)
    assert options
    for option in options:
        assert option in svtrv2_hf.SVTRv2TextRecognitionPipeline.__call__.__doc__


def test_table_of_sizes_matches_the_presets():
    for size, preset in PRESETS.items():
        row = next(line for line in GUIDES["converting"].splitlines() if line.startswith(f"| {size} "))
        assert ", ".join(map(str, preset["hidden_sizes"])) in row
        assert ", ".join(map(str, preset["depths"])) in row
