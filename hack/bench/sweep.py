"""`make bench-sweep`: how good trials are, what stopping rules save, what a suggestion takes."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from bench import harness, peers, sweep_speed, sweep_target
from bench.sweep_quality import TRIALS, Findings, Run, result, runs

T = TypeVar("T")
U = TypeVar("U")
QUICK_FUNCTIONS = ("sphere", "training", "svm-digits", "zdt1")


class Part(StrEnum):
    """What is measured."""

    quality = "quality"
    target = "target"
    speed = "speed"


# --- in processes of their own --------------------------------------------------------------------


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned, so that their libraries see from the beginning that there is one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context) as pool:
        try:
            yield pool
        except BaseException:  # Ctrl-C: what waits is not to be done first
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _all(
    pool: ProcessPoolExecutor,
    function: Callable[[T], U],
    items: Sequence[T],
    named: Callable[[T], str],
) -> Iterator[U]:
    """The function's answers, as they come."""
    with harness.Bar(len(items)) as bar:
        waiting = {pool.submit(function, item): item for item in items}
        for done in as_completed(waiting):
            with bar.doing(named(waiting[done])):
                yield done.result()


# --- the parts ------------------------------------------------------------------------------------


def _quality(pool: ProcessPoolExecutor, todo: Sequence[Run]) -> Findings:
    def named(run: Run) -> str:
        return f"{run.contestant} {run.pair}"

    return Findings.of(_all(pool, result, todo, named))


def _target(
    pool: ProcessPoolExecutor, seeds: Sequence[int], curves: int, trials: int
) -> dict[str, dict[str, Any]]:
    found = dict(
        _all(pool, _numbered_curve, range(curves), lambda number: f"learning curve {number}")
    )
    return sweep_target.target([found[number] for number in range(curves)], seeds, trials)


def _numbered_curve(number: int) -> tuple[int, Any]:
    return number, sweep_target.curve(number)


def _speed(names: Iterable[str], known: int, rounds: int) -> dict[str, dict[str, Any]]:
    """One algorithm after the other, with nothing beside it."""
    with _processes(1) as alone, harness.Bar(len(list(names))) as bar:
        found = {}
        for name in names:
            with bar.doing(f"{name}: a suggestion at {known} trials"):
                some = min(rounds, 3) if name == sweep_speed.SLOW else rounds
                found[name] = alone.submit(sweep_speed.speed, name, known, some).result()
    return found


# --- what the reader sees -------------------------------------------------------------------------


def _pairs_table(findings: Findings) -> Table:
    table = Table("", title="Median of the best value", title_justify="left")
    rows = harness.rounded(findings.by_pair())
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    for pair, row in rows.items():
        table.add_row(pair, *("-" if row.get(key) is None else str(row[key]) for key in columns))
    return table


def _notes(findings: Findings) -> list[str]:
    seeds = max((len(of["ours"]) for of in findings.values.values()), default=0)
    unlucky = sum(row["p_worse"] <= 0.05 for row in findings.by_pair().values())
    pairs = len(findings.values)
    return [
        f"{seeds} seeds. wins: how often ours is better when two runs are drawn; 0.5 is as good.",
        (
            "p_worse: how likely it is that ours looks that much worse than optuna by luck alone, "
            "for one function by itself; the lists of JSON are corrected for all of them (Holm)."
        ),
        (
            f"p_worse is at most 0.05 on {unlucky} of {pairs} functions; luck alone would make it "
            f"about {0.05 * pairs:.1f}."
        ),
        *(f"{name}: not compared: {why}" for name, why in findings.failures.items()),
        *(f"not installed: {name}: {why}" for name, why in peers.reasons().items()),
    ]


def _show(title: str, results: harness.Results, notes: Sequence[str] = ()) -> None:
    out = Console(width=max(Console().width, 120))
    out.print(harness.table(title, harness.rounded(results)))
    for note in notes:
        out.print(f"· {note}", highlight=False, markup=False)


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    part: Annotated[list[Part] | None, typer.Option(help="What; all three if unset.")] = None,
    algorithms: Annotated[list[str] | None, typer.Option(help="tpe, cmaes, nsgaii, gp.")] = None,
    functions: Annotated[list[str] | None, typer.Option(help="Functions; all if unset.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each contestant.", min=2)] = 20,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    trials: Annotated[int | None, typer.Option(help="Trials of a search.")] = None,
    parallel: Annotated[int, typer.Option(help="Trials side by side, of a search.")] = 1,
    known: Annotated[int, typer.Option(help="Trials before a suggestion is timed.")] = (
        sweep_speed.KNOWN
    ),
    rounds: Annotated[int, typer.Option(help="Suggestions that are timed.")] = 30,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    quick: Annotated[bool, typer.Option(help="A look of two minutes: says little.")] = False,
) -> None:
    """Search with as many trials by ours, by Optuna itself, by Katib's libraries and at random.

    Ours is asked for each trial as the operator asks: from nothing but the trials before it.
    Optuna keeps its study and sampler from the first trial to the last. Then: the steps and the
    time that rules which stop trials take to find what random search finds; and how long a
    suggestion takes when a thousand trials are known.

    For example:

        make bench-sweep

        make bench-sweep ARGS="--part quality --algorithms gp --functions hartmann6 --seeds 60"

        make bench-sweep ARGS="--part speed"
    """
    parts = set(part or Part)
    names = harness.chosen(TRIALS, algorithms)
    if quick:
        seeds, known, rounds = min(seeds, 5), min(known, 200), min(rounds, 5)
        names = [name for name in names if algorithms or name != "gp"]
        functions = functions or list(QUICK_FUNCTIONS)
    all_seeds = range(first, first + seeds)
    results: dict[str, Any] = {}
    with _processes(jobs) as pool:
        if Part.quality in parts:
            findings = _quality(pool, runs(names, functions, all_seeds, trials, parallel))
            Console(width=max(Console().width, 140)).print(_pairs_table(findings))
            _show("Ours beside Optuna", findings.by_algorithm(), _notes(findings))
            results |= findings.by_algorithm() | {"functions": findings.by_pair()}
            results |= findings.lists()
        if Part.target in parts:
            some = 24 if quick else sweep_target.CURVES
            saved = _target(pool, all_seeds, some, some // 6)
            _show("Share of random search's steps and time", saved)
            results |= saved | {f"{rule}_steps_ratio": saved[rule]["steps_ratio"] for rule in saved}
    if Part.speed in parts:
        wanted = [name for name in sweep_speed.ALGORITHMS if not algorithms or name in algorithms]
        times = _speed([n for n in wanted if not quick or n != sweep_speed.SLOW], known, rounds)
        _show(f"Milliseconds of a suggestion at {known} trials", times)
        for name, row in times.items():
            results[name] = results.get(name, {}) | row
        results["suggestion_ms"] = times.get("tpe", {}).get("suggestion_ms")
    sys.stdout.write(json.dumps(harness.rounded({"": results})[""]) + "\n")


if __name__ == "__main__":
    harness.run(main)
