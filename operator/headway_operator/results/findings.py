"""From objects to what a sweep has found out: pure, and the same trials as the operator sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pydantic

from headway_api import contract
from headway_api.sweep import SweepSpec
from headway_operator.cluster.client import Object
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.results.errors import ResultsError
from headway_operator.sweep import records
from headway_operator.sweep.ranking import pareto_front, ranked
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.space import Space
from headway_operator.sweep.trial import Point, Scalar, State, Trial
from headway_operator.sweep.trials import runs_of
from headway_operator.sweep.value import values
from headway_operator.sweep.view import RunJob, Sweep, View, parse_run, parse_sweep
from headway_operator.trainingjob.times import parsed


@dataclass(frozen=True)
class Result:
    """One configuration, and what came of it.

    Attributes:
        trial: what algorithms and rules see.
        runs: all of its runs, as they are or as they were recorded.
        job: the first run's TrainingJob; None once it is gone.
        why: why it was stopped, or has failed; empty when there is nothing to tell.
        started: when its first TrainingJob was made, if that is known.
        ended: when its last run ended, if that is known.
    """

    trial: Trial
    runs: Sequence[RunJob]
    job: Object | None = None
    why: str = ""
    started: datetime | None = None
    ended: datetime | None = None

    @property
    def index(self) -> int:
        """Its number."""
        return self.trial.index

    @property
    def state(self) -> State:
        """Where it is."""
        return self.trial.state

    @property
    def values(self) -> tuple[float, ...] | None:
        """What it counts with, one value for each objective."""
        return self.trial.values

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Its active parameters."""
        return self.trial.params

    @property
    def name(self) -> str:
        """Name of its first run's TrainingJob."""
        return self.runs[0].name

    @property
    def checkpoint(self) -> str:
        """Where its first run's newest checkpoint is; empty without one."""
        return self.runs[0].checkpoint

    @property
    def steps(self) -> int:
        """Optimizer steps that were spent on it: of a copy, those since it was copied."""
        copied = self.trial.attrs.get("pbt") or {}
        given = int(copied.get("step") or 0) if copied.get("from") is not None else 0
        return sum(max(run.step - given, 0) for run in self.runs)

    @property
    def settled(self) -> bool:
        """Whether it has ended and nothing of it is under way: a stopped one saves at last."""
        over = {"Succeeded", "Failed", "Suspended"}
        return self.trial.ended and all(run.phase in over for run in self.runs)

    def course(self, metric: str) -> tuple[Point, ...]:
        """Reports of a metric by its first run, by ascending step; of very many not all."""
        observed = self.runs[0].observed.get(metric)
        if observed is None:
            return ()
        points = {point.step: point for point in observed.curve}
        for point in (observed.min, observed.max, observed.last):
            if point is not None:
                points[point.step] = point
        return tuple(points[step] for step in sorted(points))


@dataclass(frozen=True)
class Findings:
    """A sweep and its trials at one moment.

    Attributes:
        item: the Sweep as it was read.
        view: the same, as the operator looks at it.
        results: its configurations by index.
        now: the moment.
    """

    item: Object
    view: View
    results: Sequence[Result]
    now: datetime

    @property
    def sweep(self) -> Sweep:
        """The sweep."""
        return self.view.sweep

    @property
    def spec(self) -> SweepSpec:
        """Its spec."""
        return self.view.sweep.spec

    @property
    def phase(self) -> str:
        """One word about where it is."""
        return self.sweep.status.phase or "Pending"

    @cached_property
    def situation(self) -> Situation:
        """Counts and times."""
        return Situation(self.view, self.now)

    @cached_property
    def space(self) -> Space:
        """The search space."""
        return Space(self.spec.parameters)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """Parameters that have more than one value, in the order of the spec."""
        return tuple(name for name, each in self.space.dimensions.items() if each.size != 1)

    @cached_property
    def ranked(self) -> Sequence[Result]:
        """Trials with values, the best first (see `sweep.ranking`)."""
        return self._of(ranked(self.spec, [each.trial for each in self.results]))

    @property
    def best(self) -> Result | None:
        """The best trial; None without one, and with several objectives."""
        return self.ranked[0] if self.ranked and len(self.spec.objectives) == 1 else None

    @cached_property
    def front(self) -> Sequence[Result]:
        """With several objectives the Pareto front, else nothing."""
        if len(self.spec.objectives) == 1:
            return ()
        return self._of(pareto_front(self.spec, [each.trial for each in self.results]))

    @property
    def steps(self) -> int:
        """Optimizer steps of all trials."""
        return sum(each.steps for each in self.results)

    @cached_property
    def by_index(self) -> Mapping[int, Result]:
        """Its configurations by their numbers."""
        return {each.index: each for each in self.results}

    def _of(self, trials: Iterable[Trial]) -> Sequence[Result]:
        return [self.by_index[trial.index] for trial in trials]


def findings(
    items: Iterable[Object], name: str, now: datetime, namespace: str | None = None
) -> Findings:
    """What there is of a sweep among any objects.

    Args:
        items: Sweeps, TrainingJobs, SweepRecords and lists of them; others are passed over.
        name: of the sweep.
        now: the moment at which they were read.
        namespace: of the sweep; None where there is only one of this name.

    Raises:
        ResultsError: there is none, or more than one.
    """
    ours = [item for item in _flat(items) if item.get("apiVersion") == contract.API_VERSION]
    item = _the_sweep([each for each in ours if each.get("kind") == SWEEP.kind], name, namespace)
    sweep = _parsed(item)
    own = [
        each
        for each in ours
        if (each["metadata"].get("labels") or {}).get(contract.LABEL_SWEEP) == name
        and each["metadata"]["namespace"] == sweep.namespace
    ]
    jobs = {(run.index, run.number): (run, job) for run, job in _jobs(own, sweep.uid)}
    view = View(sweep, tuple(run for run, _ in jobs.values()), tuple(_recorded(own, sweep.uid)))
    return Findings(
        item, view, _results(view, {place: job for place, (_, job) in jobs.items()}), now
    )


def _parsed(item: Object) -> Sweep:
    try:
        return parse_sweep(item)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        name = item["metadata"]["name"]
        raise ResultsError(f"the Sweep {name} is not right: {field}: {first['msg']}") from None


def _jobs(items: Iterable[Object], owner: str) -> Iterator[tuple[RunJob, Object]]:
    """The TrainingJobs of a sweep; a namesake's that was deleted may be on their way out."""
    for item in items:
        run = parse_run(item) if item.get("kind") == TRAINING_JOB.kind else None
        if run is not None and run.owner == owner:
            yield run, item


def _recorded(items: Iterable[Object], owner: str) -> Iterator[RunJob]:
    for item in items:
        if item.get("kind") == SWEEP_RECORD.kind:
            yield from (run for run in records.parsed(item) if run.owner == owner)


def _flat(items: Iterable[Any]) -> Iterator[Object]:
    """The objects themselves, with what a file that was tidied up may lack."""
    for item in items:
        if not isinstance(item, Mapping):
            continue
        if isinstance(item.get("items"), list):
            yield from _flat(item["items"])
        elif isinstance(item.get("metadata"), Mapping) and item["metadata"].get("name"):
            defaults = {"namespace": "default", "uid": "", "resourceVersion": "0"}
            yield {**item, "metadata": {**defaults, **item["metadata"]}}


def _the_sweep(sweeps: Sequence[Object], name: str, namespace: str | None) -> Object:
    there = [each for each in sweeps if namespace in (None, each["metadata"]["namespace"])]
    found = [each for each in there if each["metadata"]["name"] == name]
    if len(found) > 1:
        spaces = ", ".join(sorted(each["metadata"]["namespace"] for each in found))
        raise ResultsError(f"there are Sweeps {name} in {spaces}: choose one with --namespace")
    if found:
        return found[0]
    others = ", ".join(sorted({each["metadata"]["name"] for each in there}))
    known = f"there are {others}" if others else "there is none at all"
    where = f" in namespace {namespace}" if namespace else ""
    raise ResultsError(f"there is no Sweep {name}{where}; {known}")


def _results(view: View, jobs: Mapping[tuple[int, int], Object]) -> list[Result]:
    kept = {(run.index, run.number): run for run in view.records}
    live = {(run.index, run.number): run for run in view.jobs}
    places: dict[int, list[tuple[int, int]]] = {}
    for place in sorted(kept.keys() | live.keys()):
        places.setdefault(place[0], []).append(place)
    found = []
    for each in runs_of(view):
        own = places[each.trial.index]
        runs = [kept.get(place) or live[place] for place in own]
        started = [parsed(run.made or None) for run in runs]
        ended = [parsed(run.ended or None) for run in runs] if each.trial.ended else []
        found.append(
            Result(
                trial=each.trial,
                runs=runs,
                job=jobs.get(own[0]),
                why=_why(view.sweep.spec, each.trial, runs),
                started=min((time for time in started if time), default=None),
                ended=max((time for time in ended if time), default=None),
            )
        )
    return found


def _why(spec: SweepSpec, trial: Trial, runs: Sequence[RunJob]) -> str:
    """Why a trial was stopped, or has failed, in a sentence; empty for others."""
    if trial.state not in {"Stopped", "Failed"}:
        return ""
    said = next((run.stopped for run in runs if run.stopped), "")
    if trial.state == "Stopped":
        return said
    failed = next((run for run in runs if run.phase == "Failed"), None)
    if failed is not None and not failed.uid:
        return "no TrainingJob can be made of its parameters (Event TrialRefused says why)"
    if failed is not None:
        return failed.message or failed.reason or "it failed"
    return "; ".join(each for each in (said, _silence(spec, runs)) if each)


def _silence(spec: SweepSpec, runs: Sequence[RunJob]) -> str:
    """Which objective is missing."""
    for run in runs:
        for objective in spec.objectives:
            if values(run.observed, [objective]) is None:
                heard = objective.metric in run.observed
                return f"it {'reported' if heard else 'never reported'} {objective.metric}" + (
                    ", but not as a number" if heard else ""
                )
    return ""
