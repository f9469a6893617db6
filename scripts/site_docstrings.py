# SPDX-License-Identifier: Apache-2.0
"""A Griffe extension that prepares docstrings for the documentation site."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import griffe


# [`name`], unless it is a link.
REFERENCE = re.compile(r"\[`([\w.]+)`\](?![(\[])")
# An argument with its type, with or without a description: "    name (`int`, *optional*): description".
ARGUMENT = re.compile(r"^    (\S[^(:]*?) \((.*?)\)(?::|$)")

MARKUP = re.compile(r"\[(?=`)|(?<=`)\]|[`*]")


class SiteDocstrings(griffe.Extension):
    """Extension that links references, shows examples as code, and documents dataclass fields with their help."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:  # noqa: ARG002
        everything = list(walk(pkg))
        paths: dict[str, list[str]] = defaultdict(list)
        for item in everything:
            if item.parent is not None and item.parent.is_module and not item.is_module:
                paths[item.name].append(item.path)
        for item in everything:
            item.labels -= {"class-attribute", "instance-attribute"}  # all fields have both
            if item.is_attribute and item.docstring is None:
                use_help(item)
            if item.docstring is not None:
                text = with_fences(with_plain_types(item.docstring.value))
                item.docstring.value = REFERENCE.sub(lambda found, item=item: link(item, found[1], paths), text)


def walk(item: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all objects defined in it."""
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from walk(member)


def use_help(attribute: griffe.Attribute) -> None:
    """Use the help of a dataclass field as its docstring, and the default of the field as its value."""
    call = ast.parse(str(attribute.value), mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "HfArg"):
        return
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if "help" in given:
        attribute.docstring = griffe.Docstring(literal_part(given["help"]), parent=attribute)
        attribute.value = ast.unparse(given["default"]) if "default" in given else None


def literal_part(node: ast.expr) -> str:
    """Return the text of a string expression without sentences that are computed."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):  # a method of the string
        return literal_part(node.func.value)
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(part.value) for part in parts if isinstance(part, ast.Constant))
    return text.replace(". . ", ". ").strip()


def with_plain_types(text: str) -> str:
    """Remove Markdown from the types of arguments, which the site shows as code."""
    lines, in_arguments = [], False
    for line in text.split("\n"):
        if line.strip() and not line.startswith(" "):
            in_arguments = line in ("Args:", "Attributes:")
        if in_arguments and (found := ARGUMENT.match(line)):
            line = f"    {found[1]} ({MARKUP.sub('', found[2])}):{line[found.end() :]}"
        lines.append(line)
    return "\n".join(lines)


def with_fences(text: str) -> str:
    """Add fences around doctests outside code blocks, where Markdown reads `>>>` as nested quotations."""
    lines: list[str] = []
    fenced = in_doctest = False
    for line in [*text.split("\n"), ""]:
        if line.lstrip().startswith("```"):
            fenced = not fenced
        if not fenced and not in_doctest and line.startswith(">>>"):
            in_doctest = True
            lines.append("```pycon")
        elif in_doctest and not line:
            in_doctest = False
            lines.append("```")
        lines.append(line)
    return "\n".join(lines[:-1])


def link(item: griffe.Object, name: str, paths: Mapping[str, list[str]]) -> str:
    """Return a cross reference to the full path of a name, or plain code for a name of another package.

    An unknown name becomes a broken reference, which fails a strict build.
    """
    first, *rest = name.split(".")
    if first in item.module.members:
        member = item.module.members[first]
        path = member.target_path if member.is_alias else member.path
    else:
        [path] = paths[first] if len(paths[first]) == 1 else [first]
    if path != first and path.split(".")[0] != item.package.name:
        return f"`{name}`"
    return f"[`{name}`][{'.'.join([path, *rest])}]"
