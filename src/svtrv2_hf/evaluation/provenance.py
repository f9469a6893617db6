# SPDX-License-Identifier: Apache-2.0
"""Where figures come from: code, versions and machine, as results files record them."""

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
    """Commit, date, versions and machine of this moment, as JSON holds them."""
    return {"commit": commit(), "date": date(), "versions": versions(), "machine": machine()}


def check_output(name: str | Path) -> None:
    """Makes the folder of a results file, and tries to write there, before the work that would be lost.

    Raises:
        ValueError: it cannot be written.
    """
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.open("a").close()
        else:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
    except OSError as error:
        raise ValueError(f"--output {name} cannot be written: {error.strerror}.") from error


def commit() -> str | None:
    """The commit of the checkout that this package is run from, with "+" if files differ from it; `None` if it is installed."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # installed into an environment that lies in some other checkout
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def weights_digest(model: str) -> str | None:
    """SHA-256 of a saved recogniser's weights, in hexadecimal; `None` if there are none here.

    That of the file `model.safetensors`; of weights in several files, that of all of them, one after the other.

    Args:
        model: its folder, or its name on the Hub, where it has been loaded before.
    """
    folder = Path(model)
    if folder.is_dir():
        whole = folder / "model.safetensors"
        files = [whole] if whole.is_file() else sorted(folder.glob("model-*.safetensors"))
    else:
        cached = try_to_load_from_cache(model, "model.safetensors")
        files = [Path(cached)] if isinstance(cached, str) else []
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else None


def date() -> str:
    """Day, hour and minute, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def versions() -> dict[str, str]:
    """Of what decides results."""
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("svtrv2-hf", "torch", "transformers", "pillow", "numpy")
    }


def machine() -> str:
    """Processor and graphics card in words."""
    words = [platform.machine(), cpu_name(), f"{os.cpu_count()} cores"]
    if torch.cuda.is_available():
        words.append(f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    return ", ".join(word for word in words if word)


def cpu_name() -> str:
    """As Linux tells it, or else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
