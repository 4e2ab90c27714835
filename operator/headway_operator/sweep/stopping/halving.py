"""Successive halving in brackets of fixed size.

Source: Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter
Optimization, AISTATS 2016, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from headway_api.sweep import SuccessiveHalving
from headway_operator.sweep.stopping import brackets
from headway_operator.sweep.stopping.brackets import Bracket
from headway_operator.sweep.stopping.rungs import Schedule, rungs
from headway_operator.sweep.trial import Direction, Trial


def schedule(
    rule: SuccessiveHalving, direction: Direction, trials: Sequence[Trial], more: int
) -> Schedule:
    """Which trials go on, and which never will; see `brackets.schedule`.

    Unless told otherwise, a bracket has as many configurations as leave one at the last rung.
    """
    pauses, eta = rungs(rule)[:-1], rule.reduction_factor
    bracket = Bracket(rule.trials or eta ** len(pauses), pauses)
    return brackets.schedule([bracket], eta, direction, trials, more)
