"""Stops a trial whose best value so far is worse than the median of the others' at that step.

Source: Optuna's MedianPruner; Golovin et al., Google Vizier, KDD 2017, section 3.2.2.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import median

from headway_api.sweep import Median
from headway_operator.sweep.trial import Direction, Trial
from headway_operator.sweep.value import better


def reason(rule: Median, direction: Direction, trial: Trial, others: Sequence[Trial]) -> str | None:
    """Why a running trial is to be stopped now; None if it may go on.

    Others count when they have ended without failing and got as far. Optuna counts complete ones
    only: of those the median is ever harder to reach, since the worse half is not in it, and there
    may be none, where another rule stops every trial that is good enough.
    """
    if not trial.curve or trial.curve[-1].step < rule.min_steps:
        return None
    ended = [other for other in others if other.state in {"Complete", "Stopped"}]
    if len(ended) < rule.startup_trials:
        return None
    step, best = trial.curve[-1].step, trial.best(direction)
    if best is None:
        return f"up to step {step} it has reported nothing that is a number"
    there = [value for value in (_value(other, step) for other in ended) if not math.isnan(value)]
    if not there or not better(direction, median(there), best):
        return None
    return (
        f"its best value up to step {step}, {best:.6g}, is worse than {median(there):.6g}, the "
        f"median of {len(there)} trials at that step"
    )


def _value(trial: Trial, step: int) -> float:
    """The last value up to a step; not a number if there is none, or the trial ended before."""
    place = bisect_right(trial.curve, step, key=lambda point: point.step)
    if place == 0 or trial.curve[-1].step < step:
        return math.nan
    return trial.curve[place - 1].value
