"""`make bench-overhead`: step time under Headway beside plain torchrun."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench import harness
from bench.stepper import Stepper

SCRIPT = Path(__file__).with_name("overhead_script.py")
WORLD = 2
STEPS = {"short": 100, "long": 15}
"""Steps of a turn: each kind's last about a second."""
Turn = Mapping[str, Any]


@dataclass
class Job:
    """A job of two ranks that steps when it is told to.

    Attributes:
        turns: What rank 0 answered, by kind.
        beside: CPU seconds of everything but the ranks, while it was stepping.
        stepping: Seconds for which it was.
    """

    stepper: Stepper
    turns: dict[str, list[Turn]] = field(default_factory=lambda: {kind: [] for kind in STEPS})
    beside: float = 0.0
    stepping: float = 0.0

    def turn(self, kind: str) -> None:
        """Have it do some steps."""
        cpu, begin = self._beside(), time.monotonic()
        self.turns[kind].append(self.stepper.step(kind, STEPS[kind]))
        self.stepping += time.monotonic() - begin
        self.beside += self._beside() - cpu

    def _beside(self) -> float:
        return sum(_cpu_beside_ranks(each) for each in harness.tree(self.stepper.process.pid))


def _cpu_beside_ranks(process: psutil.Process) -> float:
    try:
        if "RANK" in process.environ():
            return 0.0
        return float(sum(process.cpu_times()[:2]))
    except psutil.Error:
        return 0.0


def command_of(name: str, folder: Path) -> list[str]:
    """How a contestant's job is started."""
    script = [str(SCRIPT), name]
    if name == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        return [*command, f"--nproc-per-node={WORLD}", *script]
    # Checkpoints an hour apart: none falls into the bench.
    return harness.headway_run(script, folder, WORLD, checkpoint={"everySeconds": 3600})


# --- figures -----------------------------------------------------------------------------------

Pair = Mapping[str, Job]
"""Jobs by contestant that took turns with each other."""


def summary(pairs: Sequence[Pair], name: str) -> dict[str, Any]:
    """Figures of one contestant; for Headway also what it adds to torchrun's.

    A median hides what happens once in many steps, such as a report. The CPU time of rank 0 has
    that too, and does not mind a busy machine.
    """
    found: dict[str, Any] = {}
    for kind in STEPS:
        prefix = "short_" if kind == "short" else ""
        for label, figure in (("", _step), ("cpu_", _cpu)):
            turns = [[figure(turn) for turn in pair[name].turns[kind]] for pair in pairs]
            found[f"{prefix}{label}step_ms"] = harness.median(
                1000 * statistics.median(each) for each in turns
            )
            if name == "headway":
                theirs = [[figure(turn) for turn in pair["torchrun"].turns[kind]] for pair in pairs]
                each = [overhead(*both) for both in zip(turns, theirs, strict=True)]
                found[f"{prefix}{label}overhead_percent"] = harness.median(each)
                found[f"{prefix}{label}overhead_range"] = [min(each), max(each)]
    beside = [100 * pair[name].beside / pair[name].stepping for pair in pairs]
    found["background_cpu_percent"] = harness.median(beside)
    return found


def _step(turn: Turn) -> float:
    return float(statistics.median(turn["seconds"]))


def _cpu(turn: Turn) -> float:
    return float(turn["cpu"])


def overhead(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the turns of what ours adds to theirs, in percent: each turn has its pair."""
    pairs = zip(mine, theirs, strict=True)
    return statistics.median(100 * (ours / other - 1) for ours, other in pairs)


# --- the bench ---------------------------------------------------------------------------------


def main(
    pairs: Annotated[int, typer.Option(help="Pairs of jobs, one after the other.")] = 6,
    turns: Annotated[int, typer.Option(help="Turns of a job, for each length of step.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the order within each round.")] = 0,
    quick: Annotated[bool, typer.Option(help="A look: two pairs.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Time the steps of the same DDP loop under Headway and under torchrun.

    Two ranks over gloo each, on this machine. Both jobs of a pair are there at once and step in
    turns of about a second, so that a busy machine disturbs both. Processes differ by luck (where
    their memory lies): so there are several pairs. What goes on beside the ranks is measured as
    CPU time: `background_cpu_percent`, of one CPU.

    For example:

        make bench-overhead

        make bench-overhead ARGS="--pairs 20"
    """
    names = ("headway", "torchrun")
    order = [(kind, name) for kind in STEPS for name in names]
    pairs = 2 if quick else pairs
    found: list[Pair] = []
    with (
        harness.workspace("overhead", keep) as folder,
        harness.Bar(pairs * turns * len(order)) as bar,
    ):
        for number in range(pairs):
            with ExitStack() as stack:
                jobs: dict[str, Job] = {}
                for name in names:
                    place = folder / f"{name}-{number}"
                    jobs[name] = Job(Stepper.start(command_of(name, place), place))
                    stack.callback(jobs[name].stepper.stop)
                for _, (kind, name) in harness.rounds(order, turns, seed + number):
                    with bar.doing(f"{name} ({kind} steps)"):
                        jobs[name].turn(kind)
            found.append(jobs)
    harness.show(
        "step time with and without Headway",
        {name: summary(found, name) for name in names},
        ["overhead: median over the pairs of jobs; range: the lowest and the highest pair"],
    )


if __name__ == "__main__":
    harness.run(main)
