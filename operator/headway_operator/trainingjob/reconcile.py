"""What a TrainingJob needs next: the policies, in their order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Literal

from headway_api.failure import Decision, decide, exhausted
from headway_api.trainingjob import Phase, Restarts, TrainingJobStatus
from headway_operator.trainingjob import failure, merge, queueing, restarts
from headway_operator.trainingjob.avoidance import avoided, remembered, shut_out_until
from headway_operator.trainingjob.conditions import Claim
from headway_operator.trainingjob.deadline import deadline, start_limit
from headway_operator.trainingjob.failure import Blame
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.nodes import forced_removals, overdue_at, removals
from headway_operator.trainingjob.pause import noted, rests
from headway_operator.trainingjob.plan import NOTHING, Plan
from headway_operator.trainingjob.pods import Blueprint, blueprint, spec_hash
from headway_operator.trainingjob.situation import Situation
from headway_operator.trainingjob.status import (
    counts,
    difference,
    ended,
    finished,
    phase_claims,
    revised,
)
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.suspend import resumed, suspended
from headway_operator.trainingjob.times import parsed, timestamp
from headway_operator.trainingjob.ttl import expires_at
from headway_operator.trainingjob.view import OPERATOR_NAME, Job, Pod, View


def reconcile(view: View, now: datetime) -> Plan:
    """The next writes for a job; the same for the same view and time.

    A job that is being deleted needs nothing: its pods go with their owner.
    """
    job = view.job
    if job.deleting or job.spec.managed_by not in {None, OPERATOR_NAME}:
        return NOTHING
    if finished(job.status):
        return _after_the_end(view, now)
    try:
        runtime = merge.snapshot(job.spec, job.status, view.runtime)
        spec = merge.merged(job.spec, runtime)
    except Stuck as stuck:
        return _no_spec(view, stuck, now)
    return _next(Situation.of(view, now, spec, runtime))


def _next(here: Situation) -> Plan:
    lead = here.group().lead
    if lead is not None and lead.phase == "Succeeded":
        return _end(here, "Succeeded", "Succeeded", "All workers have finished.")
    if here.over_budget:
        said = "The workers were restarted in place more often than failurePolicy.maxRestarts."
        return _end(here, "Failed", "RestartBudgetExhausted", said)
    here = noted(here)
    held = _held(here)
    if held is not None:
        return held
    here = resumed(queueing.narrowed(here))
    if not here.new_attempt:
        here = _with_edited_spec(here)
    if not here.new_attempt:
        found = _losses(here)
        if found:
            return _after_losses(here, found)
    return queueing.told(here, _go_on(here))


def _held(here: Situation) -> Plan | None:
    """The plan of a job that is not to run now; None for one that is."""
    if here.spec.suspend or rests(here):
        return queueing.left(here, suspended(here))
    late = _too_late(here)
    if late is not None or queueing.admitted(here):
        return late
    try:
        return queueing.queued(here)
    except Stuck as stuck:
        return _stuck(here, stuck, status_first=False)


# --- ends -------------------------------------------------------------------------------------


def _end(
    here: Situation, outcome: Literal["Succeeded", "Failed"], reason: str, message: str
) -> Plan:
    status = ended(
        here.status,
        here.group(),
        outcome,
        reason,
        message,
        generation=here.generation,
        now=here.now,
    )
    running = tuple(pod for pod in here.view.pods if not pod.ended)
    if outcome == "Succeeded":  # the others are ending by themselves
        patience = timedelta(seconds=here.view.settings.grace_seconds)
        return here.plan(status, requeue_at=here.now + patience if running else None)
    return here.plan(
        status,
        delete=removals(running, here.view, here.now, here.grace),
        status_first=True,
        requeue_at=_earliest(_overdue_times(running, here.view)),
    )


def _too_late(here: Situation) -> Plan | None:
    limit = deadline(here.spec, here.status)
    if limit is not None and here.now >= limit:
        said = (
            f"The job was active for its activeDeadlineSeconds of "
            f"{here.spec.active_deadline_seconds}."
        )
        return _end(here, "Failed", "DeadlineExceeded", said)
    limit = start_limit(here.spec, here.status)
    if limit is not None and here.now >= limit and not here.group().complete:
        said = "Not all workers were running within scheduling.startTimeoutSeconds."
        waiting = _what_pods_wait_for(here.group())
        return _end(here, "Failed", "StartTimeout", f"{said} {waiting}".strip())
    return None


def _after_the_end(view: View, now: datetime) -> Plan:
    """Take away what still runs, keep what has ended for its logs, and the job for its TTL."""
    job = view.job
    expiry = expires_at(job.spec, job.status)
    if expiry is not None and now >= expiry:
        return Plan(delete_job=True)
    completed = parsed(job.status.completion_time) or now
    # After a success the others are ending by themselves.
    patience = view.settings.grace_seconds if job.status.phase == "Succeeded" else 0
    leftover = tuple(pod for pod in view.pods if not pod.ended)
    due = completed + timedelta(seconds=patience)
    delete = removals(leftover, view, now) if now >= due else ()
    status = job.status.model_copy(update={"observed_generation": job.generation})
    looks = [expiry, due if leftover and now < due else None, *_overdue_times(leftover, view)]
    plan = Plan(
        delete=delete,
        status=status if difference(job.status, status) != "none" else None,
        requeue_after=_seconds_to(looks, now),
    )
    return queueing.ended(view, plan, now)


# --- losses and new attempts --------------------------------------------------------------------


def _losses(here: Situation) -> tuple[failure.Loss, ...]:
    before = here.view.job.status
    was_complete = before.phase == "Running" and before.workers is not None
    expected = before.workers.desired if was_complete and before.workers else 0
    return failure.losses(here.group(), here.view, here.now, expected=expected)


def _after_losses(here: Situation, found: tuple[failure.Loss, ...]) -> Plan:
    """One restart for all that were lost, unless it is the end."""
    blamed = failure.culprit(found)
    before = here.status.restarts or Restarts()
    decision: Decision | None = decide(here.policy, blamed.failure)
    if decision is not None and decision.action == "Fail":
        by = f" Failure rule {decision.rule} says Fail." if decision.rule else ""
        return _end(here, "Failed", blamed.failure.reason, f"{blamed.message}{by}")
    if decision is not None and decision.counts and exhausted(here.policy, before.counted):
        said = f"All {before.counted} restarts of failurePolicy.maxRestarts are used up. "
        return _end(here, "Failed", "RestartBudgetExhausted", said + blamed.message)
    if here.status.phase == "Restarting" and blamed.blame == Blame.PEER_LOST:
        decision = None  # an echo of the restart under way
    after = restarts.accounted(before, here.group(), found, blamed, here.now, decision)
    status = here.status.model_copy(update={"restarts": after, "phase": "Restarting"})
    return _go_on(here.with_status(status, new_attempt=False), counted=True)


def _with_edited_spec(here: Situation) -> Situation:
    """A new attempt, where the pods were made from another spec, and pods can be made of this."""
    digest = spec_hash(here.spec)
    if all(pod.spec_hash == digest for pod in here.group().members):
        return here
    try:
        blueprint(here.view.job, here.spec, here.view.settings)
    except Stuck:
        return here  # the pods that run are left to their work
    update: dict[str, Any] = {"attempt": (here.status.attempt or 1) + 1, "phase": "Restarting"}
    if here.status.restarts is not None:
        update["restarts"] = here.status.restarts.model_copy(update={"handled_pods": None})
    return here.with_status(here.status.model_copy(update=update), new_attempt=True)


# --- going on -----------------------------------------------------------------------------------


def _go_on(here: Situation, *, counted: bool = False) -> Plan:
    """Make the group what it should be: remove what is in the way, make what is missing."""
    try:
        drawn = blueprint(here.view.job, here.spec, here.view.settings)
    except Stuck as stuck:
        return _stuck(here, stuck, status_first=counted)
    drawn = queueing.granted(drawn, here.view.workload, here.view.flavors)
    here, rejoined = _with_left_behind(here)
    group = here.group()
    to_make = _indices_to_make(group, here.view)
    obstacle = here.view.obstacle if to_make else None
    if obstacle is not None and obstacle.kind == "Refused":
        refused = Stuck("Refused", f"{obstacle.message} Correct the job, or what is in its way.")
        return _stuck(here, refused, status_first=counted)
    status = _under_way(here, group, obstacle.message if obstacle else None)
    going, looks = _to_replace(here, group)
    first = counted or rejoined or here.new_attempt
    return here.plan(
        status,
        create=() if obstacle else _bodies(here, drawn, to_make),
        delete=removals((*group.others, *going), here.view, here.now, here.grace)
        + forced_removals(here.view.namesakes, here.view, here.now),
        status_first=first,
        requeue_at=_earliest(
            [
                deadline(here.spec, status),
                start_limit(here.spec, status),
                *_overdue_times((*here.view.pods, *here.view.namesakes), here.view),
                *failure.echo_times(group),
                *restarts.left_behind_times(group, here.view.progress),
                *looks,
            ]
        ),
    )


def _with_left_behind(here: Situation) -> tuple[Situation, bool]:
    behind = restarts.left_behind(here.group(), here.view.progress, here.now)
    if not behind:
        return here, False
    before = here.status.restarts or Restarts()
    handled = sorted(behind | here.group().handled)
    after = before.model_copy(update={"handled_pods": handled})
    status = here.status.model_copy(update={"restarts": after, "phase": "Restarting"})
    return here.with_status(status, new_attempt=False), True


def _indices_to_make(group: Group, view: View) -> tuple[int, ...]:
    """Indices without a pod whose name is free."""
    taken = {pod.name for pod in (*group.others, *view.namesakes)}
    return tuple(index for index in group.missing if f"{view.job.name}-{index}" not in taken)


def _bodies(
    here: Situation, drawn: Blueprint, indices: tuple[int, ...]
) -> tuple[dict[str, Any], ...]:
    avoid = avoided(here.status.restarts, here.now)
    pods = tuple(drawn.pod(index, here.group().attempt, avoid) for index in indices)
    return (drawn.headless_service(), *pods) if drawn.service and pods else pods


def _to_replace(here: Situation, group: Group) -> tuple[tuple[Pod, ...], list[datetime]]:
    """Members to delete now, and when others are: crash loops slow down."""
    now_due, later = [], []
    for pod in group.members:
        if pod.uid in group.handled:
            due = restarts.replace_at(pod, here.status.restarts)
        elif (due := shut_out_until(pod)) is None:
            continue
        if due is None or due <= here.now:
            now_due.append(pod)
        else:
            later.append(due)
    return tuple(now_due), later


def _under_way(here: Situation, group: Group, obstacle: str | None) -> TrainingJobStatus:
    """The status of a job that starts, runs or restarts."""
    phase = _phase(here.status, group)
    reason, message = _told(here, group, phase)
    if obstacle is not None:
        reason, message = "Forbidden", f"{obstacle} It is tried again."
    claims = [*phase_claims(phase, reason, message), Claim("Stalled", False, "Resolved")]
    fields: dict[str, Any] = {"start_time": here.status.start_time or timestamp(here.now)}
    if here.runtime is not None and here.status.runtime is None:
        fields["runtime"] = here.runtime.wire()
    if here.status.restarts is not None:
        fields["restarts"] = here.status.restarts.model_copy(
            update={
                "handled_pods": sorted(group.handled) or None,
                "silent_nodes": remembered(here.status.restarts, here.now),
            }
        )
    return revised(
        here.status,
        claims,
        generation=here.generation,
        now=here.now,
        phase=phase,
        reason=reason,
        message=message,
        attempt=group.attempt,
        **fields,
        **counts(group),
    )


def _phase(status: TrainingJobStatus, group: Group) -> Phase:
    if group.complete:
        return "Running"
    if status.phase in {"Running", "Restarting"} and status.attempt is not None:
        return status.phase
    if any(pod.gated for pod in group.standing):
        return "Queued"
    return "Starting"


def _told(here: Situation, group: Group, phase: Phase) -> tuple[str, str]:
    """Reason and message of a phase."""
    if phase == "Running":
        report = here.view.progress
        waits = report.message if report is not None and report.state == "Waiting" else ""
        # No count of pods in it: a condition is to change with what happens, `ready` counts.
        return "AllWorkersReady", f"The workers run. {waits}".strip()
    waiting = _what_pods_wait_for(group) or _whose_names_are_taken(here.view)
    last = here.status.restarts.last if here.status.restarts else None
    if phase == "Restarting" and not here.new_attempt and last is not None:
        return "Restarting", f"{last.message} {waiting}".strip()
    words = {"Restarting": "The workers are being replaced.", "Queued": "The workers are queued."}
    said = words.get(phase, "Waiting for the workers to be ready.")
    return phase, f"{said} {waiting}".strip()


def _what_pods_wait_for(group: Group) -> str:
    return next((f"{pod.name}: {pod.waiting}" for pod in group.standing if pod.waiting), "")


def _whose_names_are_taken(view: View) -> str:
    """A word on pods that their owner's end may have left for good (`--cascade=orphan`)."""
    names = ", ".join(pod.name for pod in view.namesakes[:3])
    return names and f"Pods of an earlier job of this name are still there: {names}."


# --- what only the user can mend ------------------------------------------------------------------


def _stuck(here: Situation, stuck: Stuck, *, status_first: bool) -> Plan:
    """Say what is wrong; pods that run are left to it."""
    group = here.group()
    status = _stalled(here.status, stuck, here.view.job, here.now, running=bool(group.standing))
    status = status.model_copy(update=counts(group))
    looks = [deadline(here.spec, status), *_overdue_times(here.view.pods, here.view)]
    going, later = _to_replace(here, group)
    delete = removals((*group.others, *going), here.view, here.now, here.grace)
    return here.plan(
        status, delete=delete, status_first=status_first, requeue_at=_earliest([*looks, *later])
    )


def _no_spec(view: View, stuck: Stuck, now: datetime) -> Plan:
    running = bool(view.pods)
    status = _stalled(view.job.status, stuck, view.job, now, running=running)
    return Situation(view, now, view.job.spec, None, view.job.status).plan(status)


def _stalled(
    status: TrainingJobStatus, stuck: Stuck, job: Job, now: datetime, *, running: bool
) -> TrainingJobStatus:
    claims = [
        Claim("Stalled", True, stuck.reason, stuck.message),
        Claim("Reconciling", False, "Stalled"),
    ]
    fields: dict[str, Any] = {"reason": stuck.reason, "message": stuck.message}
    if not running or status.phase not in {"Running", "Restarting"}:
        claims.append(Claim("Running", False, "Stalled"))
        fields["phase"] = "Pending"
    return revised(status, claims, generation=job.generation, now=now, **fields)


# --- times --------------------------------------------------------------------------------------


def _overdue_times(pods: Iterable[Pod], view: View) -> list[datetime]:
    """When to look at pods that are being deleted."""
    times = (overdue_at(pod, view) for pod in pods if pod.removal != "forced")
    return [time for time in times if time is not None]


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _seconds_to(times: Iterable[datetime | None], now: datetime) -> float | None:
    first = _earliest(times)
    return None if first is None else max((first - now).total_seconds(), 0.0)
