"""What the README says is what the project does."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest
from conftest import draw

import svtrv2_hf
from svtrv2_hf.cli import main
from svtrv2_hf.configuration_svtrv2 import PRESETS


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_blocks():
    assert len(PYTHON_BLOCKS) == 4


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=["pipeline", "auto classes", "remote code", "metric"])
def test_python_blocks_run(block, saved, tmp_path, monkeypatch):
    for name in ("word.png", "line.png"):
        draw("Hello").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", tmp_path / "modules")
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "metrics")
    block = block.replace("path/to/folder", str(saved)).replace('"src/', f'"{ROOT}/src/')
    exec(block, {})


@pytest.mark.parametrize(("script", "results"), [("benchmark", "speed_tiny_cpu"), ("benchmark_data", "data_cpu")])
def test_the_tables_are_rendered_from_their_results(script, results):
    specification = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    figures = json.loads((ROOT / "model_cards" / "results" / f"{results}.json").read_text())
    assert module.table(figures) in README


def test_cards_and_the_table_of_accuracies_are_what_their_results_say():
    status = subprocess.run(
        [sys.executable, ROOT / "scripts" / "render_cards.py", "--check"], capture_output=True, text=True
    )
    assert status.returncode == 0, status.stderr


def test_fine_tuning_figures():
    """Of the run that the README tells of."""
    results = json.loads((ROOT / "model_cards" / "results" / "plates_nano.json").read_text())
    for run in results["runs"]:
        assert f"{100 * run['word_accuracy']:.1f} %" in README
    assert f"{results['train_images']} photographs" in README
    assert f"{results['runs'][0]['steps']:,} steps" in README


def test_commands_of_the_readme_are_understood():
    """Every `svtrv2` and `train.py` line names what there is."""
    from svtrv2_hf.training.arguments import DataAndModelArguments, SVTRv2TrainingArguments

    known = {name for cls in (DataAndModelArguments, SVTRv2TrainingArguments) for name in cls.__dataclass_fields__}
    joined = README.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.startswith("    ") and "scripts/train.py" in line]
    assert len(lines) >= 5
    for line in lines:
        options = re.findall(r"--(\w+)", line.split("scripts/train.py")[1])
        assert set(options) <= known, line
    for recipe in re.findall(r"scripts/recipes/(\w+\.yaml)", README):
        assert (ROOT / "scripts" / "recipes" / recipe).is_file()


def test_options_of_the_commands(capsys):
    """Every `svtrv2 COMMAND --option` is understood."""
    lines = [line for line in README.replace("\\\n", " ").splitlines() if re.match(r"    svtrv2 \w+", line)]
    assert len(lines) >= 8
    for line in lines:
        command, options = line.split()[1], re.findall(r"(--[\w-]+)", line.split("#")[0])
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert all(re.search(rf"{option}\b", told) for option in options), line


def test_options_of_the_pipeline():
    for option in re.findall(r"^\| `(\w+)=", README, flags=re.MULTILINE):
        assert option in svtrv2_hf.SVTRv2TextRecognitionPipeline.__call__.__doc__


def test_sizes():
    for size, preset in PRESETS.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| {size} "))
        assert ", ".join(map(str, preset["hidden_sizes"])) in row
        assert ", ".join(map(str, preset["depths"])) in row


def test_make_targets():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^    )make ([a-z-]+)", README, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
