"""Order of packages, imports without cycles, and the imports of the island."""

import ast
import importlib.util
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import requires
from pathlib import Path

import pytest

import svtrv2_hf


PACKAGE = Path(svtrv2_hf.__file__).parent
ISLAND = sorted(path.stem for path in PACKAGE.glob("*_svtrv2.py"))
# Each may import those before it.
ORDER = [
    "island",
    "core",
    "data",
    "synthetic",
    "sources",
    "runtime",
    "evaluation",
    "training",
    "hub",
    "demo",
    "bulk",
    "commands",
    "cli",
]
METRIC = PACKAGE / "evaluation" / "text_recognition" / "text_recognition.py"  # `evaluate` imports a copy
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path not in (PACKAGE / "__init__.py", METRIC)]


def imports(path):
    """Names of the imported modules, dotted if relative, and of the objects imported from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names]


def imported_files(path):
    """Files of the package that a file imports anywhere, also in functions."""
    for name, objects in imports(path):
        assert not name.startswith("svtrv2_hf"), "within the package, imports are relative"
        if not name.startswith("."):
            continue
        level = len(name) - len(name.lstrip("."))
        target = path.parents[level - 1].joinpath(*filter(None, name.lstrip(".").split(".")))
        candidates = [target.with_suffix(".py")] if target.with_suffix(".py").is_file() else []
        for file in candidates or [target / f"{item}.py" for item in objects]:
            yield file if file.is_file() else target / "__init__.py"


def package_of(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) > 1 or path.stem == "cli":
        return parts[0].removesuffix(".py")
    return "island" if path.stem in ISLAND else "core"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_packages_import_only_lower_packages(path):
    package = package_of(path)
    for file in imported_files(path):
        if file != PACKAGE / "__init__.py" and package_of(file) != package:
            assert ORDER.index(package_of(file)) < ORDER.index(package), f"{path} imports {file}"


def find_cycle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]


def test_no_modules_import_each_other():
    graph = {str(path): {str(file) for file in imported_files(path)} - {str(path)} for path in FILES}
    assert find_cycle(graph) is None
    graph[str(PACKAGE / "data" / "sample.py")].add(str(PACKAGE / "sources" / "__init__.py"))
    assert find_cycle(graph) is not None, "a cycle is found"


@pytest.mark.parametrize("name", ISLAND)
def test_island_imports_only_its_dependencies(name):
    """transformers copies these files into saved folders, and finds them by the form of their imports."""
    allowed = {"numpy", "PIL", "torch", "transformers", "huggingface_hub"} | sys.stdlib_module_names
    for module, _ in imports(PACKAGE / f"{name}.py"):
        if module.startswith("."):
            assert module.removeprefix(".") in ISLAND, f"{name} imports {module}: only `from .file import name`"
        else:
            assert module.split(".")[0] in allowed, f"{name} imports {module}"


def test_model_and_processors_import_the_whole_island():
    """So that saved folders contain the complete code: each of the three saves its modules."""
    reached, pending = set(), ["modeling_svtrv2", "processing_svtrv2", "image_processing_svtrv2"]
    while pending:
        name = pending.pop()
        reached.add(name)
        modules = {module.removeprefix(".") for module, _ in imports(PACKAGE / f"{name}.py") if module[0] == "."}
        pending += modules - reached
    assert reached == set(ISLAND)


def test_installed_torchvision_works():
    """It is not needed, but if its build does not match that of torch, `import transformers` fails without naming it."""
    assert not any("torchvision" in requirement for requirement in requires("svtrv2-hf"))
    if importlib.util.find_spec("torchvision") is not None:
        importlib.import_module("torchvision")
