"""ASHA: a trial goes on as soon as it is among the best of its rung.

Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Sequence

from headway_api.sweep import Asha
from headway_operator.sweep.stopping.rungs import Schedule, astray, going_on, ranked, rungs
from headway_operator.sweep.trial import Direction, Trial


def schedule(rule: Asha, direction: Direction, trials: Sequence[Trial], more: int) -> Schedule:
    """Which trials go on, and which never will.

    The paper's stream of configurations has no end. Here it has, and a rung with fewer than eta
    trials, of which the best 1/eta are none, would send nobody on: once nothing runs and nothing
    new can come, each rung sends on at least its best. So one trial, at least, is trained to the
    end, unless all that are tried fail. (Optuna and Ray, which can't resume, send on the first
    trials that come to a rung instead; that costs steps, and favours those that came early.)

    Args:
        rule: the rungs.
        direction: of the first objective.
        trials: all so far.
        more: how many new configurations there may still be.
    """
    pauses, eta = rungs(rule)[:-1], rule.reduction_factor
    over = not more and all(trial.state != "Running" for trial in trials)
    promote = astray(trials, pauses) or _promotable(pauses, eta, direction, trials)
    if over and not promote:
        promote = _promotable(pauses, eta, direction, trials, least=1)
    stop = []
    if over and not promote:
        stop = [
            (t.index, f"no new trials come, and at step {t.until} it was not in the best 1/{eta}")
            for t in trials
            if t.state == "Paused"
        ]
    first = next(iter(pauses), None)
    return Schedule(lambda _: first, tuple(promote), tuple(stop))


def _promotable(
    pauses: Sequence[int], eta: int, direction: Direction, trials: Sequence[Trial], least: int = 0
) -> list[tuple[int, int | None]]:
    """Promotions, from the rungs at the top down: what is nearly done is done first.

    A trial counts at all rungs that it has reached, wherever it is now; one that has failed counts
    nowhere, one whose script has ended counts everywhere.
    """
    found = []
    for rung in reversed(pauses):
        there = [
            trial
            for trial in trials
            if trial.state == "Complete" or (trial.state != "Failed" and trial.step >= rung)
        ]
        best = ranked(there, direction, rung)[: max(len(there) // eta, least)]
        found += [
            going_on(trial, pauses)
            for trial in best
            if trial.state == "Paused" and trial.until == rung
        ]
    return found
