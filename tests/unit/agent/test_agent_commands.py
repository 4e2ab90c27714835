"""Which commands run a Python program that a zygote can fork."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.zygote.protocol import Invocation, parse
from headway.zygote.script import Program


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.py").touch()
    Path("package").mkdir()


@pytest.mark.parametrize(
    ("command", "options", "program"),
    [
        ("python train.py --lr 1", [], Program("file", "train.py", ["--lr", "1"])),
        ("/usr/bin/python3.13 -u train.py", ["-u"], Program("file", "train.py", [])),
        ("python3 -m pkg.train -m x", [], Program("module", "pkg.train", ["-m", "x"])),
        ("python -c print() a", [], Program("code", "print()", ["a"])),
        (
            "python -uB -W error -Xdev -X utf8 train.py -c 1",
            ["-uB", "-W", "error", "-Xdev", "-X", "utf8"],
            Program("file", "train.py", ["-c", "1"]),
        ),
    ],
)
def test_a_python_program_is_taken_apart(
    command: str, options: list[str], program: Program
) -> None:
    words = command.split()
    assert parse(words) == Invocation(words[0], options, program)


@pytest.mark.parametrize(
    "command",
    [
        "bash -c python",
        "torchrun train.py",
        "pythonista train.py",
        "python",
        "python -m",
        "python -W",
        "python -i train.py",
        "python --check-hash-based-pycs always train.py",
        "python missing.py",
        "python package",
        "python -",
    ],
)
def test_everything_else_is_left_to_exec(command: str) -> None:
    assert parse(command.split()) is None
