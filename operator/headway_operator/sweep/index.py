"""The sweeps that there are, with their trials' TrainingJobs and their records.

Fed by the same watches as the cache of jobs, and by the answers to our own writes, in any order:
of two states of one object the newer stays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headway_api import contract
from headway_operator.cluster.client import Object, Resource
from headway_operator.loop import Key
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.sweep import records, warmstart
from headway_operator.sweep.trial import Trial
from headway_operator.sweep.view import RunJob, parse_run
from headway_operator.trainingjob.view import controller_uid

_TOMBSTONES = 4096
"""Deleted objects remembered, so that a late answer to a write does not bring one back."""


class Index:
    """What exists, by sweep."""

    def __init__(self) -> None:
        self._sweeps: dict[Key, Object] = {}
        self._jobs: dict[Key, dict[str, RunJob]] = {}
        self._records: dict[Key, dict[str, tuple[int, tuple[RunJob, ...]]]] = {}
        self._warm: dict[Key, tuple[str, tuple[Trial, ...]]] = {}
        self._buried: OrderedDict[str, None] = OrderedDict()

    def sweep(self, key: Key) -> Object | None:
        """A sweep as the API server has it."""
        return self._sweeps.get(key)

    def jobs(self, key: Key) -> tuple[RunJob, ...]:
        """The runs labelled with a sweep's name; those of an earlier namesake, too."""
        held = self._jobs.get(key, {}).values()
        return tuple(sorted(held, key=lambda job: (job.index, job.number)))

    def records(self, key: Key) -> tuple[RunJob, ...]:
        """The runs that are recorded; those of an earlier namesake, too."""
        return tuple(run for _, runs in self._records.get(key, {}).values() for run in runs)

    def warm(self, key: Key, uid: str) -> tuple[Trial, ...] | None:
        """What the sweep of this UID has taken over from others; None if it has not yet."""
        owner, trials = self._warm.get(key, ("", ()))
        return trials if owner == uid else None

    def put(self, resource: Resource, item: Object) -> Key | None:
        """Take in an object's state; the sweep that it matters to, None if it was known."""
        key = _sweep_of(resource, item)
        if key is None or item["metadata"]["uid"] in self._buried:
            return None
        if resource == SWEEP:
            new = self._put_sweep(key, item)
        elif resource == SWEEP_RECORD:
            new = self._put_record(key, item)
        else:
            new = self._put_job(key, item)
        return key if new else None

    def _put_sweep(self, key: Key, item: Object) -> bool:
        known = self._sweeps.get(key)
        if known is not None and _version(known) >= _version(item):
            return False
        self._sweeps[key] = item
        return True

    def _put_record(self, key: Key, item: Object) -> bool:
        kept, name = self._records.setdefault(key, {}), item["metadata"]["name"]
        if name == warmstart.record_name(key[1]):
            self._warm[key] = (controller_uid(item), warmstart.parsed(item))
            return True
        if name in kept and kept[name][0] >= _version(item):
            return False
        kept[name] = (_version(item), tuple(records.parsed(item)))
        return True

    def _put_job(self, key: Key, item: Object) -> bool:
        run, jobs = parse_run(item), self._jobs.setdefault(key, {})
        if run is None:
            return False
        known = jobs.get(run.name)
        if known is not None and known.version >= run.version:
            return False
        jobs[run.name] = run
        # What nobody here reads is no news.
        return known is None or replace(known, version=run.version) != run

    def remove(self, resource: Resource, item: Object) -> Key | None:
        """Forget an object that is gone; the sweep that it mattered to.

        Metadata is enough, and labels may be missing in it: names tell as well.
        """
        metadata = item["metadata"]
        self._buried[metadata["uid"]] = None
        if len(self._buried) > _TOMBSTONES:
            self._buried.popitem(last=False)
        place = (metadata["namespace"], metadata["name"])
        if resource == SWEEP:
            known = self._sweeps.get(place)
            if known is None or known["metadata"]["uid"] != metadata["uid"]:
                return None
            del self._sweeps[place]
            return place
        return self._forget(resource, place, metadata["uid"])

    def _forget(self, resource: Resource, place: Key, uid: str) -> Key | None:
        namespace, name = place
        if resource == TRAINING_JOB:
            for key, jobs in self._jobs.items():
                if key[0] == namespace and name in jobs and jobs[name].uid == uid:
                    del jobs[name]
                    return key
        if resource == SWEEP_RECORD:
            for key, kept in self._records.items():
                if name == warmstart.record_name(key[1]) and key[0] == namespace:
                    return key if self._warm.pop(key, None) else None
                if key[0] == namespace and name in kept:
                    del kept[name]
                    return key
        return None


def _version(item: Mapping[str, Any]) -> int:
    return int(item["metadata"]["resourceVersion"])


def _sweep_of(resource: Resource, item: Mapping[str, Any]) -> Key | None:
    metadata = item["metadata"]
    if resource == SWEEP:
        return metadata["namespace"], metadata["name"]
    name = (metadata.get("labels") or {}).get(contract.LABEL_SWEEP)
    return None if not name else (metadata["namespace"], name)
