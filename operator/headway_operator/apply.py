"""Carries out a plan: writes to the API server in the plan's order, answers into the cache."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from headway_api import contract
from headway_api.trainingjob import TrainingJobStatus
from headway_operator.cache import Cache, JobKey
from headway_operator.cluster.client import (
    EVENT,
    POD,
    SERVICE,
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    KubeClient,
    NotFound,
    Object,
    Resource,
)
from headway_operator.metrics import Metrics
from headway_operator.resources import TRAINING_JOB
from headway_operator.trainingjob.plan import Deletion, Event, Plan
from headway_operator.trainingjob.times import timestamp
from headway_operator.trainingjob.view import Job, Obstacle

T = TypeVar("T")
COMPONENT = "headway-operator"
_AT_ONCE = 8
"""Creations of one job in flight: a large group starts soon, and does not crowd out others."""
_EVENTS_REMEMBERED = 4096
_REFUSED = {400, 422}


class Blocked(Exception):  # noqa: N818 - it is an answer, not a fault
    """The API server does not let a child be made."""

    def __init__(self, obstacle: Obstacle, retry_after: float | None = None) -> None:
        super().__init__(obstacle.message)
        self.obstacle = obstacle
        self.retry_after = retry_after


class Applier:
    """Writes what plans say."""

    def __init__(
        self, client: KubeClient, cache: Cache, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._cache = cache
        self._metrics = metrics
        self._clock = clock
        self._posted: OrderedDict[str, None] = OrderedDict()

    async def apply(self, job: Job, plan: Plan, *, write_status: bool) -> None:
        """Carry out a plan, short of its events.

        Raises:
            Blocked: a child was refused or forbidden. What comes later in the plan is left out.
            Conflict: the job has changed since it was read: `refresh` and decide again.
            ApiError: anything else the API server says.
        """
        if plan.delete_job:
            await self._delete_job(job)
            return
        status = plan.status if write_status else None
        if status is not None and plan.status_first:
            await self._write_status(job, status)
        for deletion in plan.delete:
            await self._delete(job, deletion)
        await self._create_all(job, plan.create)
        if status is not None and not plan.status_first:
            await self._write_status(job, status)

    async def refresh(self, key: JobKey, uid: str) -> None:
        """Read a job anew after a conflict."""
        try:
            item = await self._client.get(TRAINING_JOB, *key)
        except NotFound:
            self._cache.forget_job(key, uid)
            return
        self._cache.put(TRAINING_JOB, item)

    async def verify(self, key: JobKey, *, older_than: float) -> None:
        """Ask for pods that we have made so many seconds ago and no watch has told of."""
        for pod in self._cache.unseen(key, older_than=older_than):
            try:
                item = await self._client.get(POD, key[0], pod.name)
            except NotFound:
                self._cache.forget_pod(key, pod.name, pod.uid)
                continue
            if item["metadata"]["uid"] != pod.uid:
                self._cache.forget_pod(key, pod.name, pod.uid)
            self._cache.put(POD, item)

    async def post(self, job: Job, events: tuple[Event, ...]) -> None:
        """Post events, each once; an event that can't be posted is let go."""
        for event in events:
            body = _event_body(job, event, timestamp(self._clock()))
            name = body["metadata"]["name"]
            if name in self._posted:
                continue
            self._posted[name] = None
            if len(self._posted) > _EVENTS_REMEMBERED:
                self._posted.popitem(last=False)
            try:
                await self._write("create", EVENT, self._client.create(EVENT, job.namespace, body))
            except ApiError:  # counted by code; conditions tell the same
                continue

    # --- children ----------------------------------------------------------------------------

    async def _create_all(self, job: Job, bodies: tuple[Object, ...]) -> None:
        for start in range(0, len(bodies), _AT_ONCE):
            batch = bodies[start : start + _AT_ONCE]
            # Each is awaited to its end: a creation cancelled half-way may still happen.
            results = await asyncio.gather(
                *(self._create(job, body) for body in batch), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    async def _create(self, job: Job, body: Object) -> None:
        resource = POD if body["kind"] == POD.kind else SERVICE
        name = body["metadata"]["name"]
        try:
            made = await self._write(
                "create", resource, self._client.create(resource, job.namespace, body)
            )
        except AlreadyExists:
            made = await self._existing(job, resource, name)
        except Forbidden as error:
            said = f"The API server does not allow {resource.kind} {name}: {error.message}"
            raise Blocked(Obstacle("Forbidden", said), error.retry_after) from error
        except ApiError as error:
            if error.status not in _REFUSED:
                raise
            said = f"The API server refused {resource.kind} {name}: {error.message}"
            raise Blocked(Obstacle("Refused", said)) from error
        if resource == POD:
            self._cache.put_made(made)

    async def _existing(self, job: Job, resource: Resource, name: str) -> Object:
        """The object that has the name of our child: ours, or a namesake's that is on its way out.

        Raises:
            Blocked: it is somebody else's.
            Conflict: it is gone again.
        """
        try:
            found = await self._client.get(resource, job.namespace, name)
        except NotFound as error:
            raise Conflict(409, "Conflict", f"{resource.kind} {name} came and went") from error
        labels = found["metadata"].get("labels") or {}
        if labels.get(contract.LABEL_JOB) == job.name:  # what our watch sees
            return found
        said = (
            f"{resource.kind} {name} exists already and belongs to something else: "
            "delete it, or create this job under another name."
        )
        raise Blocked(Obstacle("Refused", said))

    async def _delete(self, job: Job, deletion: Deletion) -> None:
        key, name, uid = (job.namespace, job.name), deletion.name, deletion.uid
        call = self._client.delete(
            POD, job.namespace, name, uid=uid, grace_seconds=deletion.grace_seconds
        )
        try:
            await self._write("delete", POD, call)
        except (NotFound, Conflict):  # gone; under its name there may be another
            self._cache.forget_pod(key, name, uid)
            return
        how = "forced" if deletion.grace_seconds == 0 else "asked"
        self._cache.mark_removal(key, name, uid, how)  # type: ignore[arg-type]

    # --- the job -----------------------------------------------------------------------------

    async def _write_status(self, job: Job, status: TrainingJobStatus) -> None:
        body = {
            # The version makes a decision from a stale view fail, instead of counting twice.
            "metadata": {"uid": job.uid, "resourceVersion": job.resource_version},
            "status": merge_patch_between(job.status.wire(), status.wire()),
        }
        call = self._client.patch(TRAINING_JOB, job.namespace, job.name, body, subresource="status")
        try:
            item = await self._write("patch", TRAINING_JOB, call)
        except NotFound:
            self._cache.forget_job((job.namespace, job.name), job.uid)
            raise
        self._cache.put(TRAINING_JOB, item)

    async def _delete_job(self, job: Job) -> None:
        call = self._client.delete(TRAINING_JOB, job.namespace, job.name, uid=job.uid)
        with suppress(NotFound, Conflict):  # somebody was faster
            await self._write("delete", TRAINING_JOB, call)
        self._cache.forget_job((job.namespace, job.name), job.uid)

    async def _write(self, verb: str, resource: Resource, call: Awaitable[T]) -> T:
        code = "200"
        try:
            return await call
        except ApiError as error:
            code = str(error.status)
            raise
        finally:
            self._metrics.api_writes.labels(verb, resource.plural, code).inc()


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


def retry_after(error: BaseException) -> float | None:
    """Seconds that the API server asked us to wait."""
    return error.retry_after if isinstance(error, ApiError | Blocked) else None


def _event_body(job: Job, event: Event, now: str) -> Object:
    identity = f"{job.uid}/{event.reason}/{event.count}"
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{job.name}.{digest}", "namespace": job.namespace},
        "involvedObject": {
            "apiVersion": contract.API_VERSION,
            "kind": TRAINING_JOB.kind,
            "namespace": job.namespace,
            "name": job.name,
            "uid": job.uid,
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
