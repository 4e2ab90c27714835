"""Writes to the API server about one of our own objects: its status, its events, its end."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from headway_api import contract
from headway_operator.cluster.client import EVENT, ApiError, KubeClient, Object, Resource
from headway_operator.metrics import Metrics
from headway_operator.trainingjob.plan import Event
from headway_operator.trainingjob.times import timestamp

T = TypeVar("T")
COMPONENT = "headway-operator"
_EVENTS_REMEMBERED = 4096


@dataclass(frozen=True)
class Subject:
    """The object that is written about, at the version that the decision was made from."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    resource_version: str


class Writer:
    """Counts what is written, and writes what is the same for all of our kinds."""

    def __init__(self, client: KubeClient, metrics: Metrics, clock: Callable[[], datetime]) -> None:
        self._client = client
        self._metrics = metrics
        self._clock = clock
        self._posted: OrderedDict[str, None] = OrderedDict()

    async def write(self, verb: str, resource: Resource, call: Awaitable[T]) -> T:
        """Await a call and count it by its answer."""
        code = "200"
        try:
            return await call
        except ApiError as error:
            code = str(error.status)
            raise
        finally:
            self._metrics.api_writes.labels(verb, resource.plural, code).inc()

    async def status(self, subject: Subject, old: Object, new: Object) -> Object:
        """Write a status; the object as it is then.

        Raises:
            Conflict: the object has changed since it was read.
            NotFound: it is gone.
            ApiError: anything else the API server says.
        """
        body = {
            # The version makes a decision from a stale view fail, instead of counting twice.
            "metadata": {"uid": subject.uid, "resourceVersion": subject.resource_version},
            "status": merge_patch_between(old, new),
        }
        call = self._client.patch(
            subject.resource, subject.namespace, subject.name, body, subresource="status"
        )
        return await self.write("patch", subject.resource, call)

    async def post(self, subject: Subject, events: tuple[Event, ...]) -> None:
        """Post events, each once; an event that can't be posted is let go."""
        for event in events:
            body = _event_body(subject, event, timestamp(self._clock()))
            name = body["metadata"]["name"]
            if name in self._posted:
                continue
            self._posted[name] = None
            if len(self._posted) > _EVENTS_REMEMBERED:
                self._posted.popitem(last=False)
            try:
                call = self._client.create(EVENT, subject.namespace, body)
                await self.write("create", EVENT, call)
            except ApiError:  # counted by code; conditions tell the same
                continue


def merge_patch_between(old: Any, new: Any) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) that makes `new` of `old`; both are objects."""
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for name, value in new.items():
        before = old.get(name)
        if value == before and name in old:
            continue
        both = isinstance(value, dict) and isinstance(before, dict)
        patch[name] = merge_patch_between(before, value) if both else value
    return patch


def _event_body(subject: Subject, event: Event, now: str) -> Object:
    identity = f"{subject.uid}/{event.reason}/{event.count}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.name}.{digest}", "namespace": subject.namespace},
        "involvedObject": {
            "apiVersion": contract.API_VERSION,
            "kind": subject.resource.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "reportingInstance": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
