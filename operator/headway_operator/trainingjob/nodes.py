"""Pods that their node no longer takes care of, and how a pod is got rid of."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from headway_operator.trainingjob.avoidance import avoided
from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.view import Pod, View

SETTLED: Final = timedelta(seconds=30)
"""Age from which on a pod may be lost by its peers' word: whatever they say, no index gets a new
pod more often than that."""


def node_lost(pod: Pod, view: View) -> bool:
    """Whether the kubelet under a pod is silent."""
    return pod.node in view.lost_nodes


def fell_silent(pod: Pod, view: View, now: datetime) -> bool:
    """Whether neither its peers nor the endpoint hear from a pod that seems to run.

    One that is being deleted is left its time to save: it may be silent because it ends. For one
    that is too young nobody has to wake us: its peers say it again.
    """
    runs = pod.phase == "Running" and pod.deleting is None
    return runs and pod.uid in view.silent and now >= pod.created + SETTLED


def overdue_at(pod: Pod, view: View) -> datetime | None:
    """When a pod that is being deleted has had its time; None if nobody deletes it."""
    if pod.deleting is None:
        return None
    return pod.deleting + timedelta(seconds=view.settings.overdue_seconds)


def overdue(pod: Pod, view: View, now: datetime) -> bool:
    """Whether a pod's deletion should long be over."""
    limit = overdue_at(pod, view)
    return limit is not None and now >= limit


def removal(pod: Pod, view: View, now: datetime, grace: int = 0) -> Deletion | None:
    """How to delete a pod; None where that is asked for already and waiting is right.

    Args:
        pod: the pod.
        view: all that is known.
        now: the time.
        grace: seconds that it is to have at least, where its own grace period is shorter.
    """
    given_up = fell_silent(pod, view, now) or _was_given_up(pod, view, now)
    if given_up or node_lost(pod, view) or overdue(pod, view, now):
        # Nobody will ever confirm this deletion. The generation fences the process, if it lives.
        return None if pod.removal == "forced" else Deletion(pod.name, pod.uid, grace_seconds=0)
    if pod.deleting is not None or pod.removal:
        return None
    short = not pod.ended and pod.grace is not None and pod.grace < grace
    return Deletion(pod.name, pod.uid, grace if short else None)


def removals(
    pods: tuple[Pod, ...], view: View, now: datetime, grace: int = 0
) -> tuple[Deletion, ...]:
    """Deletions that are still to be asked for; see `removal`."""
    asked = (removal(pod, view, now, grace) for pod in pods)
    return tuple(deletion for deletion in asked if deletion is not None)


def forced_removals(pods: tuple[Pod, ...], view: View, now: datetime) -> tuple[Deletion, ...]:
    """Deletions of pods that are being deleted anyway, and that their node will never end."""
    asked = removals(pods, view, now)
    return tuple(deletion for deletion in asked if deletion.grace_seconds == 0)


def _was_given_up(pod: Pod, view: View, now: datetime) -> bool:
    """Whether a pod was counted as lost for its silence by an operator that is gone."""
    restarts = view.job.status.restarts
    handled = (restarts and restarts.handled_pods) or ()
    return not pod.ended and pod.uid in handled and pod.node in avoided(restarts, now)
