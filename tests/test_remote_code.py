"""A saved model works if this package is not installed."""

import json
import os
import subprocess
import sys

import pytest
from conftest import draw
from transformers import pipeline

from svtrv2_hf import SVTRv2Processor, SVTRv2ServerImageProcessor


SCRIPT = """
import json, sys
sys.modules["svtrv2_hf"] = None  # any import of it fails
import torch
from transformers import (
    AutoConfig, AutoImageProcessor, AutoModel, AutoModelForCTC, AutoModelForTextRecognition, AutoProcessor, AutoTokenizer,
    pipeline,
)

folder, image, copy = sys.argv[1:]
trust = {"trust_remote_code": True}
assert AutoConfig.from_pretrained(folder, **trust).model_type == "svtrv2"
assert AutoModel.from_pretrained(folder, **trust)(torch.zeros(1, 3, 32, 64)).last_hidden_state.shape == (1, 32, 4, 16)
assert type(AutoImageProcessor.from_pretrained(folder, **trust)).__name__ == "SVTRv2ImageProcessor"
assert AutoTokenizer.from_pretrained(folder, **trust)("ab")["input_ids"] == [11, 12]
model = AutoModelForTextRecognition.from_pretrained(folder, **trust)
assert type(model).__module__.startswith("transformers_modules.")
processor = AutoProcessor.from_pretrained(folder, **trust)
assert type(processor).__name__ == "SVTRv2Processor"
results = [pipeline("image-to-text", folder, **trust)(image)[0]]

model = AutoModelForCTC.from_pretrained(folder, **trust)
model.save_pretrained(copy)
processor.save_pretrained(copy)
results.append(pipeline("image-to-text", copy, **trust)(image)[0])
results.append(pipeline(model=copy, **trust)([image, image], batch_size=2)[1][0])
print(json.dumps(results))
"""


SERVER = """
image_processor = AutoProcessor.from_pretrained({!r}, **trust).image_processor
print(type(image_processor).__name__, image_processor.target_size(100, 30))
"""


@pytest.fixture
def run_without_the_package(tmp_path):
    """Runs a script in a new process with an empty cache for remote code, and without input for prompts."""

    def run(script, *arguments):
        environment = {**os.environ, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
        environment.pop("HF_MODULES_CACHE", None)
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_model_can_be_loaded_used_and_saved(saved, processor, tmp_path, run_without_the_package):
    SVTRv2Processor(SVTRv2ServerImageProcessor(), processor.tokenizer).save_pretrained(tmp_path / "server")
    image = draw("remote")
    image.save(tmp_path / "word.png")
    [expected] = pipeline("text-recognition", str(saved))(image)
    copy = tmp_path / "copy"
    script = SCRIPT + SERVER.format(str(tmp_path / "server"))
    printed, server = run_without_the_package(script, saved, tmp_path / "word.png", copy).splitlines()
    results = json.loads(printed)
    assert server == "SVTRv2ServerImageProcessor (48, 320)"
    for result in results:
        assert result["generated_text"] == expected["text"]
        assert result["score"] == pytest.approx(expected["score"], abs=1e-5)
    # the copy, saved without the package, is complete
    names = {path.name for path in saved.iterdir()}
    assert {path.name for path in copy.iterdir()} == names
    assert not any(b"svtrv2_hf" in path.read_bytes() for path in copy.glob("*.json"))
    # and loads with the package
    [again] = pipeline("text-recognition", str(copy))(image)
    assert again["text"] == expected["text"]


def test_package_may_be_installed_but_not_imported(saved, tmp_path, run_without_the_package):
    draw("word").save(tmp_path / "word.png")
    script = SCRIPT.replace('sys.modules["svtrv2_hf"] = None', "")
    assert run_without_the_package(script, saved, tmp_path / "word.png", tmp_path / "copy")
