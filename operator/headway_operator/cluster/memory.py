"""An API server in memory: for local mode, where it is the cluster, and for simulation.

Whatever it claims is checked against a real API server by `tests/api/test_conformance.py`. What it
does not claim: it serves any kind without a CRD and any namespace without creating it, needs no
service accounts, records no managed fields, and applies lists as a whole.

Deterministic: no clock and no randomness but what is passed in; timers are the event loop's.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TypeAlias

import orjson

from . import metadata as meta
from . import patching, pods
from .client import (
    POD,
    Listing,
    Object,
    Propagation,
    Resource,
    Subresource,
    WatchEvent,
    api_error,
)
from .history import Change, History, event_of
from .owners import Collection, Key, Owners, Place, disowned
from .selectors import matches

Admit: TypeAlias = Callable[[Resource, Object, Object | None], Object]
"""`(resource, new, old) -> object`: may default, prune or raise `Invalid`; `old` is `None` on
create. Must not change its arguments."""
Objects: TypeAlias = list[Object]
PodLogs: TypeAlias = Callable[[str, str, int | None], str]
"""`(namespace, name, tail_lines) -> log`."""


def _admit_all(_resource: Resource, new: Object, _old: Object | None) -> Object:
    return new


def _no_logs(_namespace: str, _name: str, _tail_lines: int | None) -> str:
    return ""


class MemoryCluster:
    """The `KubeClient` of a cluster that lives in this process.

    Args:
        clock: the time, for creation and deletion timestamps.
        new_uid: makes uids from the version of the write; the default is the same in every run.
        admit: validates and defaults each object before it is stored.
        pod_logs: where `pod_log` reads.
        window: changes of one kind that watches can go back.
        bookmark_seconds: pause between two bookmarks of a quiet watch.
        collect_seconds: from an owner's end to the deletion of its dependents; `None` leaves it
            to calls of `collect_garbage`.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        new_uid: Callable[[int], str] = meta.counted_uid,
        admit: Admit = _admit_all,
        pod_logs: PodLogs = _no_logs,
        window: int = 1000,
        bookmark_seconds: float = 60.0,
        collect_seconds: float | None = 0.0,
    ) -> None:
        self._clock = clock
        self._new_uid = new_uid
        self._admit = admit
        self._pod_logs = pod_logs
        self._window = window
        self._bookmark_seconds = bookmark_seconds
        self._collect_seconds = collect_seconds
        self._version = self._forgotten = 1
        self._resources: dict[Collection, Resource] = {}
        self._objects: dict[Collection, dict[Key, Object]] = {}
        self._histories: dict[Collection, History] = {}
        self._applied: dict[Place, dict[str, Object]] = {}
        self._owners = Owners()
        self._garbage: dict[Place, None] = {}

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """See `KubeClient.get`."""
        return self._find(resource, namespace, name)

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
    ) -> Listing:
        """See `KubeClient.list`."""
        self._check_reached(resource_version)
        found = self._matching(resource, namespace, label_selector)
        return Listing(found, str(self._version))

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        resource_version: str | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """See `KubeClient.watch`."""
        self._check_reached(resource_version)
        history = self._history(resource)
        start = seen = int(resource_version or 0) or self._version
        if resource_version in {None, "0"}:
            for item in self._matching(resource, namespace, label_selector):
                yield WatchEvent("ADDED", item)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_seconds if timeout_seconds is not None else float("inf")
        while True:
            changes = history.after(seen)
            for change in changes:
                event = event_of(change, namespace, label_selector)
                seen = change.version
                if event is not None:
                    yield event
            if changes:  # the reader may have caused more of them
                continue
            left = end - loop.time()
            if left <= 0:
                return
            quiet = not await history.changed(min(self._bookmark_seconds, left))
            if quiet and seen > start:
                yield WatchEvent("BOOKMARK", _bookmark(resource, seen))

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """See `KubeClient.create`."""
        return self._create(resource, namespace, _copied(body))

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        subresource: Subresource | None = None,
    ) -> Object:
        """See `KubeClient.patch`."""
        if subresource is not None and not resource.has_status:
            raise api_error(404, "NotFound", f"{resource.plural} have no {subresource} subresource")
        old = self._find(resource, namespace, name)
        change = _copied(body)
        meta.check_version(change, old)
        return self._update(resource, old, patching.merge_patch(old, change), subresource)

    async def apply(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        field_manager: str,
        force: bool = True,
    ) -> Object:
        """See `KubeClient.apply`."""
        desired = _copied(body)
        old = self._objects_of(resource).get((namespace, name))
        managers = self._applied.get((_collection(resource), (namespace, name)), {})
        others = [applied for manager, applied in managers.items() if manager != field_manager]
        if old is None:
            named = {**desired, "metadata": {**desired.get("metadata", {}), "name": name}}
            result = self._create(resource, namespace, named)
        else:
            meta.check_version(desired, old)
            clashes = [] if force else patching.conflicting_fields(_fields(desired), others)
            if clashes:
                raise meta.conflict(name, f"fields of another manager: {', '.join(clashes)}")
            last = managers.get(field_manager, {})
            new = patching.apply(old, applied=last, desired=desired, others=others)
            result = self._update(resource, old, new, None)
        place = (_collection(resource), (namespace, name))
        self._applied.setdefault(place, {})[field_manager] = _fields(desired)
        return result

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """See `KubeClient.delete`."""
        item = self._find(resource, namespace, name)
        meta.check_uid(uid, item)
        if propagation == "Orphan":
            self._orphan_dependents(item)
        self._delete(resource, item, grace_seconds)

    async def pod_log(self, namespace: str, name: str, *, tail_lines: int | None = None) -> str:
        """See `KubeClient.pod_log`; reads what `pod_logs` gives."""
        self._find(POD, namespace, name)
        return self._pod_logs(namespace, name, tail_lines)

    def bind(self, namespace: str, name: str, node: str) -> Object:
        """Put a pod on a node, as a scheduler does through the binding subresource.

        Raises:
            NotFound: there is no such pod.
            Conflict: it is on a node already.
        """
        pod = self._find(POD, namespace, name)
        if pod["spec"].get("nodeName"):
            raise meta.conflict(name, f"pod is already assigned to node {pod['spec']['nodeName']}")
        return self._commit(POD, pod, {**pod, "spec": {**pod["spec"], "nodeName": node}})

    def compact(self) -> None:
        """Forget all changes so far: watches from before answer 410."""
        self._forgotten = self._version
        for history in self._histories.values():
            history.compact(self._version)

    def collect_garbage(self) -> None:
        """Delete every object whose owners are all gone, and what that leaves behind."""
        while self._garbage:
            collection, key = place = next(iter(self._garbage))
            del self._garbage[place]
            item = self._objects[collection].get(key)
            absent = self._owners.absent(item) if item is not None else frozenset()
            if item is None or not absent:
                continue
            resource = self._resources[collection]
            left = disowned(item, absent)
            if left:
                self._commit(resource, item, meta.with_metadata(item, ownerReferences=left))
            else:
                self._delete(resource, item, None)

    def snapshot(self) -> Object:
        """The whole state as JSON values, for `load`."""
        return {
            "version": self._version,
            "collections": [
                {
                    "resource": asdict(self._resources[collection]),
                    "objects": list(objects.values()),
                }
                for collection, objects in self._objects.items()
            ],
            "applied": [
                {"collection": collection, "key": key, "managers": managers}
                for (collection, key), managers in self._applied.items()
            ],
        }

    def load(self, snapshot: Object) -> None:
        """Take over a state from `snapshot`; watches from before it answer 410.

        Raises:
            RuntimeError: this cluster has objects already.
        """
        if any(self._objects.values()):
            raise RuntimeError("load a snapshot into a new cluster: this one has objects already")
        state = _copied(snapshot)
        self._version = state["version"]
        for part in state["collections"]:
            resource = Resource(**part["resource"])
            for item in part["objects"]:
                self._objects_of(resource)[_key(item)] = item
                self._owners.update((_collection(resource), _key(item)), None, item)
        for entry in state["applied"]:
            group, plural = entry["collection"]
            namespace, name = entry["key"]
            self._applied[(group, plural), (namespace, name)] = entry["managers"]
        self.compact()
        for collection, objects in self._objects.items():
            for key, item in objects.items():
                self._add_if_garbage((collection, key), item)

    def _create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        if resource.namespaced is not (namespace is not None):
            raise api_error(405, "MethodNotAllowed", f"{resource.plural}: wrong scope")
        number = self._version + 1
        new = meta.stamped(
            body,
            resource,
            namespace,
            uid=self._new_uid(number),
            suffix=meta.name_suffix(number),
            now=self._clock(),
        )
        if resource.has_status:
            new.pop("status", None)
        if _collection(resource) == _collection(POD):
            new = pods.created(new)
        new = self._admit(resource, new, None)
        if _key(new) in self._objects_of(resource):
            name = new["metadata"]["name"]
            raise api_error(409, "AlreadyExists", f"{resource.plural} {name!r} already exists")
        return self._commit(resource, None, new)

    def _update(
        self, resource: Resource, old: Object, written: Object, subresource: Subresource | None
    ) -> Object:
        """Store what a patch or an apply made of an object; no write if nothing changed."""
        if subresource is not None:
            new = _with_status_of(old, written)
        else:
            new = meta.restored(written, old)
            if resource.has_status:
                new = _with_status_of(new, old)
        new = self._admit(resource, new, old)
        if _collection(resource) == _collection(POD):
            pods.check_spec(new, old)
        new = meta.regenerated(new, old)
        if _released(new):
            return self._remove(resource, new)
        return old if new == old else self._commit(resource, old, new)

    def _delete(self, resource: Resource, item: Object, requested: int | None) -> None:
        is_pod = _collection(resource) == _collection(POD)
        grace = pods.grace_period(item, requested) if is_pod else 0
        held = item["metadata"]
        if not is_pod and not held.get("finalizers"):
            self._remove(resource, item)
            return
        if "deletionTimestamp" not in held:
            marked = self._marked(item, self._clock() + timedelta(seconds=grace), grace)
        elif requested is not None and requested < held["deletionGracePeriodSeconds"]:
            first = datetime.fromisoformat(held["deletionTimestamp"])
            sooner = timedelta(seconds=requested - held["deletionGracePeriodSeconds"])
            marked = meta.with_metadata(
                item,
                deletionTimestamp=meta.timestamp(first + sooner),
                deletionGracePeriodSeconds=requested,
            )
        else:
            return
        marked = self._commit(resource, item, marked)
        if _released(marked):
            self._remove(resource, marked)

    def _marked(self, item: Object, moment: datetime, grace: int) -> Object:
        fields: dict[str, object] = {
            "deletionTimestamp": meta.timestamp(moment),
            "deletionGracePeriodSeconds": grace,
        }
        if "generation" in item["metadata"]:
            fields["generation"] = item["metadata"]["generation"] + 1
        return meta.with_metadata(item, **fields)

    def _remove(self, resource: Resource, item: Object) -> Object:
        collection, key = place = _collection(resource), _key(item)
        self._commit(resource, self._objects[collection][key], None)
        self._applied.pop(place, None)
        for dependent in self._owners.dependents(item["metadata"]["uid"]):
            self._add_garbage(dependent)
        return item

    def _commit(self, resource: Resource, old: Object | None, new: Object | None) -> Object:
        """Give a write its version, store it and tell everybody who watches."""
        self._version += 1
        last = new if new is not None else old
        assert last is not None
        place = _collection(resource), _key(last)
        objects, key = self._objects_of(resource), place[1]
        if new is None:
            del objects[key]
        else:
            new = meta.with_metadata(new, resourceVersion=str(self._version))
            objects[key] = new
        self._owners.update(place, old, new)
        self._history(resource).append(Change(self._version, key[0], old, new))
        if new is not None:
            self._add_if_garbage(place, new)
        return new if new is not None else last

    def _orphan_dependents(self, owner: Object) -> None:
        gone = frozenset({owner["metadata"]["uid"]})
        for collection, key in self._owners.dependents(owner["metadata"]["uid"]):
            item = self._objects[collection][key]
            left = disowned(item, gone)
            self._commit(
                self._resources[collection], item, meta.with_metadata(item, ownerReferences=left)
            )

    def _add_if_garbage(self, place: Place, item: Object) -> None:
        if "deletionTimestamp" not in item["metadata"] and self._owners.absent(item):
            self._add_garbage(place)

    def _add_garbage(self, place: Place) -> None:
        if not self._garbage and self._collect_seconds is not None:
            asyncio.get_running_loop().call_later(self._collect_seconds, self.collect_garbage)
        self._garbage[place] = None

    def _find(self, resource: Resource, namespace: str | None, name: str) -> Object:
        found = self._objects_of(resource).get((namespace, name))
        if found is None:
            raise api_error(404, "NotFound", f"{resource.plural} {name!r} not found")
        return found

    def _matching(self, resource: Resource, namespace: str | None, selector: str | None) -> Objects:
        return [
            item
            for key, item in sorted(self._objects_of(resource).items(), key=lambda pair: pair[0])
            if namespace in (None, key[0]) and matches(selector, item)
        ]

    def _objects_of(self, resource: Resource) -> dict[Key, Object]:
        collection = _collection(resource)
        if collection not in self._objects:
            self._objects[collection] = {}
            self._resources[collection] = resource
        return self._objects[collection]

    def _history(self, resource: Resource) -> History:
        collection = _collection(resource)
        if collection not in self._histories:
            self._histories[collection] = History(self._window, start=self._forgotten)
        return self._histories[collection]

    def _check_reached(self, resource_version: str | None) -> None:
        if int(resource_version or 0) > self._version:
            raise api_error(504, "Timeout", f"Too large resource version: {resource_version}")


def _copied(body: Object) -> Object:
    """The JSON that a real server would receive: shares nothing with the caller."""
    value: Object = orjson.loads(orjson.dumps(body))
    return value


def _collection(resource: Resource) -> Collection:
    return resource.group, resource.plural


def _key(item: Object) -> Key:
    return item["metadata"].get("namespace"), item["metadata"]["name"]


def _fields(applied: Object) -> Object:
    """The part of an applied object that its manager owns."""
    owned = {
        key: value for key, value in applied.items() if key not in {"apiVersion", "kind", "status"}
    }
    metadata = applied.get("metadata", {})
    owned["metadata"] = {key: metadata[key] for key in ("labels", "annotations") if key in metadata}
    return owned


def _with_status_of(item: Object, source: Object) -> Object:
    result = {key: value for key, value in item.items() if key != "status"}
    if "status" in source:
        result["status"] = source["status"]
    return result


def _released(item: Object) -> bool:
    """Whether nothing holds a deleted object any longer."""
    metadata = item["metadata"]
    return metadata.get("deletionGracePeriodSeconds") == 0 and not metadata.get("finalizers")


def _bookmark(resource: Resource, version: int) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"resourceVersion": str(version)},
    }
