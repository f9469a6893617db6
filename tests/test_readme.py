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


def test_the_speed_table_is_rendered_from_its_results():
    specification = importlib.util.spec_from_file_location("benchmark", ROOT / "scripts" / "benchmark.py")
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    results = json.loads((ROOT / "model_cards" / "results" / "speed_tiny_cpu.json").read_text())
    assert benchmark.table(results) in README


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
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
