"""From the TrainingJobs of a sweep to its trials: a pure function of what the objects say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from headway_api.sweep import SweepSpec
from headway_operator.sweep.trial import Point, State, Trial
from headway_operator.sweep.value import Observed, combined, values
from headway_operator.sweep.view import RunJob, View
from headway_operator.trainingjob.suspend import PAUSED_AT_STEP


@dataclass(frozen=True)
class Runs:
    """One configuration and its runs.

    Attributes:
        trial: what algorithms and rules see.
        first: its first run, as it is or as it was recorded.
        jobs: the runs whose TrainingJob exists, by number.
        missing: numbers of runs that were never made: a crash came between.
        recorded: whether its record is kept.
    """

    trial: Trial
    first: RunJob
    jobs: Sequence[RunJob]
    missing: tuple[int, ...] = ()
    recorded: bool = False


def runs_of(view: View) -> list[Runs]:
    """All configurations of a sweep by index; what was recorded counts as it was recorded."""
    known: dict[tuple[int, int], RunJob] = {(job.index, job.number): job for job in view.jobs}
    kept = {(job.index, job.number): job for job in view.records}
    spec = view.sweep.spec
    found = []
    for index, keys in groupby(sorted(known.keys() | kept.keys()), key=lambda key: key[0]):
        numbers = [number for _, number in keys]
        # A record is written once a run has ended, and is right from then on.
        runs = [kept.get((index, number)) or known[index, number] for number in numbers]
        # One that could not be made is not tried again.
        unmade = runs[0].phase == "Failed" and not runs[0].uid
        rest = () if unmade else sorted(set(range(spec.repeats.count)) - set(numbers))
        missing = tuple(rest)
        recorded = all((index, number) in kept for number in numbers)
        found.append(
            Runs(
                trial=_trial(spec, runs, complete=not missing),
                first=runs[0],
                jobs=[known[index, number] for number in numbers if (index, number) in known],
                missing=missing,
                recorded=recorded,
            )
        )
    return found


def state_of(spec: SweepSpec, run: RunJob) -> State:
    """Where a run is (the table in docs/design/sweep.md)."""
    valued = values(run.observed, spec.objectives) is not None
    if run.stopped:
        return "Stopped" if valued else "Failed"
    if run.phase == "Succeeded":
        return "Complete" if valued else "Failed"
    if run.phase == "Failed":
        return "Failed"
    if run.phase == "Suspended" and run.reason == PAUSED_AT_STEP and _arrived(run):
        return "Paused"
    return "Running"


def _arrived(run: RunJob) -> bool:
    """Whether it rests where it is to rest: a promotion that it has not seen yet is not undone."""
    return run.pause_at is not None and run.step >= run.pause_at


def _trial(spec: SweepSpec, runs: Sequence[RunJob], *, complete: bool) -> Trial:
    first = runs[0]
    states = [state_of(spec, run) for run in runs]
    values_of_runs = [values(run.observed, spec.objectives) for run in runs]
    known = [each for each in values_of_runs if each is not None]
    observed = first.observed.get(spec.objectives[0].metric)
    return Trial(
        index=first.index,
        params=first.params,
        state=_joint(states) if complete else "Running",
        values=combined(known, spec.objectives, spec.repeats.spread_weight) if known else None,
        curve=() if observed is None else _curve(observed),
        step=max(run.step for run in runs),
        until=first.pause_at,
        attrs=first.attrs,
    )


def _joint(states: Iterable[State]) -> State:
    """The state of a configuration: it is not over before all of its runs are."""
    found = set(states)
    order: tuple[State, ...] = ("Running", "Paused", "Failed", "Stopped", "Complete")
    return next(state for state in order if state in found)


def _curve(observed: Observed) -> tuple[Point, ...]:
    """All points that are known: a thinned curve may lack the best and the last."""
    points = {point.step: point for point in observed.curve}
    for point in (observed.min, observed.max, observed.last):
        if point is not None:
            points[point.step] = point
    return tuple(points[step] for step in sorted(points))
