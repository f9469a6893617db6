#!/usr/bin/env python
# SPDX-License-Identifier: Apache-2.0
"""Check the files of the repository for words that docs/style.md replaces; `make check` runs it."""

import re
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).parents[1]
STYLE = "docs/style.md"
SUFFIXES = (".py", ".md", ".yaml", ".yml", ".j2", ".toml", ".cff", ".css", ".js")
WAIVER = "words: ok"


def read_words(style: str) -> list[str]:
    """Return the words in backticks in the first column of the tables."""
    cells = re.findall(r"^\| (`[^|]*`) \|", style, flags=re.MULTILINE)
    return [word for cell in cells for word in re.findall(r"`([^`]+)`", cell)]


def find_words(text: str, words: list[str]) -> list[tuple[int, str]]:
    """Return line number and word of each occurrence, including those in identifiers."""
    choices = "|".join(word.replace(" ", "[ _]") for word in words)
    pattern = re.compile(rf"(?<![A-Za-z])(?:{choices})(?![A-Za-z])", re.IGNORECASE)
    return [
        (number, match[0])
        for number, line in enumerate(text.splitlines(), 1)
        if WAIVER not in line
        for match in pattern.finditer(line)
    ]


def main() -> int:
    """Print all occurrences; return 1 if there are any."""
    words = read_words((ROOT / STYLE).read_text("utf-8"))
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    errors = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if (path.suffix in SUFFIXES or path.name == "Makefile") and name != STYLE and path.is_file():
            found = find_words(path.read_text("utf-8"), words)
            errors += [f"{name}:{number}: {word!r}, see {STYLE}" for number, word in found]
    print("\n".join(errors), end="\n" if errors else "")
    return bool(errors)


if __name__ == "__main__":
    sys.exit(main())
