"""Sweeps beside each other, and trials of one beside each other: pure, and their tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

from headway_api.sweep import Objective
from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings, Result
from headway_operator.results.words import duration, number, plain, rules, short
from headway_operator.sweep.value import better

SHARES: Final = (0.25, 0.5, 0.75, 1.0)
"""Parts of a sweep's trials after which the best value so far is told."""
_LAST: Final = 3
"""Points of a trial's course that are told."""


@dataclass(frozen=True)
class Reached:
    """What it took a sweep to come to a value.

    Attributes:
        trials: trials up to the first one that did, in the order of their numbers.
        steps: optimizer steps of those; of the last one up to the report that did.
    """

    trials: int
    steps: int


def place_in(found: Findings, metric: str) -> int:
    """The place of an objective.

    Raises:
        ResultsError: the sweep has none of this name.
    """
    for place, objective in enumerate(found.spec.objectives):
        if metric in {objective.metric, str(place)}:
            return place
    there = ", ".join(each.metric for each in found.spec.objectives)
    raise ResultsError(f"sweep {found.sweep.name} has no objective {metric}: it has {there}")


def same_objective(every: Sequence[Findings], metric: str | None) -> Objective:
    """The objective that sweeps are compared by: the first one of the first, unless one is named.

    Raises:
        ResultsError: one of them does not have it, or wants the opposite.
    """
    first = every[0]
    place = place_in(first, metric) if metric else 0
    objective = first.spec.objectives[place]
    for other in every[1:]:
        theirs = other.spec.objectives[place_in(other, objective.metric)]
        if theirs.direction != objective.direction:
            raise ResultsError(
                f"{first.sweep.name} is to {objective.direction.lower()} {objective.metric}, and "
                f"{other.sweep.name} to {theirs.direction.lower()} it"
            )
    return objective


def valued(found: Findings, objective: Objective) -> list[tuple[Result, float]]:
    """Trials that count, with their values of an objective, in the order of their numbers."""
    place = place_in(found, objective.metric)
    counting = {each.index for each in found.ranked}
    return [
        (each, each.values[place])
        for each in found.results
        if each.values is not None and each.index in counting
    ]


def best_of(found: Findings, objective: Objective) -> tuple[Result, float] | None:
    """The best trial by an objective; None without one."""
    sign = 1.0 if objective.direction == "Minimize" else -1.0
    return min(valued(found, objective), key=lambda each: sign * each[1], default=None)


def common_target(every: Sequence[Findings], objective: Objective) -> float | None:
    """The best value that all of them have reached; None if one has none."""
    sign = 1.0 if objective.direction == "Minimize" else -1.0
    bests = [best_of(found, objective) for found in every]
    known = [best[1] for best in bests if best is not None]
    return max(known, key=lambda value: sign * value) if len(known) == len(bests) else None


def reached(found: Findings, objective: Objective, target: float) -> Reached | None:
    """What it took to come to a value; None if the sweep never did.

    Trials run side by side, so this is what they would have taken one after the other.
    """
    counting = {each.index: value for each, value in valued(found, objective)}
    steps = 0
    for count, each in enumerate(found.results, 1):
        value = counting.get(each.index)
        if value is None or better(objective.direction, target, value):
            steps += each.steps
            continue
        hits = (
            p.step for p in each.course(objective.metric) if _as_good(objective, p.value, target)
        )
        if len(each.runs) == 1:
            # Of a copy, the steps before it was copied are another trial's.
            given = each.trial.step - each.steps
            return Reached(count, steps + max(next(hits, each.trial.step) - given, 0))
        return Reached(count, steps + each.steps)
    return None


def _as_good(objective: Objective, value: float, target: float) -> bool:
    return not math.isnan(value) and not better(objective.direction, target, value)


def history(found: Findings, objective: Objective) -> list[float | None]:
    """The best value after each of `SHARES` of the trials; None before there is one."""
    values = valued(found, objective)
    sign = 1.0 if objective.direction == "Minimize" else -1.0
    told: list[float | None] = []
    for share in SHARES:
        count = math.ceil(share * found.situation.created)
        before = [value for each, value in values if each.index < count]
        told.append(min(before, key=lambda value: sign * value, default=None))
    return told


# --- tables ---------------------------------------------------------------------------------------


def sweeps_table(every: Sequence[Findings], objective: Objective, target: float | None) -> Table:
    """Sweeps as columns; the best value of a row is bold."""
    table = _beside(f"{plain(objective.metric)}", [found.sweep.name for found in every])
    for title, cells in _rows(every, objective, target):
        table.add_row(Text(title, style="dim"), *(Text(plain(cell)) for cell in cells))
    return table


def _rows(
    every: Sequence[Findings], objective: Objective, target: float | None
) -> Iterator[tuple[str, list[str]]]:
    bests = [best_of(found, objective) for found in every]
    yield "phase", [found.phase for found in every]
    yield "algorithm", [found.spec.algorithm.name for found in every]
    yield "stopping", [", ".join(_named(found)) for found in every]
    yield "best", [number(best[1]) if best else "" for best in bests]
    yield "of trial", [str(best[0].index) if best else "" for best in bests]
    yield "trials", [str(found.situation.created) for found in every]
    yield "failed", [str(found.situation.counts.failed) for found in every]
    yield "steps", [str(found.steps) for found in every]
    yield "active", [duration(found.situation.active_seconds) for found in every]
    if target is not None:
        took = [reached(found, objective, target) for found in every]
        yield (
            f"trials to {number(target)}",
            [str(each.trials) if each else "never" for each in took],
        )
        yield f"steps to {number(target)}", [str(each.steps) if each else "never" for each in took]
    courses = [history(found, objective) for found in every]
    for place, share in enumerate(SHARES):
        yield f"best at {share:.0%}", [number(course[place]) for course in courses]


def _named(found: Findings) -> Iterator[str]:
    for rule in rules(found.spec.stopping):
        yield rule.partition(":")[0]


def trials_table(found: Findings, trials: Sequence[Result]) -> Table:
    """Trials as columns: what differs among their parameters comes first."""
    table = _beside("trial", [str(each.index) for each in trials])
    for name in _differing_first(found, trials):
        cells = [short(each.params[name]) if name in each.params else "" for each in trials]
        alike = len(set(cells)) == 1
        table.add_row(
            Text(name, style="dim"), *(Text(cell, style="dim" if alike else "") for cell in cells)
        )
    for title, cells in _facts(found, trials):
        table.add_row(Text(title, style="dim"), *(Text(plain(cell)) for cell in cells))
    return table


def _differing_first(found: Findings, trials: Sequence[Result]) -> list[str]:
    def alike(name: str) -> bool:
        return len({repr(each.params.get(name)) for each in trials}) == 1

    return sorted(found.space.dimensions, key=alike)


def _facts(found: Findings, trials: Sequence[Result]) -> Iterator[tuple[str, list[str]]]:
    for place, objective in enumerate(found.spec.objectives):
        yield (
            objective.metric,
            [number(each.values[place]) if each.values else "" for each in trials],
        )
    yield "state", [each.state for each in trials]
    yield "step", [str(each.trial.step) for each in trials]
    for objective in found.spec.objectives:
        lasts = [each.course(objective.metric)[-_LAST:] for each in trials]
        for back in range(_LAST):
            cells = [
                f"{number(last[-1 - back].value)} at {last[-1 - back].step}"
                if back < len(last)
                else ""
                for last in lasts
            ]
            if any(cells):
                yield (f"last {objective.metric}" if back == 0 else "before that"), cells
    for title, cells in (
        ("why", [each.why for each in trials]),
        ("checkpoint", [each.checkpoint for each in trials]),
    ):
        if any(cells):
            yield title, cells


def _beside(title: str, names: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    table.add_column(Text(title))
    for name in names:
        table.add_column(Text(name), overflow="fold")
    return table
