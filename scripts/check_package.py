#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Check the contents of a built package, and that it works in a fresh environment.

    python scripts/check_package.py dist

The folder contains one sdist and one wheel. The wheel must contain exactly the files of `src/svtrv2_hf`, and so must a wheel
built from the sdist. The script installs the wheel outside the checkout, with the versions of `constraints.txt`, and reads an
image. It exits with status 1 if a check fails.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path


ROOT = Path(__file__).parents[1]
# Files that the wheel must contain even if they are missing in the checkout.
NEEDED = (
    "svtrv2_hf/py.typed",
    "svtrv2_hf/default_checkpoint/model.safetensors",
    "svtrv2_hf/default_checkpoint/README.md",
    "svtrv2_hf/synthetic/data/words.txt",
    "svtrv2_hf/synthetic/data/font_licenses.tsv",
    "svtrv2_hf/synthetic/data/SCOWL-COPYRIGHT.txt",
)
LICENSES = ("LICENSE", "NOTICE")
IN_SDIST = ("PKG-INFO", "pyproject.toml", "README.md", "src", "tests", "scripts", "docs", "examples", *LICENSES)
# Folders that may contain weights: the bundled checkpoint, and the golden values of the tests.
WEIGHTS = ("src/svtrv2_hf/default_checkpoint/", "svtrv2_hf/default_checkpoint/", "tests/golden/")
LARGEST = 10 * 2**20  # bytes of each file

# Runs in the fresh environment.
READ = """
from PIL import Image, ImageDraw, ImageFont
import svtrv2_hf
from transformers import pipeline

image = Image.new("RGB", (96, 40), (220, 225, 215))
ImageDraw.Draw(image).text((8, 4), "Hello", font=ImageFont.load_default(26), fill=(10, 20, 30))
image.save("word.png")
print(svtrv2_hf.__file__)
print(pipeline("text-recognition", svtrv2_hf.default_checkpoint())("word.png")[0]["text"])
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of sdist and wheel")
    folder = parser.parse_args().folder.resolve()
    sdist, wheel = only_file(folder, "*.tar.gz"), only_file(folder, "*.whl")
    faults = [*content_faults(sdist, wheel)]
    with tempfile.TemporaryDirectory() as elsewhere:
        faults += sdist_faults(sdist, wheel, Path(elsewhere))
        faults += installed_faults(wheel, Path(elsewhere))
    for fault in faults:
        print(f"check_package: {fault}", file=sys.stderr)
    for file in (sdist, wheel):
        print(f"{file.name}: {len(names(file))} files, {file.stat().st_size / 2**20:.2f} MiB")
    return 1 if faults else 0


def only_file(folder: Path, pattern: str) -> Path:
    """Return the only file in a folder that matches a pattern."""
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise SystemExit(f"{folder} has {len(files)} files {pattern} instead of one: build into an empty folder.")
    return files[0]


def names(file: Path) -> list[str]:
    """Return the files in a wheel, or in the root folder of an sdist."""
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            return sorted(name for name in archive.namelist() if not name.endswith("/"))
    with tarfile.open(file) as archive:
        return sorted(member.name.split("/", 1)[1] for member in archive.getmembers() if member.isfile())


def content_faults(sdist: Path, wheel: Path) -> list[str]:
    """Return missing and unexpected files of sdist and wheel."""
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT).stdout.splitlines()
    tracked = {name for name in listed if (ROOT / name).is_file()}
    package = {name.removeprefix("src/") for name in tracked if name.startswith("src/svtrv2_hf/")}
    in_wheel, in_sdist = set(names(wheel)), set(names(sdist))
    about = {name for name in in_wheel if name.split("/")[0].endswith(".dist-info")}
    faults = [f"{wheel.name} lacks {name}" for name in sorted((package | set(NEEDED)) - in_wheel)]
    faults += [f"{wheel.name} contains {name}" for name in sorted(in_wheel - about - package)]
    faults += [
        f"{wheel.name} lacks {name}"
        for name in LICENSES
        if not any(each.endswith(f"licenses/{name}") for each in about)
    ]
    faults += [
        f"{sdist.name} lacks {name}"
        for name in IN_SDIST
        if name not in in_sdist and not any(each.startswith(f"{name}/") for each in in_sdist)
    ]
    faults += [f"{sdist.name} contains {name}" for name in sorted(in_sdist - tracked - {"PKG-INFO"})]
    for file, content in ((wheel, in_wheel), (sdist, in_sdist)):
        weights = [name for name in sorted(content) if name.endswith(".safetensors") and not name.startswith(WEIGHTS)]
        faults += [f"{file.name} contains the weights {name}" for name in weights]
        if file.stat().st_size > LARGEST:
            faults.append(f"{file.name} has {file.stat().st_size} bytes, more than {LARGEST}")
    return faults


def sdist_faults(sdist: Path, wheel: Path, elsewhere: Path) -> list[str]:
    """Return the differences between the wheel and a wheel built from the sdist."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    made = run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(elsewhere), str(sdist)], elsewhere)
    if made.returncode:
        return [f"{sdist.name} cannot be built: {made.stderr.strip()}"]
    differing = set(names(only_file(elsewhere, "*.whl"))) ^ set(names(wheel))
    return [
        f"{name} is only in one of {wheel.name} and the wheel built from {sdist.name}" for name in sorted(differing)
    ]


def installed_faults(wheel: Path, elsewhere: Path) -> list[str]:
    """Return the commands that fail in an environment with the installed wheel, outside the checkout."""
    environment = elsewhere / "environment"
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    constraints = ROOT / "constraints.txt"
    pip = [str(scripts / "python"), "-m", "pip", "--disable-pip-version-check"]
    commands = [
        ([*pip, "install", "--quiet", "-c", str(constraints), str(wheel)], ""),
        ([*pip, "check"], "No broken requirements"),
        ([str(scripts / "python"), "-c", READ], f"{environment.name}\nHello"),
        ([str(scripts / "svtrv2"), "--help"], "publish"),
        ([str(scripts / "svtrv2"), "read", "word.png"], "word.png\tHello\t"),
    ]
    faults = []
    for command, expected in commands:
        done = run(command, elsewhere)
        shown = " ".join(Path(word).name if "/" in word else word.strip().split("\n")[0] for word in command)
        print(f"{shown}: {done.returncode}")
        if done.returncode or not all(part in done.stdout for part in expected.split("\n")):
            faults.append(
                f"{shown} failed; it printed {done.stdout.strip()[-500:]!r} and {done.stderr.strip()[-1500:]}"
            )
    return faults


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without access to the Hub and to the source of the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        command, cwd=folder, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
