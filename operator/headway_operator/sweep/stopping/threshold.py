"""Stops a trial whose value is out of bounds, or no number.

Source: Optuna's ThresholdPruner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from headway_api.sweep import Threshold
from headway_operator.sweep.trial import Direction, Trial


def reason(
    rule: Threshold, _direction: Direction, trial: Trial, _others: Sequence[Trial] = ()
) -> str | None:
    """Why a running trial is to be stopped now; None if it may go on. The last value decides."""
    if not trial.curve or trial.curve[-1].step < rule.min_steps:
        return None
    last = trial.curve[-1]
    if math.isnan(last.value):
        return f"its value at step {last.step} is not a number"
    if rule.min is not None and last.value < rule.min:
        return f"its value at step {last.step}, {last.value:.6g}, is below {rule.min:g}"
    if rule.max is not None and last.value > rule.max:
        return f"its value at step {last.step}, {last.value:.6g}, is above {rule.max:g}"
    return None
