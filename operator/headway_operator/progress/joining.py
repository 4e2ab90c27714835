"""What an agent that starts has to know."""

from headway_api.messages import Directions, JoinResponse, PeersResponse, ProgressReport
from headway_api.trainingjob import FailurePolicy
from headway_operator.cluster.client import Object
from headway_operator.progress.keys import job_key


def join_response(
    job: Object, peers: PeersResponse, latest: ProgressReport | None, secret: bytes
) -> JoinResponse:
    """The answer to an agent that joins.

    Args:
        job: the TrainingJob.
        peers: where its pods are.
        latest: the latest report, which may know a generation that the status does not.
        secret: the operator's secret.
    """
    status = job.get("status") or {}
    restarts = status.get("restarts") or {}
    reported = latest.generation if latest is not None else 0
    return JoinResponse(
        version=peers.version,
        replicas=peers.replicas,
        peers=peers.peers,
        job_key=job_key(secret, job["metadata"]["uid"]),
        generation=max(int(status.get("generation") or 0), reported),
        restarts_counted=int(restarts.get("counted") or 0),
        failure_policy=_failure_policy(job),
        directions=directions(job),
        min_replicas=_min_replicas(job),
    )


def directions(job: Object) -> Directions:
    """What the job wants of its lead now."""
    spec = job.get("spec") or {}
    return Directions(
        pause_at_step=spec.get("pauseAtStep"),
        observe=(spec.get("observe") or {}).get("metrics") or [],
    )


def _min_replicas(job: Object) -> int | None:
    elastic = (job["spec"].get("workers") or {}).get("elastic")
    return int(elastic["minReplicas"]) if elastic else None


def _failure_policy(job: Object) -> FailurePolicy:
    """The job's own policy, else that of its runtime, as the snapshot in its status has it."""
    runtime = (job.get("status") or {}).get("runtime") or {}
    own = job.get("spec", {}).get("failurePolicy")
    given = own if own is not None else runtime.get("failurePolicy")
    return FailurePolicy.model_validate(given or {})
