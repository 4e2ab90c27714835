"""When a trial ends or pauses, and which goes on: pure functions over trials."""

from __future__ import annotations

from collections.abc import Sequence

from headway_api.sweep import Stopping, SweepSpec
from headway_operator.sweep.stopping import (
    asha,
    halving,
    hyperband,
    median,
    patience,
    threshold,
)
from headway_operator.sweep.stopping.rungs import Schedule, astray
from headway_operator.sweep.trial import Trial

__all__ = ["Schedule", "schedule", "verdict"]


def schedule(spec: SweepSpec, trials: Sequence[Trial], more: int) -> Schedule:
    """What the rule with rungs, if there is one, wants now.

    It depends on nothing but its arguments: whatever part of it was done before a crash, what is
    left of it comes out again.

    Args:
        spec: the sweep's.
        trials: all of its trials so far, by index.
        more: how many new configurations there may still be.
    """
    rules, direction = spec.stopping or Stopping(), spec.objectives[0].direction
    if rules.asha:
        return asha.schedule(rules.asha, direction, trials, more)
    if rules.successive_halving:
        return halving.schedule(rules.successive_halving, direction, trials, more)
    if rules.hyperband:
        return hyperband.schedule(rules.hyperband, direction, trials, more)
    # A rule that is taken away leaves nobody waiting.
    return Schedule(lambda _: None, tuple(astray(trials, ())))


def verdict(spec: SweepSpec, trial: Trial, trials: Sequence[Trial]) -> str | None:
    """Why a running trial is to be stopped now, in a sentence; None if it may go on."""
    rules, direction = spec.stopping, spec.objectives[0].direction
    if rules is None or trial.state != "Running":
        return None
    others = [other for other in trials if other.index != trial.index]
    return (
        (rules.median and median.reason(rules.median, direction, trial, others))
        or (rules.patience and patience.reason(rules.patience, direction, trial))
        or (rules.threshold and threshold.reason(rules.threshold, direction, trial))
        or None
    )
