"""Finding the program that ranks run in a command that starts a launcher."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from headway.convert import horovodrun, mpirun, torchrun
from headway.convert.options import Launch
from headway.convert.shell import SHELLS, Word, commands

_PYTHON = re.compile(r"(pypy|python)[0-9.]*")
_SHELL_NEEDED = re.compile(r"[$`*?\[\]{}~<>]")
_NOT_RUN = {"echo", "printf", "which", "command", "type", "pip", "pip3", "apt-get", "export"}
_HARMLESS = {"export", "cd", "set", "ulimit", "source", ".", "echo", "umask", "true", "unset"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_KEYWORDS = {"exec", "time", "if", "then", "do", "!", "until", "while", "else"}
_STARTERS = {"accelerate", "deepspeed", "colossalai", "srun", "ray", "composer", "tune"}


@dataclass
class Program:
    """What each rank runs.

    Attributes:
        command: Its words.
        launch: How a launcher was asked to start it; None where there was no launcher.
        unclear: Sentences on what needs a decision.
    """

    command: list[str]
    launch: Launch | None = None
    unclear: list[str] = field(default_factory=list)

    @property
    def is_python(self) -> bool:
        """Whether it looks like Python."""
        text = " ".join(self.command)
        return bool(re.search(r"\bpython|\.py\b|\bpypy", text))

    @property
    def starter(self) -> str:
        """Name of a tool in it that starts ranks by itself; empty where there is none."""
        names = [PurePosixPath(word).name for word in self.command]
        script = _script_at(self.command)
        if script is not None:
            names += [PurePosixPath(word.text).name for c in commands(names[script]) for word in c]
            return next((name for name in names if name in _STARTERS), "")
        return names[0] if names and names[0] in _STARTERS else ""


def find(argv: Sequence[str]) -> Program:
    """Takes the launcher out of a command.

    Args:
        argv: The command of a container, which may be a shell with a script.
    """
    argv = list(argv)
    at = _script_at(argv)
    if at is not None:
        return _in_script(argv, at)
    found = _launcher(argv)
    if found is None:
        return Program(argv)
    before, launch, program = found
    words = argv[program + launch.program :]
    unclear = [f"`{' '.join(argv[:before])}` before {launch.tool} is left out"] if before else []
    return Program([*launch.interpreter, *words], launch, [*unclear, *launch.unclear])


def _script_at(argv: Sequence[str]) -> int | None:
    """Index of the script in `sh -c script`; None where the command is no such thing."""
    if not argv or PurePosixPath(argv[0]).name not in SHELLS:
        return None
    for index, word in enumerate(argv[1:-1], start=1):
        of_option = bool(re.fullmatch(r"-[a-z]*o", argv[index - 1]))
        if not word.startswith(("-", "+")) and not of_option:
            return None
        if re.fullmatch(r"-[a-z]*c", word):
            return index + 1
    return None


def _launcher(words: Sequence[str]) -> tuple[int, Launch, int] | None:
    """Index of a launcher's first word, what it was asked for, and where its arguments begin."""
    if words and PurePosixPath(words[0]).name in _NOT_RUN:
        return None
    for index, word in enumerate(words):
        name = PurePosixPath(word).name
        if name in mpirun.NAMES:
            return index, mpirun.parse(words[index + 1 :]), index + 1
        if name in horovodrun.NAMES:
            return index, horovodrun.parse(words[index + 1 :]), index + 1
        if name in torchrun.NAMES:
            return index, torchrun.parse(words[index + 1 :], ["python"]), index + 1
        if word in torchrun.MODULES and index > 1 and words[index - 1] == "-m":
            start = _python_before(words, index - 1)
            if start is not None:
                python = words[start : index - 1]
                return start, torchrun.parse(words[index + 1 :], python, word), index + 1
    return None


def _python_before(words: Sequence[str], end: int) -> int | None:
    """Index of the interpreter whose flags end there."""
    for index in range(end - 1, -1, -1):
        if _PYTHON.fullmatch(PurePosixPath(words[index]).name):
            return index
        if not words[index].startswith("-"):
            return None
    return None


def _in_script(argv: list[str], at: int) -> Program:
    script = argv[at]
    found = [
        (number, words, launcher)
        for number, words in enumerate(commands(script))
        if (launcher := _launcher([word.text for word in words])) is not None
    ]
    if not found:
        return Program(argv)
    number, words, (start, launch, arguments) = found[-1]
    if start and words[start - 1].text == "exec":
        start -= 1
    program = words[arguments + launch.program :]
    tail = script[program[0].start : words[-1].end] if program else ""
    if launch.working_dir and _SHELL_NEEDED.search(launch.working_dir):
        launch.unclear.append(f"{launch.working_dir} of mpirun's --wdir: write pod.workingDir")
        launch.working_dir = ""
    if launch.interpreter:
        tail = f"{' '.join(launch.interpreter)} {tail}"
    assignments = _assignments(launch)
    before = script[: words[start].start].strip()
    after = script[words[-1].end :].strip("; \t\n")
    unclear = []
    if len(found) > 1:
        unclear.append(
            f"the script runs {launch.tool} {len(found)} times: only the last one is taken over"
        )
        before = after = ""
    else:
        unclear += _once_only(
            commands(script), number, [word.text for word in words[:start]], after
        )
    if not before and not after and not assignments and not _SHELL_NEEDED.search(tail):
        command = [*launch.interpreter, *(word.text for word in program)]
        return Program(command, launch, [*launch.unclear, *unclear])
    rebuilt = _joined(before, assignments, tail, after, words[:start])
    return Program([*argv[:at], rebuilt, *argv[at + 1 :]], launch, [*launch.unclear, *unclear])


def _once_only(all_: list[list[Word]], number: int, front: list[str], after: str) -> list[str]:
    """What did not run in each rank until now."""
    others = [
        " ".join(word.text for word in words)
        for words in all_[:number]
        if words[0].text not in _HARMLESS and not _ASSIGNMENT.fullmatch(words[0].text)
    ]
    wrapped = [w for w in front if w not in _KEYWORDS and not _ASSIGNMENT.fullmatch(w)]
    shown = ", ".join(f"`{_short(other)}`" for other in others[:3])
    more = ", …" if len(others) > 3 else ""
    told = [f"in each rank runs now what the script does before: {shown}{more}"] if others else []
    if wrapped:
        told.append(f"`{' '.join(wrapped)}` stands before each rank's program now")
    if after:
        told.append(f"`{_short(after)}` after the program runs in each rank now")
    return told


def _assignments(launch: Launch) -> str:
    """Variables whose values only the shell knows (`-x A=$B`), which stay with it."""
    found = {n: v for n, v in launch.env.items() if v is not None and re.search(r"[$`]", v)}
    for name in found:
        del launch.env[name]
    return " ".join(f'{name}="{value}"' for name, value in found.items())


def _joined(before: str, assignments: str, tail: str, after: str, front: list[Word]) -> str:
    # The shell makes way for the program, so that SIGTERM reaches it.
    last = front[-1].text if front else ""
    makes_way = not after and (not front or bool(_ASSIGNMENT.fullmatch(last)))
    middle = " ".join(filter(None, (assignments, "exec" if makes_way else "", tail)))
    separator = "\n" if before and not front and before[-1] not in "&|;(" else " "
    return f"{before}{separator if before else ''}{middle}{' ' if after else ''}{after}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"
