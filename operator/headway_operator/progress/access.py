"""Who may ask what about a job: its own pods, and for reports only its lead."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from headway_operator.cluster.client import Object
from headway_operator.progress.refusals import Refusal
from headway_operator.progress.tokens import Caller
from headway_operator.trainingjob.view import Pod

LEAD = 0
"""Index of the worker that leads the group."""
NOT_YET_SECONDS = 1
"""How soon a pod that was faster than the operator's cache may try again."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod that belongs to the job it asks about."""

    uid: str
    index: int


def bearer_token(authorization: str | None) -> str:
    """The token in an Authorization header.

    Raises:
        Refusal: 401 without one.
    """
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal(401, "send the pod's projected token: Authorization: Bearer <token>")
    return token.strip()


def check_namespace(caller: Caller, namespace: str) -> None:
    """Turn away pods of other namespaces.

    Raises:
        Refusal: 403.
    """
    if caller.namespace != namespace:
        raise Refusal(403, f"pod {caller.pod_name} is not in namespace {namespace}")


def member(caller: Caller, job: Object, pods: Iterable[Pod]) -> Member:
    """The caller as a pod of this job.

    Labels alone prove nothing (a pod of a deleted namesake still has them): the pod has to be
    controlled by this very job.

    Raises:
        Refusal: 403 for a pod that is not the job's; 503 for one that may be, but that the
            operator has not seen yet.
    """
    name = job["metadata"]["name"]
    pod = next((pod for pod in pods if pod.uid == caller.pod_uid), None)
    if pod is None and _could_be_ours(caller.pod_name, name):
        raise Refusal(
            503,
            f"pod {caller.pod_name} with uid {caller.pod_uid} is not known (yet); try again",
            retry_after=NOT_YET_SECONDS,
        )
    if pod is None or pod.owner != job["metadata"]["uid"] or pod.index < 0:
        raise Refusal(403, f"pod {caller.pod_name} does not belong to TrainingJob {name}")
    return Member(pod.uid, pod.index)


def missed(
    caller: Member, said: Collection[str], job: Object, pods: Iterable[Pod]
) -> frozenset[str]:
    """Those of the pods that a caller hears nothing of, for which its word counts.

    The lead is connected to all others, and the others only to the lead.
    """
    owner = job["metadata"]["uid"]
    return frozenset(
        pod.uid
        for pod in pods
        if pod.uid in said
        and pod.owner == owner
        and pod.index >= 0
        and (caller.index == LEAD) != (pod.index == LEAD)
    )


def check_lead(caller: Member) -> None:
    """Turn away all but worker 0: two reporters would contradict each other.

    Raises:
        Refusal: 403.
    """
    if caller.index != LEAD:
        raise Refusal(403, f"only worker 0 reports progress; this is worker {caller.index}")


def _could_be_ours(pod_name: str, job_name: str) -> bool:
    prefix, _, index = pod_name.rpartition("-")
    return prefix == job_name and index.isdecimal()
