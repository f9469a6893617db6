"""What the README says is what the project does."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from conftest import draw

import svtrv2_hf
from svtrv2_hf.configuration_svtrv2 import PRESETS


ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_blocks():
    assert len(PYTHON_BLOCKS) == 3


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=["pipeline", "auto classes", "remote code"])
def test_python_blocks_run(block, saved, tmp_path, monkeypatch):
    for name in ("word.png", "line.png"):
        draw("Hello").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("path/to/folder", str(saved)), {})


@pytest.mark.parametrize(("script", "results"), [("benchmark", "speed_tiny_cpu"), ("benchmark_data", "data_cpu")])
def test_the_tables_are_rendered_from_their_results(script, results):
    specification = importlib.util.spec_from_file_location(script, ROOT / "scripts" / f"{script}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    figures = json.loads((ROOT / "model_cards" / "results" / f"{results}.json").read_text())
    assert module.table(figures) in README


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
