"""What a Sweep needs next: the policies, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from headway_api import contract
from headway_operator.sweep import population, retention, space, template
from headway_operator.sweep.ending import End, end_of
from headway_operator.sweep.making import training_job
from headway_operator.sweep.plan import NOTHING, New, Patch, Plan
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.status import ended, running, stalled, suspended, with_change
from headway_operator.sweep.stopping import Schedule, schedule, verdict
from headway_operator.sweep.trials import state_of
from headway_operator.sweep.view import RunJob, View
from headway_operator.trainingjob.environment import parameter_variable
from headway_operator.trainingjob.plan import Event
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.times import parsed


def reconcile(view: View, now: datetime) -> Plan:
    """The next writes for a sweep; the same for the same view and time.

    A sweep that is being deleted needs nothing: its trials go with their owner.
    """
    if view.sweep.deleting:
        return NOTHING
    here = Situation(view, now)
    if _expired(here):
        return Plan(delete_sweep=True)
    try:
        unused = _check(here)
        end = end_of(here)
        if end is not None:
            return _finish(here, end)
        if here.spec.suspend:
            return _suspend(here)
        return _go_on(here, unused)
    except Stuck as stuck:
        return with_change(here, stalled(here, stuck))


def _check(here: Situation) -> tuple[str, ...]:
    spec = here.spec
    try:
        space.check(spec.parameters, spec.initial_points or (), spec.algorithm)
    except space.SpaceError as error:
        raise Stuck("SpaceInvalid", str(error)) from None
    unused = template.check(spec)
    if here.view.obstacle is not None and here.view.obstacle.kind == "Refused":
        raise Stuck("Refused", here.view.obstacle.message)
    return unused


# --- ends ---------------------------------------------------------------------------------------


def _finish(here: Situation, end: End) -> Plan:
    """Stop what still runs, keep what is to be kept."""
    why = f"the sweep has ended: {end.reason}"
    patches = [_stop(job, why) for job in _unfinished(here)]
    record, delete = retention.due(here)
    return with_change(
        here,
        ended(here, end),
        Plan(
            patch=tuple(patches),
            record=record,
            delete=delete,
            requeue_after=_seconds_to([_expiry(here)], here.now),
        ),
    )


def _expiry(here: Situation) -> datetime | None:
    seconds = here.spec.ttl_seconds_after_finished
    completed = parsed(here.view.sweep.status.completion_time)
    if seconds is None or completed is None:
        return None
    return completed + timedelta(seconds=seconds)


def _expired(here: Situation) -> bool:
    expiry = _expiry(here)
    return expiry is not None and here.now >= expiry and end_of(here) is not None


def _unfinished(here: Situation) -> Iterator[RunJob]:
    """Runs that have not ended: those that run, and those that wait at a rung."""
    for each in here.runs:
        for job in each.jobs:
            if state_of(here.spec, job) in {"Running", "Paused"}:
                yield job


# --- suspending ---------------------------------------------------------------------------------


def _suspend(here: Situation) -> Plan:
    patches = tuple(
        Patch(job.name, job.uid, {"spec": {"suspend": True}})
        for job in _unfinished(here)
        if not job.suspend
    )
    return with_change(here, suspended(here), Plan(patch=patches))


# --- going on -----------------------------------------------------------------------------------


def _go_on(here: Situation, unused: Iterable[str]) -> Plan:
    patches = [*_resumed(here)]
    stopping = {job.uid: reason for job, reason in _verdicts(here)}
    needs = population.due(here)
    if needs is None:
        rungs = schedule(here.spec, here.trials, here.most - here.created)
    else:
        rungs = population.schedule(here, needs)
    stopping |= {job.uid: reason for job, reason in _closed(here, rungs)}
    jobs = {job.uid: job for each in here.runs for job in each.jobs}
    patches += [_stop(jobs[uid], reason) for uid, reason in stopping.items()]
    free = here.spec.parallel_trials - sum(job.uid not in stopping for job in here.active)
    create, free = _missing(here, free)
    promoted = _promoted(here, rungs, free)
    free -= len(promoted)
    record, delete = retention.due(here)
    return with_change(
        here,
        running(here),
        Plan(
            create=create,
            patch=(*patches, *promoted),
            new=_new(here, rungs, free if needs is None else min(free, needs.new)),
            record=record,
            delete=delete,
            events=_told(unused),
            requeue_after=_seconds_to([here.budget_ends, *_wall_times(here)], here.now),
        ),
    )


def _resumed(here: Situation) -> Iterator[Patch]:
    """Trials that a suspended sweep had suspended, or somebody else: a trial is the sweep's."""
    for job in _unfinished(here):
        if job.suspend:
            yield Patch(job.name, job.uid, {"spec": {"suspend": False}})


def _verdicts(here: Situation) -> Iterator[tuple[RunJob, str]]:
    """Runs that are to be stopped, and why."""
    limit = here.spec.stopping.wall_time_seconds if here.spec.stopping else None
    for each in here.runs:
        if each.trial.state != "Running":
            continue
        reason = verdict(here.spec, each.trial, here.trials)
        for job in each.jobs:
            if state_of(here.spec, job) != "Running":
                continue
            late = limit is not None and _active_seconds(job, here.now) >= limit
            if reason is not None or late:
                yield job, reason or f"it has been active for its wallTimeSeconds of {limit}"


def _closed(here: Situation, rungs: Schedule) -> Iterator[tuple[RunJob, str]]:
    """Runs that wait at a rung and will never go on."""
    reasons = dict(rungs.stop)
    for each in here.runs:
        if each.trial.index in reasons:
            for job in each.jobs:
                yield job, reasons[each.trial.index]


def _missing(here: Situation, free: int) -> tuple[tuple[dict[str, object], ...], int]:
    """Repeats that are not made yet: before anything new is tried."""
    bodies = []
    for each in here.runs:
        for number in each.missing[: max(free, 0)]:
            trial = each.trial
            bodies.append(
                training_job(
                    here.view.sweep, trial.index, number, trial.params, trial.attrs, trial.until
                )
            )
            free -= 1
    return tuple(bodies), free


def _promoted(here: Situation, rungs: Schedule, free: int) -> tuple[Patch, ...]:
    by_index = {each.trial.index: each for each in here.runs}
    return tuple(
        Patch(job.name, job.uid, {"spec": {"pauseAtStep": until}})
        for index, until in rungs.promote[: max(free, 0)]
        for job in by_index[index].jobs
    )


def _new(here: Situation, rungs: Schedule, free: int) -> tuple[New, ...]:
    obstacle, missing = here.view.obstacle, any(each.missing for each in here.runs)
    if obstacle is not None or missing or here.view.exhausted:
        return ()
    count = min(free, here.spec.max_trials - here.created)
    if here.spec.repeats.count > 1:  # its other runs come before the next configuration
        count = min(count, 1)
    first = here.created
    return tuple(New(index, rungs.start(index)) for index in range(first, first + max(count, 0)))


def _wall_times(here: Situation) -> Iterator[datetime]:
    limit = here.spec.stopping.wall_time_seconds if here.spec.stopping else None
    if limit is None:
        return
    for job in here.active:
        if job.active_since is not None:
            yield job.active_since + timedelta(seconds=limit - job.active_seconds)


def _active_seconds(job: RunJob, now: datetime) -> float:
    since = (now - job.active_since).total_seconds() if job.active_since else 0.0
    return job.active_seconds + since


def _stop(job: RunJob, reason: str) -> Patch:
    note = {contract.ANNOTATION_STOPPED: reason}
    return Patch(job.name, job.uid, {"metadata": {"annotations": note}, "spec": {"suspend": True}})


def _told(unused: Iterable[str]) -> tuple[Event, ...]:
    return tuple(
        Event(
            "Warning",
            "ParameterUnused",
            f"The template never refers to ${{params.{name}}}; scripts can still read it from "
            f"{parameter_variable(name)}.",
            name,
        )
        for name in unused
    )


def _seconds_to(times: Iterable[datetime | None], now: datetime) -> float | None:
    first = min((time for time in times if time is not None), default=None)
    return None if first is None else max((first - now).total_seconds(), 0.0)
