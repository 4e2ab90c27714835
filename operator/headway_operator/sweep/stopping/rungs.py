"""Rungs: the steps at which trials pause and are compared. What ASHA and brackets share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headway_api.sweep import Halving
from headway_operator.sweep.trial import Direction, Trial

Move: TypeAlias = tuple[int, int | None]
"""A trial's index and the step at which it pauses next; None if it goes on to the end."""


@dataclass(frozen=True)
class Schedule:
    """What is to be done about rungs.

    Attributes:
        start: for the index of a new configuration, the step at which it first pauses; None if it
            never does.
        promote: paused trials that go on, the most urgent first.
        stop: paused trials that never will, and why.
    """

    start: Callable[[int], int | None]
    promote: tuple[Move, ...] = ()
    stop: tuple[tuple[int, str], ...] = ()


def rungs(rule: Halving) -> tuple[int, ...]:
    """Steps of all rungs, ascending: minSteps * eta^k, and maxSteps as the last.

    As many as in the papers, floor(log_eta(maxSteps / minSteps)) + 1: where maxSteps is no power
    of eta away, the last gap is the wide one, since a pause costs a restart and pays off by what
    it saves. Only the first rung may be nearer to the end than eta: it was asked for.
    """
    steps, eta = [rule.min_steps], rule.reduction_factor
    while steps[-1] * eta**2 <= rule.max_steps:
        steps.append(steps[-1] * eta)
    return (*steps, rule.max_steps) if steps[-1] < rule.max_steps else tuple(steps)


def going_on(trial: Trial, pauses: Sequence[int]) -> Move:
    """The promotion of a paused trial to the next of these steps, or to the end."""
    return trial.index, next((step for step in pauses if step > trial.step), None)


def astray(trials: Iterable[Trial], pauses: Sequence[int]) -> list[Move]:
    """Promotions of trials that wait where nobody comes to fetch them: the rule was edited."""
    return [
        going_on(trial, pauses)
        for trial in trials
        if trial.state == "Paused" and trial.until not in pauses
    ]


def ranked(trials: Iterable[Trial], direction: Direction, rung: float) -> list[Trial]:
    """Trials by their value at a rung, the best first; ties by index, without a number last."""
    sign = 1.0 if direction == "Minimize" else -1.0

    def key(trial: Trial) -> tuple[bool, float, int]:
        value = value_at(trial, direction, rung)
        return value is None, 0.0 if value is None else sign * value, trial.index

    return sorted(trials, key=key)


def value_at(trial: Trial, direction: Direction, rung: float) -> float | None:
    """A trial's best value up to a rung; None without one that is a number.

    Of a trial that has gone on, the reports up to the rung may have been thinned out since. Then
    it counts with what it had at its next known one. If it counted with an older one, it would
    fall behind those that wait, they would be promoted in its place, and so on without end.
    """
    known = min((point.step for point in trial.curve if point.step >= rung), default=math.inf)
    return trial.best(direction, until=known)
