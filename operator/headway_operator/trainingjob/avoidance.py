"""Nodes on which a pod fell silent: its successor keeps away from them.

Kubernetes takes a dead node for a good one until its kubelet has been silent for 40 s or more, and
its scheduler likes it best of all, as it has just become empty. Once that time is over, the
cluster's own taints are right, and we no longer interfere: a node may have been the only one that
fits. The nodes are remembered in the status, by the same write that counts the restart: a pod may
be made by another operator than the one that deleted its predecessor.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final

from headway_api.trainingjob import Restarts, SilentNode
from headway_operator.trainingjob.times import parsed, timestamp
from headway_operator.trainingjob.view import Pod

KEEP_OFF: Final = timedelta(seconds=60)
"""More than the cluster's own 40 s (50 s since Kubernetes 1.32), of which 10 are over by now."""
_MOST: Final = 64
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def avoided(restarts: Restarts | None, now: datetime) -> tuple[str, ...]:
    """Names of the nodes that pods made now keep away from."""
    return tuple(node.name for node in _recent(restarts, now))


def remembered(
    restarts: Restarts | None, now: datetime, more: Collection[str] = ()
) -> list[SilentNode] | None:
    """The silent nodes as the status has them: without those of long ago, with some more."""
    kept = [node for node in _recent(restarts, now) if node.name not in more]
    new = [SilentNode(name=name, time=timestamp(now)) for name in sorted(more)]
    return [*kept, *new][-_MOST:] or None


def keeping_off(affinity: dict[str, Any] | None, nodes: Collection[str]) -> dict[str, Any]:
    """A pod's affinity that excludes some nodes by name, in addition to what it says."""
    affinity = affinity or {}
    of_nodes = affinity.get("nodeAffinity") or {}
    required = of_nodes.get(_REQUIRED) or {}
    # The API server takes one name for each requirement.
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in nodes]
    terms: list[dict[str, Any]] = [  # alternatives: each of them has to exclude the nodes
        {**term, "matchFields": [*(term.get("matchFields") or ()), *fields]}
        for term in required.get("nodeSelectorTerms") or [{}]
    ]
    required = {**required, "nodeSelectorTerms": terms}
    return {**affinity, "nodeAffinity": {**of_nodes, _REQUIRED: required}}


def shut_out_until(pod: Pod) -> datetime | None:
    """When a pod that finds no node besides those it avoids is to be made again without that."""
    if not pod.avoids or pod.node or pod.ended:
        return None
    return pod.created + KEEP_OFF


def _recent(restarts: Restarts | None, now: datetime) -> list[SilentNode]:
    known = (restarts and restarts.silent_nodes) or ()
    return [node for node in known if (time := parsed(node.time)) and now < time + KEEP_OFF]
