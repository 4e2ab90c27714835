"""The files generated from the models: never edited by hand, never out of date."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HACK = Path(__file__).parents[3] / "hack"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(HACK))
    yield importlib.import_module("generate")
    sys.modules.pop("generate")


def run(generate: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["generate.py", *arguments])
    code: int = generate.main()
    return code


def test_the_files_in_the_tree_are_what_the_models_say(
    generate: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(generate, monkeypatch, "--check") == 0, capsys.readouterr().out


def test_check_shows_edited_missing_and_orphaned_files_and_writing_mends_them(
    generate: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert run(generate, monkeypatch) == 0
    edited = tmp_path / "crds" / "headway.dev_trainingjobs.yaml"
    edited.write_text(edited.read_text().replace("maximum: 4096", "maximum: 5000"))
    (tmp_path / "docs" / "reference" / "contract.md").unlink()
    orphan = tmp_path / "docs" / "reference" / "gone.md"
    orphan.write_text(f"<!-- {generate.HEADER} -->\n")
    by_hand = tmp_path / "docs" / "reference" / "by-hand.md"
    by_hand.write_text("# Kept\n")

    assert run(generate, monkeypatch, "--check") == 1
    shown = capsys.readouterr()
    assert "maximum: 5000\n" in shown.out
    assert "maximum: 4096\n" in shown.out
    assert "contract.md (generated)" in shown.out
    assert "gone.md" in shown.out
    assert "3 generated files are out of date: run `make generate`" in shown.err

    assert run(generate, monkeypatch) == 0
    assert run(generate, monkeypatch, "--check") == 0
    assert by_hand.exists()
    assert not orphan.exists()


def test_a_name_in_the_contract_reaches_the_page_with_its_docstring(generate: ModuleType) -> None:
    page = generate.contract_page()
    assert "| `AGENT_PORT` | `29390` | The lead's agent listens here" in page
    assert "| 143 | `PREEMPTED` | Ended by SIGTERM" in page
    assert "HEADWAY_PARAM_&lt;NAME>" in page


def test_every_constant_of_the_contract_says_what_it_means(generate: ModuleType) -> None:
    rows = [line for line in generate.contract_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []
