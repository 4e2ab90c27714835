"""Brackets: trials that halve among themselves, rung by rung, each rung as a whole.

Source: Jamieson and Talwalkar, AISTATS 2016, algorithm 1; the inner loop of Hyperband's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from headway_operator.sweep.stopping.rungs import Move, Schedule, astray, going_on, ranked
from headway_operator.sweep.trial import Direction, Trial


@dataclass(frozen=True)
class Bracket:
    """A kind of bracket.

    Attributes:
        size: configurations that start in it.
        pauses: steps of its rungs, without the last, which is the end.
    """

    size: int
    pauses: tuple[int, ...]


def schedule(
    cycle: Sequence[Bracket],
    eta: int,
    direction: Direction,
    trials: Sequence[Trial],
    more: int,
) -> Schedule:
    """Which trials go on, and which never will.

    A configuration's bracket follows from its index. No bracket waits for another: while one
    waits for the last trials of a rung, new configurations of the next use the free slots.

    Args:
        cycle: brackets that follow one another, again and again.
        eta: of the trials at a rung, 1/eta go on.
        direction: of the first objective.
        trials: all so far.
        more: how many new configurations there may still be. If they don't fill the last bracket,
            it halves what it has.
    """
    created = max((trial.index for trial in trials), default=-1) + 1
    promote: list[Move] = []
    stop: list[tuple[int, str]] = []
    by_index = sorted(trials, key=lambda trial: trial.index)
    for (first, bracket), group in groupby(by_index, lambda trial: _place(cycle, trial.index)):
        members = list(group)
        size = min(bracket.size, created + more - first)
        lost = astray(members, bracket.pauses)
        promote += lost
        if lost or created < first + size:
            continue
        moves, reasons = _halve(members, size, bracket.pauses, eta, direction)
        promote += moves
        stop += reasons

    def start(index: int) -> int | None:
        _, bracket = _place(cycle, index)
        return next(iter(bracket.pauses), None)

    return Schedule(start, tuple(promote), tuple(stop))


def _place(cycle: Sequence[Bracket], index: int) -> tuple[int, Bracket]:
    """The bracket of a configuration, and the index of the first one in it."""
    first = index - index % sum(bracket.size for bracket in cycle)
    for bracket in cycle:
        if index < first + bracket.size:
            return first, bracket
        first += bracket.size
    raise AssertionError("an index modulo the cycle lies in one of its brackets")


def _halve(
    members: Sequence[Trial], size: int, pauses: Sequence[int], eta: int, direction: Direction
) -> tuple[list[Move], list[tuple[int, str]]]:
    """Promotions and ends in a bracket to which no configuration is added any more.

    A rung is decided when nobody is on the way to it. It sends on the best size / eta^k, at least
    one. If one of them fails on the way, the next best takes its place: the others wait until all
    places of the next rung are taken.
    """
    promote: list[Move] = []
    stop: list[tuple[int, str]] = []
    if pauses and _under_way(members, pauses[0]):
        return promote, stop
    for number, (rung, following) in enumerate(pairwise((*pauses, math.inf)), 1):
        places = max(size // eta**number, 1)
        free = max(places - sum(_went_on(trial, rung, following) for trial in members), 0)
        here = ranked((trial for trial in members if _rests(trial, rung)), direction, rung)
        promote = [going_on(trial, pauses) for trial in here[:free] if trial.state == "Paused"]
        if promote or _under_way(members, following):
            break
        reason = f"at step {rung} it was not among the best {places} of its bracket of {size}"
        stop += [(trial.index, reason) for trial in here[free:] if trial.state == "Paused"]
    return promote, stop


def _under_way(members: Sequence[Trial], rung: float) -> bool:
    return any(trial.state == "Running" and _target(trial) <= rung for trial in members)


def _went_on(trial: Trial, rung: float, following: float) -> bool:
    """Whether it has taken a place at the following rung: for good, or so far."""
    return _target(trial) > rung and (trial.state != "Failed" or trial.step >= following)


def _rests(trial: Trial, rung: float) -> bool:
    """Whether it is compared at this rung now: it waits here, or its script has ended before."""
    if trial.state == "Complete":
        return _target(trial) <= rung
    return trial.state == "Paused" and trial.until == rung


def _target(trial: Trial) -> float:
    """The step that it is to reach."""
    return math.inf if trial.until is None else trial.until
