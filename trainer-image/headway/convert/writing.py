"""YAML as a person writes it, with comments above the fields that they are about."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from headway.convert.job import Note

_WIDTH = 96
_NUMBER_ELSEWHERE = re.compile(
    r"[-+]?(0[xob][\da-f_]+|[\d_]*\.?[\d_]+\.?(e[-+]?\d+)?|\.inf)|\.nan|[yn]", re.IGNORECASE
)
"""Texts for PyYAML that kubectl's parser takes for numbers or truth values, such as 1e-4."""


class _Dumper(yaml.SafeDumper):
    """Lists indented, nothing by reference, short lists of texts in one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: _Dumper, text: str) -> ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if "\n" in text:
        return dumper.represent_scalar(tag, text, style="|")
    resolve: Callable[..., str] = dumper.resolve
    plain = resolve(ScalarNode, text, (True, False)) == tag
    plain = plain and not _NUMBER_ELSEWHERE.fullmatch(text)
    plain = plain and dumper.analyze_scalar(text).allow_block_plain
    return dumper.represent_scalar(tag, text, style=None if plain else _quotes(text))


def _list(dumper: _Dumper, values: list[Any]) -> SequenceNode:
    flat = all(isinstance(value, str | int) and "\n" not in str(value) for value in values)
    short = flat and len(", ".join(map(str, values))) <= _WIDTH - 16
    node = dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=short)
    for item in node.value if short else ():
        if item.style is None and not dumper.analyze_scalar(item.value).allow_flow_plain:
            item.style = _quotes(item.value)
    return node


def _quotes(text: str) -> str | None:
    """Double quotes where nothing has to be escaped in them, otherwise what YAML needs."""
    return '"' if text.isprintable() and not re.search(r'["\\]', text) else None


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def dump(value: Any) -> str:
    """One document in block style, without comments."""
    return str(
        yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, width=100_000, allow_unicode=True,
            default_flow_style=False,
        )
    )  # fmt: skip


def write(manifest: dict[str, Any], notes: Iterable[Note]) -> str:
    """A manifest with the notes as comments: each above its field, or the nearest one there is."""
    text = dump(manifest)
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    above: dict[int, list[str]] = {}
    for note in notes:
        if note.field:
            line, column = _place(root, re.findall(r"[^.\[\]]+", note.field))
            comment = textwrap.fill(
                note.text,
                _WIDTH,
                initial_indent=" " * column + "# ",
                subsequent_indent=" " * column + "# ",
                break_long_words=False,
                break_on_hyphens=False,
            )
            if comment not in above.setdefault(line, []):
                above[line].append(comment)
    lines = text.splitlines()
    return "".join(
        "".join(f"{comment}\n" for comment in above.get(number, [])) + f"{line}\n"
        for number, line in enumerate(lines)
    )


def _place(root: Node | None, path: list[str]) -> tuple[int, int]:
    """Line and column of the key at the end of a path, or of the last one on the way."""
    line = column = 0
    node = root
    for name in path:
        if not isinstance(node, MappingNode):
            break
        found = next(((key, value) for key, value in node.value if key.value == name), None)
        if found is None:
            break
        line, column = found[0].start_mark.line, found[0].start_mark.column
        node = found[1]
    return line, column
