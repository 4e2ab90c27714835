"""Kueue's Workload: what a job asks for, and what it is granted. Only here are its fields known.

The protocol is that of Kueue's own job controllers: whoever made a Workload stops its pods when it
is evicted, and then gives its reservation back.

Sources: https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/ and, in Kueue v0.19,
pkg/controller/jobframework/reconciler.go and pkg/workload/workload.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from headway_api import contract
from headway_operator.trainingjob.times import timestamp

API_VERSION: Final = "kueue.x-k8s.io/v1beta2"
POD_SET: Final = "workers"
_DIGEST: Final = f"{contract.GROUP}/spec-hash"
_REQUEUED_AT_ONCE: Final = frozenset({"Preempted", "NodeFailures"})
"""Reasons of an eviction after which a Workload queues again by itself."""

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grant:
    """What Kueue has assigned to the worker group.

    Attributes:
        count: pods.
        flavors: names of the ResourceFlavors that their resources come from.
        updates: what admission checks add to the pods (`podSetUpdates`).
    """

    count: int
    flavors: tuple[str, ...] = ()
    updates: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Flavor:
    """A ResourceFlavor: which nodes its resources are on.

    Attributes:
        node_labels: of those nodes.
        tolerations: that pods there need.
    """

    node_labels: Mapping[str, str]
    tolerations: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """A Workload as far as its job needs to know it.

    Attributes:
        name: its name.
        uid: its UID.
        version: its resourceVersion.
        owner: UID of its controller; empty without one.
        generation: of its spec.
        digest: of what it was made from.
        queue: the LocalQueue.
        conditions: as they are.
        grant: what is reserved; None without a reservation.
        deleting: whether it is on its way out.
    """

    name: str
    uid: str
    version: str
    owner: str
    generation: int
    digest: str
    queue: str
    conditions: tuple[Json, ...] = ()
    grant: Grant | None = None
    deleting: bool = False

    @property
    def admitted(self) -> bool:
        """Whether the pods may run."""
        return self._true("Admitted") and self.grant is not None and not self.evicted

    @property
    def evicted(self) -> bool:
        """Whether the pods have to go."""
        return self._true("Evicted")

    @property
    def finished(self) -> bool:
        """Whether it takes no quota any more, for good."""
        return self._true("Finished")

    @property
    def ready(self) -> bool:
        """Whether Kueue knows that all pods run."""
        return self._true("PodsReady")

    @property
    def said(self) -> str:
        """Why it waits, or was evicted, in Kueue's words."""
        for kind, status in (
            ("Evicted", "True"),
            ("QuotaReserved", "False"),
            ("Admitted", "False"),
        ):
            found = self._find(kind)
            if found and found.get("status") == status and found.get("message"):
                return str(found["message"])
        return ""

    def _true(self, kind: str) -> bool:
        return self._find(kind).get("status") == "True"

    def _find(self, kind: str) -> Json:
        return next((c for c in self.conditions if c.get("type") == kind), {})


def parse_workload(item: Json) -> Workload:
    """A Workload from its JSON; what is missing or odd in it is left empty."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    return Workload(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner=_owner(metadata),
        generation=metadata.get("generation", 1),
        digest=(metadata.get("annotations") or {}).get(_DIGEST, ""),
        queue=spec.get("queueName") or "",
        conditions=tuple(status.get("conditions") or ()),
        grant=_grant(status),
        deleting="deletionTimestamp" in metadata,
    )


def parse_flavor(item: Json) -> Flavor:
    """A ResourceFlavor from its JSON."""
    spec = item.get("spec") or {}
    return Flavor(spec.get("nodeLabels") or {}, tuple(spec.get("tolerations") or ()))


def workload_name(job: str) -> str:
    """The Workload of a job."""
    return f"trainingjob-{job}"


def body(
    job: str, digest: str, queue: str, template: Json, *, count: int, least: int | None
) -> dict[str, Any]:
    """The Workload that asks for a group.

    Args:
        job: name of the TrainingJob.
        digest: of what it is made from.
        queue: the LocalQueue.
        template: metadata and spec of a pod; the metadata's owner and namespace are the Workload's.
        count: pods.
        least: with how many the group could do; None for no fewer than `count`.
    """
    metadata, spec = template["metadata"], template["spec"]
    pods: dict[str, Any] = {
        "name": POD_SET,
        "count": count,
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": spec},
    }
    if least is not None and least < count:
        pods["minCount"] = least
    priority = spec.get("priorityClassName")
    reference = {"group": "scheduling.k8s.io", "kind": "PriorityClass", "name": priority}
    return {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "metadata": {
            "name": workload_name(job),
            "namespace": metadata["namespace"],
            "labels": {contract.LABEL_JOB: job},
            "annotations": {_DIGEST: digest},
            "ownerReferences": metadata["ownerReferences"],
        },
        "spec": {
            "queueName": queue,
            "podSets": [pods],
            **({"priorityClassRef": reference} if priority else {}),
        },
    }


# --- what we tell Kueue -------------------------------------------------------------------------


def given_back(workload: Workload, now: datetime) -> dict[str, Any]:
    """Status of an evicted Workload whose pods are gone, as a merge patch."""
    evicted = next(c for c in workload.conditions if c.get("type") == "Evicted")
    reason, message = evicted.get("reason") or "", evicted.get("message") or ""
    claims = [
        ("Requeued", reason in _REQUEUED_AT_ONCE, reason, message),
        ("QuotaReserved", False, "Pending", message),
        ("Admitted", False, "NoReservation", "The workload has no reservation"),
        ("PodsReady", False, "WaitForStart", "Not all pods are ready or succeeded"),
    ]
    return {"admission": None, "conditions": _with(workload, claims, now)}


def started(workload: Workload, now: datetime) -> dict[str, Any]:
    """Status of a Workload whose pods all run, as a merge patch."""
    claim = ("PodsReady", True, "Started", "All pods reached readiness and the workload is running")
    return {"conditions": _with(workload, [claim], now)}


def over(workload: Workload, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Status of a Workload whose job has ended, as a merge patch."""
    return {"conditions": _with(workload, [("Finished", True, reason, message)], now)}


def _with(
    workload: Workload, claims: list[tuple[str, bool, str, str]], now: datetime
) -> list[dict[str, Any]]:
    """The conditions with some of them made to say something; the others stay."""
    held = {str(c["type"]): dict(c) for c in workload.conditions}
    for kind, holds, reason, message in claims:
        status, before = ("True" if holds else "False"), held.get(kind, {})
        same = before.get("status") == status
        held[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message[:4096],
            "observedGeneration": workload.generation,
            "lastTransitionTime": before["lastTransitionTime"] if same else timestamp(now),
        }
    return list(held.values())


def _grant(status: Json) -> Grant | None:
    for assignment in (status.get("admission") or {}).get("podSetAssignments") or ():
        if assignment.get("name") == POD_SET:
            flavors = tuple(sorted(set((assignment.get("flavors") or {}).values())))
            return Grant(assignment.get("count") or 0, flavors, tuple(_updates(status)))
    return None


def _updates(status: Json) -> Iterator[Json]:
    for check in status.get("admissionChecks") or ():
        for update in check.get("podSetUpdates") or ():
            if update.get("name") == POD_SET:
                yield update


def _owner(metadata: Json) -> str:
    owners = metadata.get("ownerReferences") or ()
    return next((str(owner["uid"]) for owner in owners if owner.get("controller")), "")
