"""The pages people read: what they show has to exist, and what they link to has to be there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headway_api.contract import API_VERSION
from headway_api.kinds import KINDS
from headway_api.validation import admit

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
OUR_KINDS = {kind.kind: kind for kind in KINDS}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z][a-z0-9-]*)`")
FILE = re.compile(r"`((?:hack|charts|examples|tests|crds|operator|trainer-image|\.ci)/[\w./-]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(language: str) -> list[tuple[str, str]]:
    """Fenced blocks of a language: where (page:line), and their text."""
    return [
        (f"{name(page)}:{text.count(chr(10), 0, found.start()) + 1}", found[2])
        for page in PAGES
        for text in [page.read_text()]
        for found in BLOCK.finditer(text)
        if found[1] == language
    ]


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text())


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    for where, text in blocks("yaml"):
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and document.get("apiVersion") == API_VERSION:
                yield where, document


@pytest.mark.parametrize(
    ("where", "shown"), [pytest.param(*each, id=each[0]) for each in objects()]
)
def test_every_manifest_of_ours_in_a_page_is_one_that_the_api_server_takes(
    where: str, shown: dict[str, Any]
) -> None:
    admit(OUR_KINDS[shown["kind"]], shown, None)


def test_manifests_are_found_at_all() -> None:
    found = [where.partition(":")[0] for where, _ in objects()]
    assert "README.md" in found
    assert len(found) > 5


@pytest.mark.parametrize(
    ("where", "text"), [pytest.param(*each, id=each[0]) for each in blocks("python")]
)
def test_every_python_block_in_a_page_is_python(where: str, text: str) -> None:
    ast.parse(text, where)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_exist(page: Path) -> None:
    broken = []
    for target in LINK.findall(CODE.sub("", prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        if not goal.exists():
            broken.append(f"{target}: no such file")
        elif anchor and anchor not in map(slug, HEADING.findall(goal.read_text())):
            broken.append(f"{target}: no such heading")
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_and_file_that_a_page_names_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    text = prose(page)
    unknown = [f"make {target}" for target in MAKE.findall(text) if target not in targets]
    assert not unknown + [path for path in FILE.findall(text) if not (ROOT / path).exists()]


def test_every_option_of_headway_run_that_a_page_shows_exists() -> None:
    source = (ROOT / "operator/headway_operator/local/command.py").read_text()
    commands = [
        (where, line)
        for language in ("console", "bash")
        for where, text in blocks(language)
        for line in text.splitlines()
        if "headway run" in line
    ]
    assert commands
    for where, line in commands:
        for option in re.findall(r"(?<=\s)--?[a-z]+", line.partition("headway run")[2]):
            known = f'"{option}"' in source or f"{option[2:]}: Annotated" in source
            assert known, f"{where}: headway run has no {option}"
