"""Pods that their node no longer takes care of, and how a pod is got rid of."""

from __future__ import annotations

from datetime import datetime, timedelta

from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.view import Pod, View


def node_lost(pod: Pod, view: View) -> bool:
    """Whether the kubelet under a pod is silent."""
    return pod.node in view.lost_nodes


def overdue_at(pod: Pod, view: View) -> datetime | None:
    """When a pod that is being deleted has had its time; None if nobody deletes it."""
    if pod.deleting is None:
        return None
    return pod.deleting + timedelta(seconds=view.settings.overdue_seconds)


def overdue(pod: Pod, view: View, now: datetime) -> bool:
    """Whether a pod's deletion should long be over."""
    limit = overdue_at(pod, view)
    return limit is not None and now >= limit


def removal(pod: Pod, view: View, now: datetime) -> Deletion | None:
    """How to delete a pod; None where that is asked for already and waiting is right."""
    if node_lost(pod, view) or overdue(pod, view, now):
        # Nobody will ever confirm this deletion. The generation fences the process, if it lives.
        return None if pod.removal == "forced" else Deletion(pod.name, pod.uid, grace_seconds=0)
    if pod.deleting is not None or pod.removal:
        return None
    return Deletion(pod.name, pod.uid)


def removals(pods: tuple[Pod, ...], view: View, now: datetime) -> tuple[Deletion, ...]:
    """Deletions that are still to be asked for."""
    return tuple(deletion for pod in pods if (deletion := removal(pod, view, now)) is not None)


def forced_removals(pods: tuple[Pod, ...], view: View, now: datetime) -> tuple[Deletion, ...]:
    """Deletions of pods that are being deleted anyway, and that their node will never end."""
    asked = removals(pods, view, now)
    return tuple(deletion for deletion in asked if deletion.grace_seconds == 0)
