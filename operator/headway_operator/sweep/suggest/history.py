"""What trials have shown, in numbers that no algorithm stumbles over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headway_operator.sweep.suggest.request import Request
from headway_operator.sweep.trial import Direction, Scalar, Trial

_LARGEST: Final = 1e30
"""Values beyond it come from trainings that have diverged; their squares, or the volume of eight
of them, would no longer be floats."""


@dataclass(frozen=True)
class Told:
    """One trial, as algorithms are told of it.

    Attributes:
        params: its configuration, typed as the space has it.
        values: one for each objective, all finite; None while unknown, and of failed trials.
        rung: the step at which the values were taken when others are compared there; None for
            values that are the trial's last word.
        failed: whether it ended without values.
        attrs: what the algorithm wanted to know; nothing for a trial of another sweep.
        index: its number; None for a trial of another sweep.
    """

    params: Mapping[str, Scalar]
    values: tuple[float, ...] | None
    rung: int | None
    failed: bool
    attrs: Mapping[str, Any]
    index: int | None


def told(request: Request) -> list[Told]:
    """All trials that lie in the space: those of other sweeps first, then by index.

    Of other sweeps only ended trials with values count. A trial that waits at a rung, or was
    stopped, counts with what it has reported: to leave out the bad ones would be to forget what
    they cost to find out. One that goes on from a rung counts with what it has reported since: it
    was promoted for being good, and must not look like one of which nothing is known.
    """
    warm = [trial for trial in request.warm if trial.ended and _numbers(request, trial)]
    rungs = sorted({trial.until for trial in request.trials if trial.until is not None})
    found = [*_told(request, warm, rungs, own=False), *_told(request, request.trials, rungs)]
    bounds = [
        _bounded([each.values[place] for each in found if each.values], direction)
        for place, direction in enumerate(request.directions)
    ]
    return [_with(each, bounds) for each in found]


def _told(
    request: Request, trials: Sequence[Trial], rungs: Sequence[int], *, own: bool = True
) -> Iterator[Told]:
    for trial in trials:
        params = request.space.typed(trial.params)
        if params is None:  # somebody has edited it, or it is of another space
            continue
        known, rung = _counts(trial, rungs)
        numbers = _numbers(request, trial)
        yield Told(
            params=params,
            values=trial.values if known and numbers else None,
            rung=rung,
            failed=trial.state == "Failed" or (trial.ended and not numbers),
            attrs=_attrs(request, trial) if own else {},
            index=trial.index if own else None,
        )


def _attrs(request: Request, trial: Trial) -> Mapping[str, Any]:
    """What the algorithm wanted to know of a trial; nothing where somebody has edited it."""
    found = trial.attrs.get(request.algorithm.name)
    return found if isinstance(found, Mapping) else {}


def _numbers(request: Request, trial: Trial) -> bool:
    """Whether it has a value for each objective, and all are numbers, maybe infinite ones."""
    values = trial.values or ()
    return len(values) == len(request.directions) and not any(math.isnan(v) for v in values)


def _counts(trial: Trial, rungs: Sequence[int]) -> tuple[bool, int | None]:
    """Whether a trial's values count, and at which rung they were taken."""
    if trial.state == "Failed":
        return False, None
    if trial.state == "Complete" or (trial.until is None and trial.ended):
        return True, None
    if trial.state != "Running":
        return True, trial.step
    passed = [rung for rung in rungs if rung <= trial.step] if trial.until is not None else []
    return (True, passed[-1]) if passed else (False, None)


def _bounded(values: Sequence[float], direction: Direction) -> Callable[[float], float]:
    """What makes an infinite value a finite one that is still worse, or better, than all others.

    Nothing but the order matters to most algorithms. To a Gaussian process the distance does: it is
    that of the best from the worst, so that the others remain distinguishable.
    """
    finite = [min(max(v, -_LARGEST), _LARGEST) for v in values if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    margin = (high - low) or max(abs(high), 1.0)

    def bounded(value: float) -> float:
        if math.isfinite(value):
            return min(max(value, -_LARGEST), _LARGEST)
        return high + margin if value > 0 else low - margin

    return bounded


def _with(each: Told, bounds: Sequence[Callable[[float], float]]) -> Told:
    if each.values is None:
        return each
    values = tuple(bound(value) for bound, value in zip(bounds, each.values, strict=True))
    return Told(each.params, values, each.rung, each.failed, each.attrs, each.index)
