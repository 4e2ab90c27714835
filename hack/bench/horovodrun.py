"""`make bench-horovod`: Horovod's scripts under Headway and under horovodrun."""

from __future__ import annotations

import importlib.util
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import harness
from bench.harness import console
from bench.losses import LIMIT_SECONDS, WORLD, Block, Try, any_rank, shares, summary
from bench.overhead import overhead
from bench.stepper import Stepper

COUNTS = {"allreduce_1kb": 200, "allreduce_1mb": 100, "allreduce_16mb": 15, "epoch": 8}
"""Operations of a turn: each kind's last about a second."""
PEER = "horovodrun"
TIMED = {"headway": "headway", "headway_plain": "plain", PEER: "plain"}
KILLED = {
    "headway": "headway",
    "headway_elastic": "elastic",
    PEER: "plain",
    "horovodrun_elastic": "elastic",
}
"""Contestants, and what their script does."""
HOSTS = ("localhost", "127.0.0.1")
"""Two names of this machine are two hosts to horovodrun, as in Horovod's own elastic tests."""
Seconds = Mapping[str, Sequence[Sequence[float]]]
"""What a job's operations took, by kind, for each turn."""
Group = Mapping[str, Seconds]
"""Jobs by contestant that took turns with each other."""


# --- jobs ----------------------------------------------------------------------------------------


def command_of(name: str, module: str, how: str, folder: Path) -> list[str]:
    """How a contestant's job is started.

    Args:
        name: The contestant.
        module: Of the script.
        how: The script's argument.
        folder: The job's own.
    """
    script = ["-m", module, how]
    if name.startswith("headway"):
        # In the timed jobs no checkpoint falls due; what it costs is bench-checkpoint's matter.
        every = {"everySteps": 25} if how == "headway" and "recovery" in module else None
        elastic = {"elastic": {"minReplicas": 1, "maxReplicas": WORLD}} if how == "elastic" else {}
        return harness.headway_run(
            script,
            folder,
            WORLD,
            framework="Horovod",
            workers={"replicas": WORLD, **elastic},
            checkpoint=every or {"everySeconds": 3600},
            failurePolicy={"maxRestarts": 10000},
        )
    command = [sys.executable, "-m", "horovod.runner.launch", "--gloo", "-np", str(WORLD)]
    if how == "elastic":
        command += ["--min-np", "1", "--max-np", str(WORLD)]
        command += ["--host-discovery-script", str(discovery(folder))]
        # A host whose rank died is not used again, unless there is such a range: here a second.
        command += ["--blacklist-cooldown-range", "1", "1", "--network-interfaces", "lo"]
    return [*command, sys.executable, *script]


def discovery(folder: Path) -> Path:
    """The script by which horovodrun asks for hosts."""
    path = folder / "hosts.sh"
    path.write_text("#!/bin/sh\n" + "".join(f"echo {host}:1\n" for host in HOSTS))
    path.chmod(0o755)
    return path


def timed_command(name: str, folder: Path) -> list[str]:
    """The job that is timed."""
    return command_of(name, "bench.horovod_script", TIMED[name], folder)


def killed_command(name: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """The job that is killed."""
    command = command_of(name, "bench.horovod_recovery_script", KILLED[name], folder)
    return command, {"BENCH_STEPS": str(folder), "OMP_NUM_THREADS": "1"}


# --- figures -------------------------------------------------------------------------------------


def speed(groups: Sequence[Group], name: str) -> dict[str, Any]:
    """Figures of one contestant's operations; for ours also what they take beyond horovodrun's."""
    found: dict[str, Any] = {}
    for kind in COUNTS:
        unit, scale, prefix = ("s", 1, "") if kind == "epoch" else ("ms", 1000, f"{kind}_")
        turns = [[statistics.median(turn) for turn in group[name][kind]] for group in groups]
        found[f"{kind}_{unit}"] = harness.median(scale * statistics.median(each) for each in turns)
        if name == PEER or PEER not in groups[0]:
            continue
        theirs = [[statistics.median(turn) for turn in group[PEER][kind]] for group in groups]
        each = [overhead(*both) for both in zip(turns, theirs, strict=True)]
        found[f"{prefix}overhead_percent"] = harness.median(each)
        found[f"{prefix}overhead_range"] = [min(each), max(each)]
    return found


def recovery(tries: Sequence[Try]) -> dict[str, Any]:
    """Figures of one contestant's kills."""
    whole = [LIMIT_SECONDS if t.whole_seconds is None else t.whole_seconds for t in tries]
    return {**summary(tries), "whole_p50_s": harness.percentile(whole, 0.5)}


# --- the bench -----------------------------------------------------------------------------------


def measure(names: Sequence[str], turns: int, seed: int, folder: Path, bar: harness.Bar) -> Group:
    """Start a job of each contestant, and have them work in turns."""
    found: dict[str, dict[str, list[Sequence[float]]]] = {
        name: {kind: [] for kind in COUNTS} for name in names
    }
    with ExitStack() as stack:
        jobs: dict[str, Stepper] = {}
        for name in names:
            place = folder / name
            # Who stands still must not find that the other rank has been silent for too long.
            env = {"HOROVOD_GLOO_TIMEOUT_SECONDS": "3600"}
            jobs[name] = Stepper.start(timed_command(name, place), place, env)
            stack.callback(jobs[name].stop)
            with jobs[name].awake():
                pass
        order = [(kind, name) for kind in COUNTS for name in names]
        for _, (kind, name) in harness.rounds(order, turns, seed):
            with bar.doing(f"{name} ({kind})"), jobs[name].awake():
                found[name][kind].append(jobs[name].step(kind, COUNTS[kind])["seconds"])
    return found


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    groups: Annotated[int, typer.Option(help="Jobs of each contestant that are timed.")] = 4,
    turns: Annotated[int, typer.Option(help="Turns of a job, for each operation.")] = 8,
    tries: Annotated[int, typer.Option(help="Killed ranks under Headway.")] = 20,
    peer_tries: Annotated[int, typer.Option(help="Killed ranks under elastic horovodrun.")] = 8,
    plain_tries: Annotated[int, typer.Option(help="Killed ranks under plain horovodrun.")] = 2,
    blocks: Annotated[int, typer.Option(help="Turns that the killed contestants take.")] = 2,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of order, victims and moments.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: few turns, few tries.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Time Horovod's scripts under Headway and horovodrun, and kill their ranks.

    Two ranks on this machine, Gloo. Timed are allreduce of three sizes and epochs of
    examples/horovod/train.py: as it stands (headway), and without headway.init() (headway_plain,
    horovodrun). Killed are jobs with headway.init() and with hvd.elastic.run. A job that finishes
    no step within 40 s of the kill has failed, and is started anew.

    For example:

        make bench-horovod

        make bench-horovod ARGS="--quick"

        make bench-horovod ARGS="--tries 0 --peer-tries 0 --plain-tries 0"

        make bench-horovod ARGS="--groups 0 --only headway_elastic --only horovodrun_elastic"
    """
    if importlib.util.find_spec("horovod") is None:
        console.print("there is no Horovod here: make horovod", style="red")
        raise typer.Exit(2)
    if quick:
        groups, turns, tries, peer_tries, plain_tries, blocks = 1, 3, 4, 3, 1, 1
    seed = random.randrange(10**6) if seed is None else seed
    dice = random.Random(seed)
    console.print(f"seed {seed}")
    timed, killed = harness.chosen(TIMED, only), harness.chosen(KILLED, only)
    wanted = {PEER: plain_tries, "horovodrun_elastic": peer_tries}
    plan = {name: shares(wanted.get(name, tries), blocks) for name in killed}
    total = groups * turns * len(timed) * len(COUNTS) + sum(map(sum, plan.values()))
    results: dict[str, dict[str, Any]] = {name: {} for name in dict.fromkeys((*timed, *killed))}
    with harness.workspace("horovod", keep, in_memory=True) as folder, harness.Bar(total) as bar:
        found = [
            measure(timed, turns, seed + number, folder / f"timed-{number}", bar)
            for number in range(groups if timed else 0)
        ]
        losses: dict[str, list[Try]] = {name: [] for name in killed}
        for number, name in harness.rounds(killed, blocks, seed):
            launch, place = partial(killed_command, name), folder / f"kills-{number}"
            losses[name] += Block(
                name, plan[name][number], any_rank(dice), place, launch, dice
            ).run(bar)
    for name in timed if found else ():
        results[name] |= speed(found, name)
    for name, each in losses.items():
        if each:
            results[name] |= recovery(each)
    harness.show(
        "Horovod's scripts under Headway and under horovodrun",
        {name: row for name, row in results.items() if row},
        [
            "overhead: median over the groups of jobs; range: the lowest and the highest",
            f"seed {seed}; a try that failed counts with {LIMIT_SECONDS:g} s",
        ],
    )


if __name__ == "__main__":
    harness.run(main)
