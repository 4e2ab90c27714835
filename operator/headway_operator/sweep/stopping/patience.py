"""Stops a trial that has not become better for some time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headway_api.sweep import Patience
from headway_operator.sweep.trial import Direction, Trial
from headway_operator.sweep.value import better


def reason(
    rule: Patience, direction: Direction, trial: Trial, _others: Sequence[Trial] = ()
) -> str | None:
    """Why a running trial is to be stopped now; None if it may go on.

    As in Keras' EarlyStopping: a value counts as better if it is so by more than minDelta than the
    last one that did. Time is counted in steps from report to report: what was done since the
    last one nobody has seen.
    """
    if not trial.curve:
        return None
    sign = 1.0 if direction == "Minimize" else -1.0
    since, best = trial.curve[0].step, None
    for point in trial.curve:
        if math.isnan(point.value):
            continue
        if best is None or better(direction, point.value + sign * rule.min_delta, best):
            since, best = point.step, point.value
    waited = trial.curve[-1].step - since
    if waited < rule.steps:
        return None
    if best is None:
        return f"for {waited} steps it has reported nothing that is a number"
    return f"for {waited} steps it has not become better than {best:.6g}, its value at step {since}"
