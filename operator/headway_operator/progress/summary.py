"""From what clients say to the one record of a job's progress."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, PlainSerializer

from headway_api import observations
from headway_api.base import StatusModel
from headway_api.messages import ProgressReport
from headway_operator.cluster.client import Object
from headway_operator.progress.joining import directions

PERCENT = 100


def rfc3339(moment: datetime) -> str:
    """A time in UTC with whole seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class KubeflowMetric(StatusModel):
    """One metric of Kubeflow's payload."""

    name: Annotated[str, Field(min_length=1, max_length=128)]
    """Its name."""
    value: Annotated[str, Field(max_length=64)]
    """Its value as a decimal string."""


class KubeflowStatus(StatusModel):
    """`trainerStatus` of Kubeflow's payload (KEP-2779, Trainer v2.3)."""

    progress_percentage: Annotated[int, Field(ge=0, le=PERCENT)] | None = None
    """Share done."""
    estimated_remaining_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated time left."""
    metrics: Annotated[list[KubeflowMetric], Field(max_length=256)] | None = None
    """Latest metrics."""
    last_updated_time: (
        Annotated[AwareDatetime, PlainSerializer(rfc3339, return_type=str)] | None
    ) = None
    """When this was observed."""


class KubeflowUpdate(StatusModel):
    """Kubeflow's payload."""

    trainer_status: KubeflowStatus | None = None
    """Without it there is nothing to take over."""


def from_kubeflow(
    told: KubeflowStatus, job: Object, latest: ProgressReport | None, received: datetime
) -> ProgressReport:
    """The record after a report of one of Kubeflow's clients.

    Such a client knows nothing of sessions, generations and restarts: those stay as the lead's
    agent reported them last, or else as the job's status has them, so that no restart is
    counted twice.

    Args:
        told: what the client said.
        job: the TrainingJob.
        latest: the record before.
        received: now, where the client named no time.
    """
    base = latest or _from_status(job)
    changes: dict[str, object] = {"updated_at": rfc3339(told.last_updated_time or received)}
    # A percentage counts as steps of a hundred; a script that reports its own steps, too, has
    # told something better.
    if told.progress_percentage is not None and base.total_steps in (None, PERCENT):
        changes |= {"step": told.progress_percentage, "total_steps": PERCENT}
    if told.estimated_remaining_seconds is not None:
        changes["eta_seconds"] = told.estimated_remaining_seconds
    if told.metrics:
        changes["metrics"] = base.metrics | {metric.name: metric.value for metric in told.metrics}
    report = base.model_copy(update=changes)
    observed = _observed(told.metrics or (), job, report.step or 0)
    return report.model_copy(update={"observations": observed})


def with_known_progress(report: ProgressReport, latest: ProgressReport | None) -> ProgressReport:
    """An agent's report, keeping the progress that it can't see.

    The agent of a script that talks to Kubeflow's protocol alone has no step to report; what
    the script said stays on record until it, or the agent's own session, says otherwise.
    """
    if latest is None or latest.session != report.session or report.step is not None:
        return report
    known = ("step", "total_steps", "epoch", "eta_seconds", "metrics", "updated_at")
    return report.model_copy(update={name: getattr(latest, name) for name in known})


def with_known_course(report: ProgressReport, known: ProgressReport) -> ProgressReport:
    """A report with what earlier ones told of the observed metrics, be it by other ways."""
    course = observations.all_merged(known.observations, report.observations)
    return report.model_copy(update={"observations": course})


def _observed(
    metrics: Iterable[KubeflowMetric], job: Object, step: int
) -> list[observations.Observation]:
    wanted = directions(job).observe
    return [
        observations.report(metric.name, step, value)
        for metric in metrics
        if metric.name in wanted and (value := _number(metric.value)) is not None
    ]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _from_status(job: Object) -> ProgressReport:
    status = job.get("status") or {}
    lead = (status.get("restarts") or {}).get("lead") or {}
    return ProgressReport(
        session=lead.get("session") or "",
        attempt=status.get("attempt") or 0,
        generation=status.get("generation") or 0,
        state="Training",
        restarts_total=lead.get("total") or 0,
        restarts_counted=lead.get("counted") or 0,
    )
