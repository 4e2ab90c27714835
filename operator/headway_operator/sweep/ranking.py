"""Which trials are the best."""

from __future__ import annotations

from collections.abc import Sequence

from headway_api.sweep import SweepSpec
from headway_operator.sweep.pareto import front
from headway_operator.sweep.trial import Trial


def ranked(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Trials with values, the best first; ties by index.

    With several objectives the Pareto front comes first, in the order of indices. A trial that
    waits at a rung counts with what it has; one that runs does not yet.
    """
    valued = [
        trial
        for trial in trials
        if trial.values is not None and trial.state in {"Complete", "Stopped", "Paused"}
    ]
    if len(spec.objectives) > 1:
        directions = [objective.direction for objective in spec.objectives]
        best = set(front([trial.values or () for trial in valued], directions))
        order = sorted(range(len(valued)), key=lambda place: (place not in best, place))
        return [valued[place] for place in order]
    sign = 1.0 if spec.objectives[0].direction == "Minimize" else -1.0
    return sorted(valued, key=lambda trial: (sign * (trial.values or (0.0,))[0], trial.index))


def pareto_front(spec: SweepSpec, trials: Sequence[Trial]) -> list[Trial]:
    """Trials than which no other is better in all objectives, by index."""
    valued = [t for t in trials if t.values is not None and t.ended and t.state != "Failed"]
    directions = [objective.direction for objective in spec.objectives]
    return [valued[place] for place in front([t.values or () for t in valued], directions)]
