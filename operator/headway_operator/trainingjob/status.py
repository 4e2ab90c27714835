"""What the status says: phase, conditions, counts and progress.

docs/concepts/status.md tells users exactly when each condition is True; what is written here has
to keep that word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from headway_api.messages import CheckpointReport, ProgressReport
from headway_api.observations import Observation, all_merged
from headway_api.trainingjob import (
    BestCheckpoint,
    CheckpointStatus,
    Observe,
    Phase,
    ProgressStatus,
    Restarts,
    TrainingJobStatus,
    WorkerCounts,
)
from headway_operator.trainingjob.conditions import Claim, state_of, with_claims
from headway_operator.trainingjob.deadline import active_seconds
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.times import timestamp

Difference = Literal["none", "soft", "urgent"]
_TEXT = 4096
_SOFT = ("workers", "ready", "progress", "observations", "message", "reason")
"""Fields that may be a few seconds behind. The lead's generation and session, and how many saves it
skipped, are not worth a write of their own: they go with the next one."""


def finished(status: TrainingJobStatus) -> bool:
    """Whether the job is over."""
    return "True" in {state_of(status, "Succeeded"), state_of(status, "Failed")}


def suspending(status: TrainingJobStatus) -> bool:
    """Whether the pods of this attempt were, or are being, given up for a suspension or a pause."""
    return status.paused_at_step is not None or any(
        condition.type == "Suspended"
        and (condition.status == "True" or condition.reason == "Suspending")
        for condition in status.conditions or ()
    )


def revised(
    status: TrainingJobStatus,
    claims: Iterable[Claim],
    *,
    generation: int,
    now: datetime,
    **fields: Any,
) -> TrainingJobStatus:
    """The status with conditions claimed and fields set; texts are cut to what fits."""
    fields["conditions"] = with_claims(status.conditions, claims, generation=generation, now=now)
    fields["observed_generation"] = generation
    if "message" in fields:
        fields["message"] = fields["message"][:_TEXT]
    return status.model_copy(update=fields)


def ended(
    status: TrainingJobStatus,
    group: Group,
    outcome: Literal["Succeeded", "Failed"],
    reason: str,
    message: str,
    *,
    generation: int,
    now: datetime,
) -> TrainingJobStatus:
    """The status of a job that is over."""
    done = outcome == "Succeeded"
    claims = [
        Claim(outcome, True, reason, message),
        Claim("Running", False, outcome),
        Claim("Reconciling", False, outcome),
        # To kstatus, and so to Flux and Argo CD, this is what a failure looks like.
        Claim("Stalled", not done, reason, message),
    ]
    failed = sum(1 for pod in group.members if pod.phase == "Failed")
    counts = WorkerCounts(
        desired=group.replicas,
        succeeded=group.replicas if done else _succeeded(group),
        failed=0 if done else failed,
    )
    return revised(
        status,
        claims,
        generation=generation,
        now=now,
        phase=outcome,
        reason=reason[:256],
        message=message,
        completion_time=timestamp(now),
        workers=counts,
        ready=f"0/{group.replicas}",
        active_seconds=active_seconds(status, now),
    )


def paused(status: TrainingJobStatus, now: datetime) -> dict[str, Any]:
    """Fields of a job that stops being active."""
    return {"active_seconds": active_seconds(status, now), "start_time": None}


def counts(group: Group) -> dict[str, Any]:
    """Fields that count pods."""
    ready = sum(1 for pod in group.standing if pod.ready)
    workers = WorkerCounts(
        desired=group.replicas,
        ready=ready,
        active=sum(1 for pod in group.members if not pod.ended),
        succeeded=_succeeded(group),
        failed=sum(1 for pod in group.members if pod.phase == "Failed"),
    )
    return {"workers": workers, "ready": f"{ready}/{group.replicas}"}


def phase_claims(phase: Phase, reason: str, message: str) -> list[Claim]:
    """Conditions of a job that is under way."""
    if phase == "Running":
        return [
            Claim("Running", True, "AllWorkersReady", message),
            Claim("Reconciling", False, "AllWorkersReady"),
        ]
    return [Claim("Running", False, reason, message), Claim("Reconciling", True, reason, message)]


def with_progress(
    status: TrainingJobStatus, report: ProgressReport, observe: Observe | None = None
) -> TrainingJobStatus:
    """The status with a report's progress in it; a report that tells nothing new changes none."""
    update: dict[str, Any] = {}
    observations = _observations(status, report, observe)
    if observations != status.observations:
        update["observations"] = observations
    progress = _progress(status.progress, report)
    if progress is not None and not _same_progress(status.progress, progress):
        update["progress"] = progress
    checkpoint = _checkpoint(status.checkpoint, report)
    if checkpoint != status.checkpoint:
        update["checkpoint"] = checkpoint
    if report.generation > (status.generation or 0):
        update["generation"] = report.generation
    return status.model_copy(update=update) if update else status


def difference(old: TrainingJobStatus, new: TrainingJobStatus) -> Difference:
    """Whether a status has to be written, and whether at once."""
    if _essence(old) != _essence(new) or _handled(new) - _handled(old):
        return "urgent"
    if any(getattr(old, name) != getattr(new, name) for name in _SOFT):
        return "soft"
    if _without_skipped(old.checkpoint) != _without_skipped(new.checkpoint):
        return "soft"
    before, after = old.restarts or Restarts(), new.restarts or Restarts()
    # UIDs of pods that are gone leave the list with the next write, not with one of their own; so
    # do nodes that were silent long ago.
    unhurried = {
        "handled_pods": after.handled_pods,
        "silent_nodes": after.silent_nodes,
        "lead": after.lead,
    }
    before = before.model_copy(update=unhurried)
    return "none" if before == after and old.conditions == new.conditions else "soft"


def _essence(status: TrainingJobStatus) -> tuple[Any, ...]:
    conditions = {
        (condition.type, condition.status, condition.reason)
        for condition in status.conditions or ()
    }
    return (
        status.phase,
        conditions,
        status.observed_generation,
        status.attempt,
        status.paused_at_step,
        status.start_time,
        status.completion_time,
        status.runtime,
    )


def _without_skipped(checkpoint: CheckpointStatus | None) -> CheckpointStatus:
    return (checkpoint or CheckpointStatus()).model_copy(update={"skipped": None})


def _handled(status: TrainingJobStatus) -> set[str]:
    return set((status.restarts and status.restarts.handled_pods) or ())


def _succeeded(group: Group) -> int:
    return sum(1 for pod in group.members if pod.phase == "Succeeded")


def _progress(old: ProgressStatus | None, report: ProgressReport) -> ProgressStatus | None:
    if report.step is None and not report.metrics:
        return None
    if old is not None and old.step == report.step and not report.metrics:
        return None  # it has come back to this step, and has trained nothing since
    percent = None
    if report.step is not None and report.total_steps:
        percent = max(0, min(100, 100 * report.step // report.total_steps))
    metrics = {name: value[:64] for name, value in sorted(report.metrics.items())[:64]}
    return ProgressStatus(
        step=report.step,
        total_steps=report.total_steps,
        epoch=report.epoch,
        percent=percent,
        eta_seconds=report.eta_seconds,
        metrics=metrics or None,
        updated_at=report.updated_at,
    )


def _observations(
    status: TrainingJobStatus, report: ProgressReport, observe: Observe | None
) -> list[Observation] | None:
    """What is to be observed, of all that is known."""
    known = {each.metric: each for each in all_merged(status.observations, report.observations)}
    return [known[metric] for metric in observe.metrics if metric in known] if observe else None


def _same_progress(old: ProgressStatus | None, new: ProgressStatus) -> bool:
    """Whether nothing has moved but the clock."""
    if old is None:
        return False
    clock = {"updated_at": new.updated_at, "eta_seconds": new.eta_seconds}
    return old.model_copy(update=clock) == new


def _checkpoint(old: CheckpointStatus | None, report: ProgressReport) -> CheckpointStatus | None:
    update: dict[str, Any] = {}
    if report.checkpoint is not None:
        newest = report.checkpoint
        update = {"step": newest.step, "uri": newest.uri[:2048], "time": newest.time}
        if newest.seconds is not None:
            update["seconds"] = max(0, math.ceil(newest.seconds))
        best = _best(newest)
        if best is not None:
            update["best"] = best
    if report.resumed_from_step is not None:
        update["resumed_from_step"] = report.resumed_from_step
        update["restored_from"] = report.restored_from and report.restored_from[:64]
        update["fallback"] = report.fallback and report.fallback[:1024]
    if report.saves_skipped or (old is not None and old.skipped):
        update["skipped"] = report.saves_skipped
    return (old or CheckpointStatus()).model_copy(update=update) if update else old


def _best(report: CheckpointReport) -> BestCheckpoint | None:
    if report.best_step is None or report.best_uri is None:
        return None
    return BestCheckpoint(
        step=report.best_step,
        uri=report.best_uri[:2048],
        metric=(report.best_metric or "")[:256],
        value=(report.best_value or "")[:64],
    )
