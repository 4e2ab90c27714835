"""The objects we know: jobs, their pods, runtimes, and which nodes are lost.

Fed by watches and by the answers to our own writes, in any order: of two states of one object the
newer stays. Only what is read is kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from headway_api import contract
from headway_operator.cluster.client import NODE, POD, Object, Resource
from headway_operator.resources import (
    CLUSTER_TRAINING_RUNTIME,
    RESOURCE_FLAVOR,
    TRAINING_JOB,
    TRAINING_RUNTIME,
    WORKLOAD,
)
from headway_operator.trainingjob.view import Pod, parse_pod
from headway_operator.trainingjob.workload import Flavor, Workload, parse_flavor, parse_workload

JobKey: TypeAlias = tuple[str, str]
"""Namespace and name of a TrainingJob."""

_METADATA = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)
_TOMBSTONES = 4096
"""Deleted objects remembered, so that a late answer to a write does not bring one back."""


class Cache:
    """What exists, by kind and name; pods by job."""

    def __init__(self) -> None:
        self._jobs: dict[JobKey, Object] = {}
        self._pods: dict[JobKey, dict[str, Pod]] = {}
        self._runtimes: dict[tuple[str, str | None, str], Object] = {}
        self._workloads: dict[JobKey, Workload] = {}
        self._flavors: dict[str, Flavor] = {}
        self._nodes: dict[str, tuple[int, bool]] = {}
        self._lost: set[str] = set()
        self._waiting: dict[JobKey, list[asyncio.Future[None]]] = {}
        self._buried: OrderedDict[str, None] = OrderedDict()
        self._unseen: dict[JobKey, dict[str, tuple[float, Pod]]] = {}

    def put(self, resource: Resource, item: Object) -> tuple[JobKey, ...]:
        """Take in an object's state; the jobs that it matters to, none if it was known."""
        if resource == POD:
            self._seen(job_of(item), item["metadata"]["uid"])
        if item["metadata"]["uid"] in self._buried:
            return ()
        puts: Mapping[Resource, Callable[[Object], tuple[JobKey, ...]]] = {
            TRAINING_JOB: self._put_job,
            POD: self._put_pod,
            NODE: self._put_node,
            WORKLOAD: self._put_workload,
            RESOURCE_FLAVOR: self._put_flavor,
        }
        put = puts.get(resource)
        return put(item) if put else self._put_runtime(resource, item)

    def remove(self, resource: Resource, item: Object) -> tuple[JobKey, ...]:
        """Forget an object that is gone, of which metadata is enough; the jobs it mattered to."""
        metadata = item["metadata"]
        self._bury(metadata["uid"])
        if resource == TRAINING_JOB:
            key = (metadata["namespace"], metadata["name"])
            return self._forget_job(key, metadata["uid"])
        if resource == POD:
            return self.forget_pod(job_of(item), metadata["name"], metadata["uid"])
        if resource == NODE:
            self._nodes.pop(metadata["name"], None)
            self._lost.discard(metadata["name"])
            return ()
        if resource == WORKLOAD:
            return self.forget_workload(job_of(item), metadata["uid"])
        if resource == RESOURCE_FLAVOR:
            self._flavors.pop(metadata["name"], None)
            return ()
        self._runtimes.pop(_runtime_key(resource, item), None)
        return ()

    # --- reading ---------------------------------------------------------------------------

    def keys(self) -> Iterable[JobKey]:
        """All jobs."""
        return self._jobs.keys()

    def job(self, key: JobKey) -> Object | None:
        """A job: identity of its metadata, spec and status."""
        return self._jobs.get(key)

    def pods(self, key: JobKey) -> tuple[Pod, ...]:
        """All pods labelled with this job's name, by index; those of an earlier namesake too."""
        return tuple(sorted(self._pods.get(key, {}).values(), key=lambda pod: pod.index))

    def has_pods(self, key: JobKey) -> bool:
        """Whether any pod is labelled with this job's name."""
        return bool(self._pods.get(key))

    def runtime(self, kind: str, namespace: str, name: str) -> Object | None:
        """A TrainingRuntime of the namespace, or a ClusterTrainingRuntime."""
        scope = namespace if kind == TRAINING_RUNTIME.kind else None
        return self._runtimes.get((kind, scope, name))

    def workload(self, key: JobKey) -> Workload | None:
        """What is asked of Kueue in this job's name."""
        return self._workloads.get(key)

    @property
    def flavors(self) -> Mapping[str, Flavor]:
        """Kueue's ResourceFlavors by name; not to be changed by the caller."""
        return self._flavors

    def lost_nodes(self, pods: Iterable[Pod]) -> frozenset[str]:
        """Those nodes under these pods whose kubelet is silent."""
        return frozenset(pod.node for pod in pods) & self._lost if self._lost else frozenset()

    def changed(self, key: JobKey) -> asyncio.Future[None]:
        """A future of the next change to a job or its pods, counted from this very call.

        Cancel it (as `asyncio.wait_for` does) to stop waiting.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        future.add_done_callback(lambda done: self._stop_waiting(key, done))
        return future

    # --- what our own writes tell ------------------------------------------------------------

    def put_made(self, item: Object) -> None:
        """Take in a pod that we have just made, before any watch tells of it."""
        if item["metadata"]["uid"] in self._buried:
            return
        self._put_pod(item)
        pod, now = parse_pod(item), asyncio.get_running_loop().time()
        self._unseen.setdefault(job_of(item), {})[pod.uid] = (now, pod)

    def unseen(self, key: JobKey, *, older_than: float = 0.0) -> tuple[Pod, ...]:
        """Pods that no watch has told of within so many seconds of their making.

        One that comes and goes while a watch is broken is in no list and missed by no diff: only
        asking for it tells that it is gone.
        """
        made = self._unseen.get(key)
        if not made:
            return ()
        limit = asyncio.get_running_loop().time() - older_than
        return tuple(pod for since, pod in made.values() if since <= limit)

    def forget_pod(self, key: JobKey, name: str, uid: str) -> tuple[JobKey, ...]:
        """Forget a pod that the API server no longer has."""
        self._bury(uid)
        self._seen(key, uid)
        held = self._pods.get(key, {})
        if name not in held or held[name].uid != uid:
            return ()
        del held[name]
        if not held:
            del self._pods[key]
        return self._tell(key)

    def forget_workload(self, key: JobKey, uid: str) -> tuple[JobKey, ...]:
        """Forget a Workload that the API server no longer has."""
        self._bury(uid)
        known = self._workloads.get(key)
        if known is None or known.uid != uid:
            return ()
        del self._workloads[key]
        return self._tell(key)

    def forget_job(self, key: JobKey, uid: str) -> tuple[JobKey, ...]:
        """Forget a job that the API server no longer has."""
        self._bury(uid)
        return self._forget_job(key, uid)

    def mark_removal(
        self, key: JobKey, name: str, uid: str, how: Literal["asked", "forced"]
    ) -> None:
        """Remember what was asked of the API server until its effect is seen."""
        pod = self._pods.get(key, {}).get(name)
        if pod is not None and pod.uid == uid:
            self._pods[key][name] = replace(pod, removal=how)

    # --- by kind -----------------------------------------------------------------------------

    def _put_job(self, item: Object) -> tuple[JobKey, ...]:
        metadata = item["metadata"]
        key = (metadata["namespace"], metadata["name"])
        known = self._jobs.get(key)
        if known is not None and _version(item) <= _version(known):
            return ()
        self._jobs[key] = {
            "metadata": {field: metadata[field] for field in _METADATA if field in metadata},
            "spec": item.get("spec") or {},
            "status": item.get("status") or {},
        }
        return self._tell(key)

    def _forget_job(self, key: JobKey, uid: str) -> tuple[JobKey, ...]:
        known = self._jobs.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return ()
        del self._jobs[key]
        return self._tell(key)

    def _put_pod(self, item: Object) -> tuple[JobKey, ...]:
        key, pod = job_of(item), parse_pod(item)
        known = self._pods.get(key, {}).get(pod.name)
        if known is not None:
            if pod.version <= known.version:
                return ()
            if known.uid == pod.uid:
                pod = replace(pod, removal=known.removal)
            if pod == replace(known, version=pod.version):  # nothing that anybody here reads
                self._pods[key][pod.name] = pod
                return ()
        self._pods.setdefault(key, {})[pod.name] = pod
        return self._tell(key)

    def _put_node(self, item: Object) -> tuple[JobKey, ...]:
        name, version, lost = item["metadata"]["name"], _version(item), _is_lost(item)
        known = self._nodes.get(name)
        if known is not None and version <= known[0]:
            return ()
        self._nodes[name] = (version, lost)
        if lost == (name in self._lost):
            return ()
        (self._lost.add if lost else self._lost.discard)(name)
        return tuple(
            key
            for key, pods in self._pods.items()
            if any(pod.node == name for pod in pods.values())
        )

    def _put_runtime(self, resource: Resource, item: Object) -> tuple[JobKey, ...]:
        key = _runtime_key(resource, item)
        known = self._runtimes.get(key)
        if known is not None and _version(item) <= _version(known):
            return ()
        metadata = {name: item["metadata"][name] for name in ("uid", "resourceVersion")}
        self._runtimes[key] = {"metadata": metadata, "spec": item.get("spec") or {}}
        return tuple(
            job_key for job_key, job in self._jobs.items() if _waits_for(job, key, job_key[0])
        )

    def _put_workload(self, item: Object) -> tuple[JobKey, ...]:
        key, new = job_of(item), parse_workload(item)
        known = self._workloads.get(key)
        if known is not None and int(new.version) <= int(known.version):
            return ()
        self._workloads[key] = new
        return self._tell(key)

    def _put_flavor(self, item: Object) -> tuple[JobKey, ...]:
        name, flavor = item["metadata"]["name"], parse_flavor(item)
        if self._flavors.get(name) == flavor:
            return ()
        self._flavors[name] = flavor
        return tuple(
            key
            for key, workload in self._workloads.items()
            if workload.grant is not None and name in workload.grant.flavors
        )

    def _seen(self, key: JobKey, uid: str) -> None:
        unseen = self._unseen.get(key)
        if unseen is not None:
            unseen.pop(uid, None)
            if not unseen:
                del self._unseen[key]

    def _tell(self, key: JobKey) -> tuple[JobKey, ...]:
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(None)
        return (key,)

    def _stop_waiting(self, key: JobKey, future: asyncio.Future[None]) -> None:
        waiting = self._waiting.get(key)
        if waiting and future in waiting:
            waiting.remove(future)
            if not waiting:
                del self._waiting[key]

    def _bury(self, uid: str) -> None:
        self._buried[uid] = None
        if len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)


def _version(item: Mapping[str, Any]) -> int:
    return int(item["metadata"]["resourceVersion"])


def job_of(item: Object) -> JobKey:
    """The job that a pod or a Workload is labelled with."""
    metadata = item["metadata"]
    return metadata["namespace"], metadata["labels"][contract.LABEL_JOB]


def _is_lost(node: Object) -> bool:
    """Whether the kubelet is silent: only the node controller writes `Unknown`."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "Ready" and entry["status"] == "Unknown" for entry in conditions)


def _runtime_key(resource: Resource, item: Object) -> tuple[str, str | None, str]:
    namespace = item["metadata"].get("namespace") if resource.namespaced else None
    assert resource in {TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME}
    return resource.kind, namespace, item["metadata"]["name"]


def _waits_for(job: Object, runtime: tuple[str, str | None, str], namespace: str) -> bool:
    """Whether a job refers to a runtime that it has not taken over yet."""
    reference = job["spec"].get("runtimeRef")
    if reference is None or job["status"].get("runtime") is not None:
        return False
    kind = reference.get("kind", CLUSTER_TRAINING_RUNTIME.kind)
    scope = namespace if kind == TRAINING_RUNTIME.kind else None
    return (kind, scope, reference["name"]) == runtime
