"""Options of a command that starts another one, such as `mpirun -np 4 python train.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Option:
    """One option as it was given.

    Attributes:
        name: Without leading dashes, and with dashes for underscores: `map-by`.
        values: What follows it.
        text: As it was written.
    """

    name: str
    values: tuple[str, ...]
    text: str

    @property
    def value(self) -> str:
        """Its only value; empty where it has none."""
        return self.values[0] if self.values else ""


@dataclass
class Launch:
    """How a launcher was asked to start ranks.

    Attributes:
        tool: Its name.
        program: Index of the program's first word among its arguments.
        interpreter: What stands before the program when ranks run it.
        processes: All ranks (`-np`), as written.
        per_worker: Ranks of each pod, as written.
        elastic: Fewest and most ranks or pods, as written; empty where not given.
        nodes: Pods (`--nnodes`), as written.
        env: Variables for the ranks; None stands for the value that the launcher has.
        working_dir: Of the ranks.
        max_restarts: As written.
        useless: Options that Headway has no use for.
        unclear: Sentences on options that need a decision.
        horovod: Whether it starts Horovod only.
    """

    tool: str
    program: int = 0
    interpreter: list[str] = field(default_factory=list)
    processes: str = ""
    per_worker: str = ""
    elastic: tuple[str, str] = ("", "")
    nodes: str = ""
    env: dict[str, str | None] = field(default_factory=dict)
    working_dir: str = ""
    max_restarts: str = ""
    useless: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    horovod: bool = False

    def ask_about(self, unknown: Sequence[Option]) -> None:
        """Options of the launcher that nobody here knows."""
        self.unclear += [f"{self.tool}'s {option.text} is not known here" for option in unknown]


def resolved(launch: Launch, env: Mapping[str, str]) -> None:
    """Fills in numbers that are variables of the container, such as `-np $NP`."""
    for name in ("processes", "per_worker", "nodes", "max_restarts"):
        found = re.fullmatch(r"\$[{(]?([A-Za-z_]\w*)[)}]?", getattr(launch, name))
        if found and found[1] in env:
            setattr(launch, name, env[found[1]])


def scan(
    words: Sequence[str], arity: Mapping[str, int], aliases: Mapping[str, str]
) -> tuple[list[Option], list[Option], int]:
    """Reads options up to the first word that is none.

    Args:
        words: What follows the launcher's name.
        arity: Number of values of each option that is known.
        aliases: Other names of those.

    Returns:
        Known options, unknown ones, and the index of the program's first word.
    """
    known: list[Option] = []
    unknown: list[Option] = []
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            at += 1
            break
        flag, equals, joined = words[at].partition("=")
        name = flag.lstrip("-").replace("_", "-")
        name = aliases.get(name, name)
        following = 0 if equals else arity.get(name, _guess(words[at + 1 : at + 2]))
        values = (joined,) if equals else tuple(words[at + 1 : at + 1 + following])
        text = " ".join(words[at : at + 1 + following])
        (known if name in arity else unknown).append(Option(name, values, text))
        at += 1 + following
    return known, unknown, min(at, len(words))


def _guess(following: Sequence[str]) -> int:
    """Whether an option that we don't know has a value: what looks like one is one."""
    return int(bool(following) and bool(re.fullmatch(r"[\d.,:]+|none|auto", following[0])))


def whole(text: str) -> int | None:
    """The number that is written there, if it is one."""
    return int(text) if text.isdigit() else None
