"""Carries out a sweep's plan: writes to the API server, answers into the index."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import groupby
from typing import Any

from headway_api import contract
from headway_operator.apply import Blocked
from headway_operator.cluster.client import (
    AlreadyExists,
    ApiError,
    Conflict,
    Forbidden,
    KubeClient,
    NotFound,
    Object,
)
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.sweep import records
from headway_operator.sweep.index import Index
from headway_operator.sweep.plan import Patch, Plan
from headway_operator.sweep.view import RunJob, Sweep
from headway_operator.trainingjob.view import Obstacle, controller_uid
from headway_operator.writes import Subject, Writer

_REFUSED = {400, 422}


class Applier:
    """Writes what plans say."""

    def __init__(self, client: KubeClient, index: Index, writer: Writer) -> None:
        self._client = client
        self._index = index
        self._writer = writer

    async def trials(self, sweep: Sweep, plan: Plan) -> None:
        """Change, record, delete and make TrainingJobs, short of those that are to be chosen.

        Raises:
            Blocked: the API server does not let a trial be made.
            ApiError: anything else it says.
        """
        for patch in plan.patch:
            await self._patch(sweep, patch)
        await self.record(sweep, plan.record)
        for job in plan.delete:
            await self._delete(sweep, job)
        for body in plan.create:
            await self.create(sweep, body)

    async def create(self, sweep: Sweep, body: Object) -> None:
        """Make a trial's TrainingJob; that it exists already is the normal answer after a crash.

        Raises:
            Blocked: the API server refuses it, or its name belongs to something else.
            ApiError: anything else it says.
        """
        name = body["metadata"]["name"]
        call = self._client.create(TRAINING_JOB, sweep.namespace, body)
        try:
            made = await self._writer.write("create", TRAINING_JOB, call)
        except AlreadyExists:
            made = await self._existing(sweep, name)
        except Forbidden as error:
            said = f"The API server does not allow TrainingJob {name}: {error.message}"
            raise Blocked(Obstacle("Forbidden", said), error.retry_after) from error
        except ApiError as error:
            if error.status not in _REFUSED:
                raise
            said = f"The API server refused TrainingJob {name}: {error.message}"
            raise Blocked(Obstacle("Refused", said)) from error
        self._index.put(TRAINING_JOB, made)

    async def status(self, sweep: Sweep, plan: Plan) -> None:
        """Write the plan's status, if it has one."""
        if plan.status is None:
            return
        subject = subject_of(sweep)
        item = await self._writer.status(subject, sweep.status.wire(), plan.status.wire())
        self._index.put(SWEEP, item)

    async def refresh(self, sweep: Sweep) -> None:
        """Read a sweep anew after a conflict."""
        try:
            item = await self._client.get(SWEEP, sweep.namespace, sweep.name)
        except NotFound:
            place = {"namespace": sweep.namespace, "name": sweep.name, "uid": sweep.uid}
            self._index.remove(SWEEP, {"metadata": place})
            return
        self._index.put(SWEEP, item)

    async def delete_sweep(self, sweep: Sweep) -> None:
        """Delete a sweep whose time to live is over; its trials go with it."""
        call = self._client.delete(SWEEP, sweep.namespace, sweep.name, uid=sweep.uid)
        with suppress(NotFound, Conflict):  # somebody was faster
            await self._writer.write("delete", SWEEP, call)

    async def _existing(self, sweep: Sweep, name: str) -> Object:
        try:
            found = await self._client.get(TRAINING_JOB, sweep.namespace, name)
        except NotFound as error:
            raise Conflict(409, "Conflict", f"TrainingJob {name} came and went") from error
        labels = found["metadata"].get("labels") or {}
        if labels.get(contract.LABEL_SWEEP) != sweep.name:
            said = (
                f"TrainingJob {name} exists already and is no trial of this sweep: delete it, or "
                "create this sweep under another name."
            )
            raise Blocked(Obstacle("Forbidden", said))
        if controller_uid(found) != sweep.uid:  # a namesake's, which is on its way out
            said = f"TrainingJob {name} is left from an earlier sweep of this name."
            raise Blocked(Obstacle("Forbidden", said))
        return found

    async def _patch(self, sweep: Sweep, patch: Patch) -> None:
        metadata = {**patch.body.get("metadata", {}), "uid": patch.uid}
        body: dict[str, Any] = {**patch.body, "metadata": metadata}
        call = self._client.patch(TRAINING_JOB, sweep.namespace, patch.name, body)
        try:
            item = await self._writer.write("patch", TRAINING_JOB, call)
        except (NotFound, Conflict):  # gone; under its name there may be another
            self._forget(sweep, patch.name, patch.uid)
            return
        self._index.put(TRAINING_JOB, item)

    async def record(self, sweep: Sweep, jobs: Iterable[RunJob]) -> None:
        """Write the records of runs, all of them or again."""

        def name_of(job: RunJob) -> str:
            return records.record_name(sweep.name, job.index)

        for name, group in groupby(jobs, key=name_of):
            done = list(group)
            runs = dict(records.entry(job) for job in done)
            body = {"spec": {"runs": runs}}
            call = self._client.patch(SWEEP_RECORD, sweep.namespace, name, body)
            try:
                item = await self._writer.write("patch", SWEEP_RECORD, call)
            except NotFound:
                whole = records.record(sweep, done[0].index, runs)
                making = self._client.create(SWEEP_RECORD, sweep.namespace, whole)
                item = await self._writer.write("create", SWEEP_RECORD, making)
            self._index.put(SWEEP_RECORD, item)

    async def keep(self, sweep: Sweep, record: Object) -> None:
        """Make a SweepRecord that is written once; one that is there already stays as it is."""
        making = self._client.create(SWEEP_RECORD, sweep.namespace, record)
        try:
            item = await self._writer.write("create", SWEEP_RECORD, making)
        except AlreadyExists:
            name = record["metadata"]["name"]
            item = await self._client.get(SWEEP_RECORD, sweep.namespace, name)
        self._index.put(SWEEP_RECORD, item)

    async def _delete(self, sweep: Sweep, job: RunJob) -> None:
        call = self._client.delete(TRAINING_JOB, sweep.namespace, job.name, uid=job.uid)
        with suppress(NotFound, Conflict):
            await self._writer.write("delete", TRAINING_JOB, call)
        self._forget(sweep, job.name, job.uid)

    def _forget(self, sweep: Sweep, name: str, uid: str) -> None:
        place = {"namespace": sweep.namespace, "name": name, "uid": uid}
        self._index.remove(TRAINING_JOB, {"metadata": place})


def subject_of(sweep: Sweep) -> Subject:
    """The sweep as writes are about it."""
    return Subject(SWEEP, sweep.namespace, sweep.name, sweep.uid, sweep.resource_version)
