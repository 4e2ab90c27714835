"""Jobs, pods and views for the tests of policies: small, and parsed from what a cluster sends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from headway_api.messages import ProgressReport
from headway_api.trainingjob import TrainingJobStatus
from headway_operator.settings import Settings
from headway_operator.trainingjob import merge
from headway_operator.trainingjob.plan import Plan
from headway_operator.trainingjob.pods import spec_hash
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import Job, Pod, View, parse_job

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def stamp(seconds: float = 0) -> str:
    return at(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def a_job(
    replicas: int = 2,
    *,
    status: dict[str, Any] | None = None,
    deleting: bool = False,
    generation: int = 1,
    **spec: Any,
) -> Job:
    """A job as the API server sends it; fields of its spec in camelCase."""
    metadata: dict[str, Any] = {
        "namespace": "lab",
        "name": "digits",
        "uid": "0123456789ab",
        "generation": generation,
        "resourceVersion": "7",
    }
    if deleting:
        metadata["deletionTimestamp"] = stamp()
    base = {"image": "i", "command": ["c"], "workers": {"replicas": replicas}}
    merged = {name: value for name, value in (base | spec).items() if value is not None}
    return parse_job({"metadata": metadata, "spec": merged, "status": status or {}})


def a_pod(index: int = 0, phase: str = "Running", *, lived: float = 600, **fields: Any) -> Pod:
    """A pod that was made an hour ago and, if it has ended, ended just now."""
    base = Pod(
        name=f"digits-{index}",
        uid=f"uid-{index}",
        version=9,
        owner="0123456789ab",
        index=index,
        attempt=1,
        spec_hash=digest(a_job()),
        phase=phase,
        created=at(-3600),
        ready=phase == "Running",
        node="node-0",
    )
    if phase in {"Succeeded", "Failed"}:
        base = replace(
            base,
            started=at(-lived),
            finished=NOW,
            exit_code=0 if phase == "Succeeded" else 1,
        )
    return replace(base, **fields)


def digest(job: Job) -> str:
    return spec_hash(merge.merged(job.spec, None))


def a_view(job: Job, *pods: Pod, **fields: Any) -> View:
    """A view whose pods were made from the job as it is."""
    fitting = tuple(replace(pod, spec_hash=digest(job)) for pod in pods)
    return View(job=job, pods=fitting, settings=fields.pop("settings", Settings()), **fields)


def running(**fields: Any) -> dict[str, Any]:
    """The status of a job whose two workers run."""
    return {
        "phase": "Running",
        "attempt": 1,
        "observedGeneration": 1,
        "startTime": stamp(-3600),
        "workers": {"desired": 2, "ready": 2, "active": 2},
        "ready": "2/2",
        "conditions": [condition("Running", "True", "AllWorkersReady", "The workers run.")],
        "reason": "AllWorkersReady",
        "message": "The workers run.",
        **fields,
    }


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": stamp(-1800),
    }


def conditions(status: TrainingJobStatus | None) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    assert status is not None
    return {item.type: (item.status, item.reason) for item in status.conditions or ()}


def a_report(**fields: Any) -> ProgressReport:
    base: dict[str, Any] = {"session": "one", "attempt": 1, "generation": 1, "state": "Training"}
    return ProgressReport.model_validate(base | fields)


def follow(view: View, plan: Plan) -> View:
    """The view after the plan's status was written."""
    assert plan.status is not None
    return replace(view, job=replace(view.job, status=plan.status))


def settled(view: View, now: datetime = NOW) -> bool:
    """Whether a second look finds nothing to write."""
    plan = reconcile(view, now)
    return not (plan.create or plan.delete or plan.status or plan.delete_job)
