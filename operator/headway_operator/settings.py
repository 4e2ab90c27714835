"""What an administrator decides about the operator, and why one would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class GpuPool:
    """A group of nodes with the same GPUs, by the name that jobs use for it."""

    resource: str = "nvidia.com/gpu"
    """Extended resource that the device plugin of these nodes offers."""
    per_node: int | None = None
    """GPUs of each node. A job that asks for more in one pod is stalled with a sentence, instead
    of a pod that stays pending for ever. Unknown when unset."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels by which the nodes are known."""
    tolerations: tuple[Mapping[str, Any], ...] = ()
    """Taints that keep other pods off these nodes."""


@dataclass(frozen=True)
class Settings:
    """Settings of the operator. Times are in seconds."""

    pools: Mapping[str, GpuPool] = field(default_factory=dict)
    """GPU pools by name. Jobs name a pool, so that selectors, taints and resource names are
    written once, by who knows the cluster."""
    endpoint_url: str = ""
    """Where pods find addresses and report progress, e.g.
    `https://headway-operator.headway-system.svc:8443`. Empty: pods are told nothing."""
    endpoint_ca: str = ""
    """PEM text of the authority that signed the endpoint's certificate."""
    token_seconds: int = 3600
    """Lifetime of the pods' tokens; the kubelet renews them. 600 at least."""
    grace_seconds: int = 60
    """Termination grace of pods that set none: a save on SIGTERM has to fit."""
    overdue_seconds: float = 30.0
    """How long after its deletion timestamp a pod is force-deleted. Its node had the whole grace
    period and did not answer: waiting longer only keeps the name taken."""
    silence_seconds: float = 4.0
    """How long agents have to go on saying that they hear nothing of a peer, which itself says
    nothing to the endpoint either, until its pod is replaced. They begin after 5 s of silence. A
    pod that lives and only lost sight of its lead speaks up in this time: first it ends its
    workers, which takes a second or two."""
    progress_seconds: float = 10.0
    """Least time between two status writes of one job that tell of progress only. People don't
    read faster, and every write costs the API server the same."""
    progress_writes_per_second: float = 50.0
    """Such writes of all jobs together, so that ten thousand jobs don't fill the API server."""
    resync_seconds: float = 300.0
    """Each job is looked at again after about this time, whatever was missed."""
    workers: int = 16
    """Jobs that are reconciled at the same time. They wait for the API server, not for a CPU."""
    backoff_seconds: float = 0.5
    """First wait after a failed reconcile; doubles each time."""
    backoff_limit_seconds: float = 60.0
    """Longest wait after a failed reconcile."""
    queues: bool = True
    """Whether jobs with a queue's name wait for it. On a laptop there is nobody to wait for."""
    namespaces: tuple[str, ...] = ()
    """The only namespaces to look at; all of them when empty."""
