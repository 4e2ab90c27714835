"""Hyperband: brackets that start at each of the rungs, the lowest first.

Source: Li et al., Hyperband, JMLR 18 (2018), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from headway_api.sweep import Hyperband
from headway_operator.sweep.stopping import brackets
from headway_operator.sweep.stopping.brackets import Bracket
from headway_operator.sweep.stopping.rungs import Schedule, rungs
from headway_operator.sweep.trial import Direction, Trial


def schedule(rule: Hyperband, direction: Direction, trials: Sequence[Trial], more: int) -> Schedule:
    """Which trials go on, and which never will; see `brackets.schedule`."""
    return brackets.schedule(iteration(rule), rule.reduction_factor, direction, trials, more)


def iteration(rule: Hyperband) -> tuple[Bracket, ...]:
    """One iteration of the outer loop: s from s_max down to 0.

    A bracket starts with ceil((s_max + 1) / (s + 1) * eta^s) configurations, as in algorithm 1 and
    in Optuna. The paper's table 1 rounds (s_max + 1) / (s + 1) down before, and has smaller
    brackets between the first and the last.
    """
    pauses, eta = rungs(rule)[:-1], rule.reduction_factor
    count = len(pauses) + 1
    return tuple(
        Bracket(-(-count * eta**s // (s + 1)), pauses[len(pauses) - s :])
        for s in reversed(range(count))
    )
