"""Links, navigation and reference of the documentation."""

import importlib.util
import itertools
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
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


def parse(page: Path) -> list[Token]:
    """Return the tokens of a page without its front matter; tokens in paragraphs and headings follow these."""
    text = re.sub(r"\A---\n.*?\n---\n", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    blocks = MarkdownIt("commonmark").enable("table").parse(text)
    return [token for block in blocks for token in (block, *(block.children or []))]


def targets(page: Path) -> Iterator[str]:
    """Return the targets of the links and images of a page, including those in HTML."""
    for token in parse(page):
        if target := token.attrGet("href") or token.attrGet("src"):
            yield str(target)
        if token.type.startswith("html"):
            yield from re.findall(r"""(?:href|src)=["']([^"']+)""", token.content)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings in the form of GitHub, and ids in HTML."""
    result: set[str] = set()
    headings: Counter[str] = Counter()
    for token, following in itertools.pairwise(parse(page)):
        if token.type == "heading_open":
            words = "".join(part.content for part in following.children or [] if part.type in ("text", "code_inline"))
            anchor = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            result.add(f"{anchor}-{headings[anchor]}" if headings[anchor] else anchor)
            headings[anchor] += 1
        if token.type.startswith("html"):
            result.update(re.findall(r"""(?:id|name)=["']([^"']+)""", token.content))
    return result


def faulty_links(page: Path, within: Path) -> list[str]:
    """Return the faulty links of a page, whose targets must be files in a folder. URLs are not opened."""
    faults = []
    for target in targets(page):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            if parts.scheme not in ("https", "mailto"):
                faults.append(f"{target} is not https")
            continue
        file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        if not file.is_relative_to(within):
            faults.append(f"{target} is outside {within.name}")
        elif not file.exists():
            faults.append(f"{target} does not exist")
        elif parts.fragment and parts.fragment not in anchors(file):
            faults.append(f"{target}: {file.name} has no such heading; it has {sorted(anchors(file))}")
    return faults


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_have_targets(page):
    assert faulty_links(page, within=ROOT) == []


def test_faulty_links_are_reported(tmp_path):
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
    assert [fault.split()[0].rstrip(":") for fault in faulty_links(page, within=tmp_path)] == [*bad, "gone.png"]


def test_every_page_is_in_the_navigation():
    def listed(entries):
        for entry in entries:
            for value in entry.values():
                yield from listed(value) if isinstance(value, list) else [ROOT / value]

    pages = list(listed(SITE["nav"]))
    assert [page for page in pages if not page.is_file()] == []
    assert set(DOCS.rglob("*.md")) <= set(pages)


@pytest.mark.parametrize("page", REFERENCE, ids=[page.stem for page in REFERENCE])
def test_names_in_the_reference_exist_and_are_documented(page):
    for path in REFERENCE[page]:
        place, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(place), name).__doc__, path


def test_page_of_the_command_line_is_up_to_date():
    specification = importlib.util.spec_from_file_location("render", ROOT / "scripts" / "render_command_line.py")
    render = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(render)
    assert render.PAGE.read_text(encoding="utf-8") == render.page()


def test_reference_contains_all_public_names():
    named = {path for paths in REFERENCE.values() for path in paths}
    missing = {f"svtrv2_hf.{name}" for name in svtrv2_hf.__all__} - named
    assert missing == {"svtrv2_hf.ENGLISH_94"}  # a constant without a docstring
