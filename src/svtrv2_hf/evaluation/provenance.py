# SPDX-License-Identifier: Apache-2.0
"""Origin of results: code, versions and machine, as recorded in results files."""

import hashlib
import os
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache


def provenance() -> dict[str, Any]:
    """Return commit, date (UTC), versions and machine for a JSON file."""
    packages = ("svtrv2-hf", "torch", "transformers", "pillow", "numpy")
    return {
        "commit": _commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "machine": _machine(),
    }


def check_output(name: str | Path) -> None:
    """Create the folder of a results file, and check before the work begins that the file is writable.

    Raises:
        ValueError: the file is not writable, or its name does not end in `.json`.
    """
    path = Path(name)
    if path.suffix != ".json":
        raise ValueError(f"--output {name} must end in .json.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.open("a").close()
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise ValueError(f"--output {name} cannot be written: {error.strerror}.") from error


def weights_digest(model: str, exported: Path | None = None) -> str | None:
    """Compute the SHA-256 of the weights of a saved model, of all files in order, in hexadecimal.

    Args:
        model: a folder, or a Hub id that is in the cache.
        exported: exported file to use instead; with the extension `.xml`, the weights are in a `.bin` file next to it.

    Returns:
        The digest, or `None` if no weights were found.
    """
    folder = Path(model)
    if exported is not None:
        files = [exported, *([exported.with_suffix(".bin")] if exported.suffix == ".xml" else [])]
    elif folder.is_dir():
        whole = folder / "model.safetensors"
        files = [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors"))
    else:
        cached = try_to_load_from_cache(model, "model.safetensors")
        files = [Path(cached)] if isinstance(cached, str) else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else None


def _commit() -> str | None:
    """Return the commit of the checkout of this package, with "+" if files are modified; `None` if it is installed."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # installed in an environment within another checkout
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _machine() -> str:
    """Describe processor and graphics card."""
    words = [platform.machine(), _cpu_name(), f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        words.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join(word for word in words if word)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
