"""Why a pod was lost, and who of several is to blame."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final

from headway_api.contract import ExitCode
from headway_api.failure import INFRASTRUCTURE, NEVER_HEALS, Failure
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.nodes import fell_silent, node_lost, overdue
from headway_operator.trainingjob.view import Pod, View

_DISRUPTIONS: Final = {
    "PreemptionByScheduler": "Preempted",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
"""Reasons of `DisruptionTarget` conditions, in our words."""
_POD_REASONS: Final = {
    "Evicted": "Evicted",
    "NodeLost": "NodeLost",
    "Preempting": "Preempted",
    "Shutdown": "NodeShutdown",
    "NodeShutdown": "NodeShutdown",
    "Terminated": "NodeShutdown",
}
"""Reasons of failed pods, in our words. Others without a container are refusals by the kubelet."""
_AGENT_SAYS: Final[dict[int, str]] = {
    ExitCode.CONFIG: "ConfigurationError",
    ExitCode.BUDGET: "RestartBudgetExhausted",
    ExitCode.PREEMPTED: "Preempted",
    ExitCode.PEER_LOST: "PeerLost",
    ExitCode.FENCED: "PeerLost",
    ExitCode.PAUSED: "Paused",
}
_LOST_TRACK: Final = frozenset({"ContainerStatusUnknown", "Unknown"})
"""What a kubelet that was away says of containers that ended meanwhile."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_ECHO: Final = timedelta(seconds=10)
"""How long a pod that its lead sent home waits for the end of that lead, which tells the reason."""
_SENT_HOME: Final = frozenset({ExitCode.PEER_LOST, ExitCode.PAUSED})


class Blame(IntEnum):
    """How much a loss explains the others that came with it."""

    NEVER_HEALS = 0
    OWN = 1
    INFRASTRUCTURE = 2
    PEER_LOST = 3


@dataclass(frozen=True)
class Loss:
    """A pod that has to be replaced.

    `uid` is empty where the pod is gone already.
    """

    index: int
    failure: Failure
    message: str
    uid: str = ""
    rank: int | None = None
    when: datetime | None = None
    silent_node: str = ""
    """Its node, where Kubernetes does not know yet that something is wrong with it."""

    @property
    def blame(self) -> Blame:
        """See `Blame`."""
        if self.failure.exit_code in NEVER_HEALS:
            return Blame.NEVER_HEALS
        if self.failure.reason in {"PeerLost", "Paused"}:  # what its lead sent it home with
            return Blame.PEER_LOST
        return Blame.INFRASTRUCTURE if self.failure.reason in INFRASTRUCTURE else Blame.OWN


def losses(group: Group, view: View, now: datetime, *, expected: int) -> tuple[Loss, ...]:
    """Members that are lost and not accounted for yet.

    Args:
        group: the group now.
        view: all that is known.
        now: the time.
        expected: indices below this had a pod, so that a missing one was deleted.
    """
    early = frozenset(pod.uid for pod, until in _echoes(group) if now < until)
    found = [
        loss
        for pod in group.standing
        if pod.uid not in early and (loss := _loss(pod, view, now)) is not None
    ]
    found += [
        Loss(index, Failure("PodDeleted"), f"The pod of worker {index} was deleted.")
        for index in group.missing
        if index < expected
    ]
    return tuple(found)


def echo_times(group: Group) -> list[datetime]:
    """When pods that lost their peers count as lost, even if their lead still runs."""
    return [until for _, until in _echoes(group)]


def _echoes(group: Group) -> list[tuple[Pod, datetime]]:
    """Pods that a lead has sent home and that ended before it: it is about to tell why."""
    lead = group.lead
    if lead is None or lead.ended:
        return []
    return [
        (pod, pod.finished + _ECHO)
        for pod in group.standing
        if pod.exit_code in _SENT_HOME and pod.finished is not None and lead.created <= pod.finished
    ]


def culprit(found: tuple[Loss, ...]) -> Loss:
    """The first real culprit: by blame, then by time of end."""
    return min(found, key=lambda loss: (loss.blame, loss.when or _NEVER, loss.index))


def _loss(pod: Pod, view: View, now: datetime) -> Loss | None:
    if pod.phase == "Failed":
        return _ended(pod)
    if pod.phase == "Succeeded":
        return None
    if node_lost(pod, view):
        said = f"The node {pod.node} of worker {pod.index} is silent."
        return Loss(pod.index, Failure("NodeLost"), said, pod.uid)
    if fell_silent(pod, view, now):
        said = (
            f"Worker {pod.index} on node {pod.node} is silent: "
            "neither its peers nor the operator hear from it."
        )
        return Loss(pod.index, Failure("NodeLost"), said, pod.uid, silent_node=pod.node)
    if overdue(pod, view, now):
        reason = _DISRUPTIONS.get(pod.disruption, "PodDeleted")
        said = f"The pod of worker {pod.index} was deleted, and its node did not end it in time."
        return Loss(pod.index, Failure(reason), said, pod.uid)
    return None


def _ended(pod: Pod) -> Loss:
    report = pod.report
    code = pod.exit_code
    if code is None and report is not None:
        code = report.exit_code
    blamed = report.culprit if report is not None else None
    outside = _outside_reason(pod, code)
    if outside is not None:
        failure, rank = Failure(outside, code), None
    elif blamed is not None:
        failure, rank = Failure(blamed.reason, blamed.exit_code, of_worker=True), blamed.rank
    else:
        reason = "OOMKilled" if pod.terminated_reason == "OOMKilled" else "Error"
        failure, rank = Failure(reason, code), None
    said = (blamed and blamed.message) or (report.message if report else pod.message)
    number = "" if failure.exit_code is None else f" with exit code {failure.exit_code}"
    message = f"Worker {pod.index} ended{number} ({failure.reason}). {said or ''}".strip()
    if code in NEVER_HEALS and report is not None and report.message:
        message = report.message  # the agent's own words; its exit code would only distract
    if failure.reason == "OOMKilled" and not said:
        message += (
            " It used more memory than its limit: raise spec.workers.resources.limits.memory,"
            " or use less."
        )
    return Loss(pod.index, failure, message, pod.uid, rank, pod.finished)


def _outside_reason(pod: Pod, code: int | None) -> str | None:
    """The reason, where it is not a fault of the user's program; the first that applies."""
    unstarted = "Evicted" if pod.status_reason and code is None else None  # the kubelet refused it
    deleted = "PodDeleted" if pod.deleting is not None else None
    return (
        (_AGENT_SAYS[code] if code in NEVER_HEALS else None)
        or (_DISRUPTIONS.get(pod.disruption, "Evicted") if pod.disruption else None)
        or ("NodeLost" if pod.terminated_reason in _LOST_TRACK else None)
        or _POD_REASONS.get(pod.status_reason)
        or unstarted
        or (_AGENT_SAYS.get(code) if code is not None else None)
        or deleted
    )
