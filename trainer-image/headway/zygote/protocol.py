"""What an agent and its zygote have in common."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headway.zygote.script import Kind, Program

MESSAGE_BYTES: Final = 128 * 1024
"""Longest message: what a Unix socket that keeps messages apart takes by default."""
STACKS_SIGNAL: Final[int] = signal.SIGRTMIN + 5
"""A worker that is asked for its stacks gets this signal (see `faulthandler.register`)."""

_PYTHON = re.compile(r"python(3(\.\d+)?)?")
_KINDS: Final[dict[str, Kind]] = {"-m": "module", "-c": "code"}
_ALONE, _WITH_VALUE = frozenset("bBdEIOPqsSuv"), ("W", "X")


@dataclass(frozen=True)
class Invocation:
    """A command that runs a Python program, taken apart.

    Attributes:
        interpreter: As given: a name or a path.
        options: Of the interpreter.
        program: What it runs.
    """

    interpreter: str
    options: Sequence[str]
    program: Program


def parse(command: Sequence[str]) -> Invocation | None:
    """Take a command apart; None if it does not run a Python program in a way we know."""
    at = _end_of_options(command)
    if not _PYTHON.fullmatch(Path(command[0]).name) or at is None:
        return None
    flag, options = command[at], command[1:at]
    if flag in _KINDS:
        target, arguments = command[at + 1], command[at + 2 :]
        return Invocation(command[0], options, Program(_KINDS[flag], target, arguments))
    # A folder or an archive runs its __main__.py: left to the interpreter.
    if not Path(flag).is_file() or Path(flag).suffix not in (".py", ""):
        return None
    return Invocation(command[0], options, Program("file", flag, command[at + 1 :]))


def _end_of_options(command: Sequence[str]) -> int | None:
    """Where the program begins; None for options that we don't know, or no program."""
    at = 1
    while at < len(command):
        word = command[at]
        if word in _KINDS:
            return at if at + 1 < len(command) else None
        if not word.startswith("-"):
            return at
        if word[1:2] in _WITH_VALUE:
            at += 2 if len(word) == 2 else 1
        elif len(word) > 1 and set(word[1:]) <= _ALONE:
            at += 1
        else:
            return None
    return None
