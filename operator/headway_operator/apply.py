"""Carries out a plan: writes to the API server in the plan's order, answers into the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from headway_api import contract
from headway_api.trainingjob import TrainingJobStatus
from headway_operator.cache import Cache, JobKey
from headway_operator.cluster.client import (
    POD,
    PRIORITY_CLASS,
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
from headway_operator.resources import TRAINING_JOB, WORKLOAD
from headway_operator.trainingjob.plan import Deletion, Event, Plan, QueueStep
from headway_operator.trainingjob.view import Job, Obstacle
from headway_operator.writes import Subject, Writer

_AT_ONCE = 8
"""Creations of one job in flight: a large group starts soon, and does not crowd out others."""
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
        self._writer = Writer(client, metrics, clock)

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
        if plan.queue is not None and plan.queue.verb == "make":
            await self._ask(job, plan.queue)  # before the status says that it waits
        if status is not None and plan.status_first:
            await self._write_status(job, status)
        for deletion in plan.delete:
            await self._delete(job, deletion)
        await self._create_all(job, plan.create)
        if status is not None and not plan.status_first:
            await self._write_status(job, status)
        if plan.queue is not None and plan.queue.verb != "make":
            await self._queue(job, plan.queue)

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
        await self._writer.post(_subject(job), events)

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
            made = await self._writer.write(
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
            await self._writer.write("delete", POD, call)
        except (NotFound, Conflict):  # gone; under its name there may be another
            self._cache.forget_pod(key, name, uid)
            return
        how = "forced" if deletion.grace_seconds == 0 else "asked"
        self._cache.mark_removal(key, name, uid, how)  # type: ignore[arg-type]

    # --- Kueue -------------------------------------------------------------------------------

    async def _queue(self, job: Job, step: QueueStep) -> None:
        """Write to the job's Workload. One that is gone is made anew at the next look."""
        key = (job.namespace, job.name)
        try:
            if step.verb == "drop":
                call = self._client.delete(WORKLOAD, job.namespace, step.name, uid=step.uid)
                await self._writer.write("delete", WORKLOAD, call)
                self._cache.forget_workload(key, step.uid)
                return
            told = self._client.patch(
                WORKLOAD, job.namespace, step.name, step.body or {}, subresource="status"
            )
            item = await self._writer.write("patch", WORKLOAD, told)
        except NotFound:
            self._cache.forget_workload(key, step.uid)
            return
        except Conflict:  # Kueue was faster: its word comes by the watch
            return
        self._cache.put(WORKLOAD, item)

    async def _ask(self, job: Job, step: QueueStep) -> None:
        assert step.body is not None
        try:
            body = await self._with_priority(step.body)
            call = self._client.create(WORKLOAD, job.namespace, body)
            made = await self._writer.write("create", WORKLOAD, call)
        except AlreadyExists:
            made = await self._existing(job, WORKLOAD, step.name)
        except NotFound as error:
            said = (
                "scheduling.queueName is set, but there is no Kueue here (kueue.x-k8s.io/v1beta2): "
                "install it, or remove queueName."
            )
            raise Blocked(Obstacle("Forbidden", said), error.retry_after) from error
        except Forbidden as error:
            said = f"The API server does not allow Workload {step.name}: {error.message}"
            raise Blocked(Obstacle("Forbidden", said), error.retry_after) from error
        except ApiError as error:
            if error.status not in _REFUSED:
                raise
            said = f"The API server refused Workload {step.name}: {error.message}"
            raise Blocked(Obstacle("Refused", said)) from error
        self._cache.put(WORKLOAD, made)

    async def _with_priority(self, body: Object) -> Object:
        """A Workload with the number that its priority class stands for: Kueue wants both.

        Raises:
            Blocked: there is no such class.
        """
        reference = body["spec"].get("priorityClassRef")
        if reference is None:
            return body
        try:
            found = await self._client.get(PRIORITY_CLASS, None, reference["name"])
        except NotFound:
            said = (
                f"There is no PriorityClass {reference['name']}: create it, or change "
                "scheduling.priorityClassName."
            )
            raise Blocked(Obstacle("Forbidden", said)) from None
        return {**body, "spec": {**body["spec"], "priority": found.get("value", 0)}}

    # --- the job -----------------------------------------------------------------------------

    async def _write_status(self, job: Job, status: TrainingJobStatus) -> None:
        try:
            item = await self._writer.status(_subject(job), job.status.wire(), status.wire())
        except NotFound:
            self._cache.forget_job((job.namespace, job.name), job.uid)
            raise
        self._cache.put(TRAINING_JOB, item)

    async def _delete_job(self, job: Job) -> None:
        call = self._client.delete(TRAINING_JOB, job.namespace, job.name, uid=job.uid)
        with suppress(NotFound, Conflict):  # somebody was faster
            await self._writer.write("delete", TRAINING_JOB, call)
        self._cache.forget_job((job.namespace, job.name), job.uid)


def _subject(job: Job) -> Subject:
    return Subject(TRAINING_JOB, job.namespace, job.name, job.uid, job.resource_version)


def retry_after(error: BaseException) -> float | None:
    """Seconds that the API server asked us to wait."""
    return error.retry_after if isinstance(error, ApiError | Blocked) else None
