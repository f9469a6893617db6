"""Who may import whom, and what the island may import at all."""

import ast
import importlib.util
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

import svtrv2_hf


PACKAGE = Path(svtrv2_hf.__file__).parent
# Each layer may import those before it.
LAYERS = [
    [
        "configuration_svtrv2",
        "ctc_svtrv2",
        "download_svtrv2",
        "guidance_svtrv2",
        "image_headers_svtrv2",
        "image_loading_svtrv2",
        "image_processing_svtrv2",
        "layers_svtrv2",
        "modeling_svtrv2",
        "neck_svtrv2",
        "pipeline_svtrv2",
        "processing_svtrv2",
    ],
    ["charsets", "checkpoint", "console", "conversion", "paths", "redaction", "reporting", "weight_files"],
    ["data"],
    ["synthetic"],
    ["sources"],
    ["evaluation"],
    ["training"],
    ["hub"],
    ["demo"],
    ["cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
METRIC = PACKAGE / "evaluation" / "text_recognition" / "text_recognition.py"  # which `evaluate` imports a copy of
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path not in (PACKAGE / "__init__.py", METRIC)]


def imports(path):
    """The modules that a file imports, anywhere in it, with dots for relative ones."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def layer_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    assert layer_of(path) in RANK, "a new module needs a place among the layers"
    for name in imports(path):
        assert not name.startswith("svtrv2_hf"), "within the package, imports are relative"
        if not name.startswith("."):
            continue
        depth = len(path.relative_to(PACKAGE).parts) - 1
        within = len(name) - len(name.lstrip(".")) <= depth
        target = layer_of(path) if within and depth else name.lstrip(".").split(".")[0]
        assert RANK[target] <= RANK[layer_of(path)], f"{path.name} imports {name}"


@pytest.mark.parametrize("name", LAYERS[0])
def test_the_island_stands_alone(name):
    """transformers copies these files into every saved folder, finding them by the form of their imports."""
    path = PACKAGE / f"{name}.py"
    allowed = {"numpy", "PIL", "torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
    for module in imports(path):
        if module.startswith("."):
            assert module.lstrip(".") in LAYERS[0], f"{name} imports {module}, which is not of the island"
            assert module.startswith(".") and not module.startswith(".."), "only from .file import name"
        else:
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


def test_every_file_of_the_island_is_reached_from_the_model():
    """So that the code is complete wherever a model is saved; the processor's own files go with the processor."""
    reached, todo = set(), ["modeling_svtrv2", "processing_svtrv2"]
    while todo:
        name = todo.pop()
        reached.add(name)
        todo += [
            m.lstrip(".")
            for m in imports(PACKAGE / f"{name}.py")
            if m.startswith(".") and m.lstrip(".") not in reached
        ]
    assert reached == set(LAYERS[0])


def test_torchvision_does_no_harm():
    """Nothing here needs it; and where it is of another build than torch, `import transformers` fails without naming it."""
    assert not any("torchvision" in requirement for requirement in requires("svtrv2-hf"))
    if importlib.util.find_spec("torchvision") is not None:
        importlib.import_module("torchvision")
