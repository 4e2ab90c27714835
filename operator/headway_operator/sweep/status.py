"""What a sweep's status says: phase, conditions, counts and the best trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from headway_api.sweep import BestTrial, SweepStatus, TrialSummary
from headway_operator.sweep.ending import End
from headway_operator.sweep.plan import Plan
from headway_operator.sweep.ranking import pareto_front, ranked
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.space import text
from headway_operator.sweep.trial import Trial
from headway_operator.trainingjob.conditions import Claim, with_claims
from headway_operator.trainingjob.plan import Event
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.times import timestamp

_SHOWN: Final = 100
"""Trials that a status has room for."""
_RESTING = "The sweep is suspended; set suspend: false to go on."


def running(here: Situation) -> SweepStatus:
    """The status of a sweep that goes on."""
    counts = here.counts
    said = f"{here.ended} of {here.spec.max_trials} trials have ended; {counts.running} run."
    claims = [
        Claim("Running", True, "Searching", said),
        Claim("Suspended", False, "Searching"),
        Claim("Succeeded", False, "Searching"),
        Claim("Failed", False, "Searching"),
        Claim("Stalled", False, "Searching"),
        Claim("Reconciling", False, "Searching"),
    ]
    start = here.view.sweep.status.start_time or timestamp(here.now)
    return _revised(
        here,
        claims,
        phase="Running",
        reason="Searching",
        message=_obstacle(here) or said,
        start_time=start,
        completion_time=None,
    )


def suspended(here: Situation) -> SweepStatus:
    """The status of a sweep that rests, or is about to."""
    if any(job.phase != "Suspended" for job in here.active):
        said = "The trials save their state and end."
        claims = [
            Claim("Suspended", False, "Suspending", said),
            Claim("Reconciling", True, "Suspending", said),
        ]
        return _revised(here, claims, reason="Suspending", message=said)
    claims = [
        Claim("Suspended", True, "Suspended", _RESTING),
        Claim("Running", False, "Suspended"),
        Claim("Reconciling", False, "Suspended"),
        Claim("Stalled", False, "Suspended"),
    ]
    return _revised(
        here, claims, phase="Suspended", reason="Suspended", message=_RESTING, **_paused(here)
    )


def ended(here: Situation, end: End) -> SweepStatus:
    """The status of a sweep that is over."""
    other: Literal["Succeeded", "Failed"] = "Failed" if end.outcome == "Succeeded" else "Succeeded"
    done = end.outcome == "Succeeded"
    claims = [
        Claim(end.outcome, True, end.reason, end.message),
        Claim(other, False, end.reason),
        Claim("Running", False, end.reason),
        Claim("Suspended", False, end.reason),
        Claim("Reconciling", False, end.reason),
        Claim("Stalled", not done, end.reason, end.message),
    ]
    completed = here.view.sweep.status.completion_time or timestamp(here.now)
    return _revised(
        here,
        claims,
        phase=end.outcome,
        reason=end.reason,
        message=end.message,
        completion_time=completed,
        **_paused(here),
    )


def stalled(here: Situation, stuck: Stuck) -> SweepStatus:
    """The status of a sweep that only its user can mend; trials that run are left to it."""
    claims = [
        Claim("Stalled", True, stuck.reason, stuck.message),
        Claim("Reconciling", False, "Stalled"),
    ]
    fields: dict[str, Any] = {"reason": stuck.reason, "message": stuck.message}
    if not here.trials:
        fields["phase"] = "Pending"
    return _revised(here, claims, **fields)


def with_change(here: Situation, status: SweepStatus, plan: Plan | None = None) -> Plan:
    """The plan with the status it ends in, if that has to be written, and how soon."""
    plan = plan or Plan()
    old = here.view.sweep.status
    if status == old:
        return plan
    urgent = _essence(status) != _essence(old)
    events = (*plan.events, *_transitions(old, status)) if urgent else plan.events
    return replace(plan, status=status, urgent=urgent, events=events)


def _paused(here: Situation) -> dict[str, Any]:
    """Fields of a sweep that stops being active."""
    return {"active_seconds": int(here.active_seconds), "start_time": None}


def _obstacle(here: Situation) -> str | None:
    obstacle = here.view.obstacle
    return None if obstacle is None else f"{obstacle.message} It is tried again."


def _revised(here: Situation, claims: Sequence[Claim], **fields: Any) -> SweepStatus:
    sweep = here.view.sweep
    fields["conditions"] = with_claims(
        sweep.status.conditions, claims, generation=sweep.generation, now=here.now
    )
    fields["message"] = fields["message"][:4096]
    return sweep.status.model_copy(
        update={
            "observed_generation": sweep.generation,
            **fields,
            "counts": here.counts,
            "ended": f"{here.ended}/{here.spec.max_trials}",
            **_results(here),
        }
    )


def _results(here: Situation) -> dict[str, Any]:
    several = len(here.spec.objectives) > 1
    best = [] if several else ranked(here.spec, here.trials)[:1]
    front = pareto_front(here.spec, here.trials)[:_SHOWN] if several else []
    return {
        "best": _best(here, best[0]) if best else None,
        "pareto_front": [_best(here, trial) for trial in front] or None,
        "trials": [TrialSummary(**_short(trial)) for trial in here.trials[-_SHOWN:]] or None,
        "recorded": sum(each.recorded for each in here.runs) or None,
    }


def _best(here: Situation, trial: Trial) -> BestTrial:
    runs = next(each for each in here.runs if each.trial is trial)
    first = runs.first
    return BestTrial(
        **_short(trial),
        name=first.name,
        checkpoint=first.checkpoint or None,
        parameters={name: text(value)[:64] for name, value in sorted(trial.params.items())},
    )


def _short(trial: Trial) -> dict[str, Any]:
    values = None if trial.values is None else [decimal(value) for value in trial.values]
    return {
        "index": trial.index,
        "state": trial.state,
        "values": values,
        "step": trial.step or None,
    }


def decimal(value: float) -> str:
    """A value as the status holds it: 6 significant digits."""
    return f"{value:.6g}"


def _essence(status: SweepStatus) -> tuple[object, ...]:
    """What a change of is worth a write at once."""
    conditions = {(c.type, c.status, c.reason) for c in status.conditions or ()}
    return (status.phase, conditions, status.observed_generation, status.completion_time)


def _transitions(old: SweepStatus, new: SweepStatus) -> tuple[Event, ...]:
    if new.phase == old.phase and new.reason == old.reason:
        return ()
    kind: Literal["Normal", "Warning"] = "Normal"
    if new.phase == "Failed" or new.reason in {"SpaceInvalid", "TemplateInvalid", "Refused"}:
        kind = "Warning"
    reason = new.reason or new.phase or ""
    count = f"{new.observed_generation}/{new.completion_time or new.start_time}"
    return (Event(kind, reason, new.message or "", count),)
