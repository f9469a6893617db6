"""Links lead somewhere, every page can be reached, the reference names what there is, and the project's papers are in order."""

import importlib.util
import itertools
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

import svtrv2_hf


ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "model_cards").glob("*.md")])
SITE = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
REFERENCE = {
    page: re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for page in sorted((DOCS / "api").glob("*.md"))
}


def project() -> dict[str, Any]:
    """What pyproject.toml says of the package."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def parse(page: Path) -> list[Token]:
    """The tokens of a page, those within paragraphs and headings after them; front matter left out."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or []))]


def targets(page: Path) -> Iterator[str]:
    """Where the links and images of a page lead, those in HTML, too."""
    for token in parse(page):
        if target := token.attrGet("href") or token.attrGet("src"):
            yield str(target)
        if token.type.startswith("html"):
            yield from re.findall(r"""(?:href|src)=["']([^"']+)""", token.content)


def anchors(page: Path) -> set[str]:
    """What follows the # in links to a page: its headings as GitHub spells them, and ids in HTML."""
    found: set[str] = set()
    headings: Counter[str] = Counter()
    for token, following in itertools.pairwise(parse(page)):
        if token.type == "heading_open":
            words = "".join(part.content for part in following.children or [] if part.type in ("text", "code_inline"))
            anchor = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            found.add(f"{anchor}-{headings[anchor]}" if headings[anchor] else anchor)
            headings[anchor] += 1
        if token.type.startswith("html"):
            found.update(re.findall(r"""(?:id|name)=["']([^"']+)""", token.content))
    return found


def faults(page: Path, within: Path) -> list[str]:
    """What is wrong with the links of a page that should lead to files below a folder. No other place is asked."""
    wrong = []
    for target in targets(page):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            if parts.scheme not in ("https", "mailto"):
                wrong.append(f"{target} is not https")
            continue
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not file.is_relative_to(within):
            wrong.append(f"{target} leads out of {within.name}")
        elif not file.exists():
            wrong.append(f"{target} does not exist")
        elif parts.fragment and parts.fragment not in anchors(file):
            wrong.append(f"{target}: {file.name} has no such heading; it has {sorted(anchors(file))}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page):
    assert faults(page, within=ROOT) == []


def test_faulty_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text(
        "# Two words, `code` & more\n\n## Twice\n\n## Twice\n\n<a id='x' name=\"here\"></a>\n"
    )
    page = tmp_path / "page.md"
    good = [
        "other.md",
        "other.md#two-words-code--more",
        "other.md#twice-1",
        "other.md#here",
        "#title",
        "https://a.org/b",
    ]
    bad = ["missing.md", "other.md#twice-2", "#nowhere", "http://a.org", "../outside.md"]
    links = [f"[word]({target})" for target in [*good, *bad]]
    page.write_text(
        "---\nkey: [x](y)\n---\n# Title\n\n" + " ".join(links) + '\n\n`[x](y)`\n\n    [x](y)\n\n<img src="gone.png">\n'
    )
    assert [fault.split()[0].rstrip(":") for fault in faults(page, within=tmp_path)] == [*bad, "gone.png"]


def test_every_page_is_in_the_navigation():
    def listed(entries):
        for entry in entries:
            for value in entry.values():
                yield from listed(value) if isinstance(value, list) else [ROOT / value]

    pages = list(listed(SITE["nav"]))
    assert [page for page in pages if not page.is_file()] == []
    assert set(DOCS.rglob("*.md")) <= set(pages)


@pytest.mark.parametrize("page", REFERENCE, ids=[page.stem for page in REFERENCE])
def test_the_reference_names_what_there_is(page):
    for path in REFERENCE[page]:
        place, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(place), name).__doc__, path


def test_the_command_line_is_as_the_commands_tell():
    specification = importlib.util.spec_from_file_location("render", ROOT / "scripts" / "render_command_line.py")
    render = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(render)
    # Versions of Python break lines at other places.
    assert render.PAGE.read_text(encoding="utf-8").split() == render.page().split()


def test_the_reference_has_all_that_the_package_gives():
    named = {path for paths in REFERENCE.values() for path in paths}
    missing = {f"svtrv2_hf.{name}" for name in svtrv2_hf.__all__} - named
    assert missing == {"svtrv2_hf.ENGLISH_94"}  # a constant, which the reference tells of in words


def test_the_citation_names_what_is_cited():
    """What the Citation File Format 1.2.0 wants of a file and of a reference; and the paper."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper = citation["preferred-citation"]
    assert citation["cff-version"] == "1.2.0"
    assert {"authors", "message", "title"} <= citation.keys()
    assert {"authors", "title", "type", "year"} <= paper.keys()
    assert citation["title"] == project()["name"]
    assert citation["license"] == project()["license"]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2411.15858"}]
    for author in (*citation["authors"], *paper["authors"]):
        assert author.keys() in ({"name"}, {"family-names", "given-names"})


def test_the_changelog_keeps_its_form():
    """A section for each version, newest first, with entries by kind: see keepachangelog.com."""
    headings = re.findall(r"^#+ .*", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    versions = [heading for heading in headings if heading.startswith("## ")]
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert headings[:2] == ["# Changelog", versions[0]]
    assert all(
        re.fullmatch(r"## \[(Unreleased|\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?", version) for version in versions
    )
    assert {heading.removeprefix("### ") for heading in headings if heading.startswith("### ")} <= kinds
    assert "dev" not in svtrv2_hf.__version__ or versions[0] == "## [Unreleased]"
