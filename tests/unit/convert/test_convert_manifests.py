"""Whole manifests, in the forms that the other projects' examples have."""

import contextlib
import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from converting import MANIFESTS, one

from headway.convert.documents import Document, convert, output
from headway.convert.fields import ConvertError, leaves
from headway_api.kinds import TRAINING_JOB
from headway_api.validation import admit

pytestmark = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.stem)

# What containers and the runtime's jobs are called says nothing: a TrainingJob has one of each.
SAYS_NOTHING = re.compile(r"apiVersion|kind|.*(containers|targetJobs|replicatedJobs)\[\d+\]\.name")


def lost(source: dict[str, Any], document: Document) -> list[str]:
    """Leaves of the input that are neither in the output nor told about."""
    written = [str(value) for _, value in leaves(yaml.safe_load(document.text))]
    words = {word for text in written for word in text.split()} | set(written)
    places = [note.where for note in document.notes]

    def found(path: str, value: Any) -> bool:
        known = bool(SAYS_NOTHING.fullmatch(path))
        told = any(path.startswith(where) for where in places if where)
        return known or told or str(value) in words

    return [f"{path}: {value}" for path, value in leaves(source) if not found(path, value)]


def mappings(value: Any, path: str = "") -> Iterator[tuple[dict[str, Any], str]]:
    if isinstance(value, dict):
        yield value, path
        for name, item in value.items():
            yield from mappings(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from mappings(item, f"{path}[{index}]")


def test_the_result_is_one_that_the_api_server_takes(manifest: Path) -> None:
    document = one(manifest.read_text(), ("a100",))
    admit(TRAINING_JOB, yaml.safe_load(document.text))


def test_the_same_input_gives_the_same_output(manifest: Path) -> None:
    first, second = (one(manifest.read_text()) for _ in range(2))
    assert first == second


def test_comments_change_nothing_of_what_is_written(manifest: Path) -> None:
    text = one(manifest.read_text()).text
    bare = "".join(f"{line}\n" for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert yaml.safe_load(bare) == yaml.safe_load(text)
    assert "null" not in text


def test_a_result_passes_through_unchanged(manifest: Path) -> None:
    text = one(manifest.read_text()).text
    again = convert(f"{text}---\n{manifest.read_text()}")
    assert output(again) == f"{text}---\n{text}"


def test_every_leaf_of_the_input_is_in_the_output_or_told(manifest: Path) -> None:
    source = yaml.safe_load(manifest.read_text())
    assert not lost(source, one(manifest.read_text()))


def test_a_field_that_nobody_knows_is_never_lost_wherever_it_stands(manifest: Path) -> None:
    source = yaml.safe_load(manifest.read_text())
    silent = []
    for index, (_, path) in enumerate(list(mappings(source))):
        changed = copy.deepcopy(source)
        target, _ = list(mappings(changed))[index]
        if path.endswith(("requests", "limits")):
            target["unknown.example.com/thing"] = 77123
        elif path:
            target["unknownThing"] = "unknown-thing"
        silent += lost(changed, one(changed))
    assert not silent


def test_every_decision_is_a_comment_in_the_result(manifest: Path) -> None:
    document = one(manifest.read_text())
    comments = " ".join(
        line.strip().removeprefix("# ")
        for line in document.text.splitlines()
        if line.lstrip().startswith("#")
    )
    assert not [note.text for note in document.notes if note.check and note.text not in comments]


def replaced(value: Any, path: list[Any], wrong: Any) -> Any:
    if not path:
        return wrong
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], wrong)
    return changed


def places(value: Any) -> Iterator[list[Any]]:
    """Path of every value in a document, as keys and indexes."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield [key]
        if isinstance(item, dict | list):
            yield from ([key, *rest] for rest in places(item))


WRONG: list[Any] = [None, 7, True, "x", [], {}, [7], ["x"], [{}], {"x": 7}]


def test_a_value_of_another_type_never_ends_in_a_traceback(manifest: Path) -> None:
    source = yaml.safe_load(manifest.read_text())
    for index, path in enumerate(places(source)):
        # Each at some places: all of them at all places take half a minute.
        for wrong in WRONG[index % 5 :: 5]:
            with contextlib.suppress(ConvertError):
                one(json.dumps(replaced(source, path, wrong)))
