"""Records of ended runs, so that their TrainingJobs may go.

A SweepRecord `<sweep>-<n>` has an entry `<index>-<run>` for each run: writing one twice
changes nothing, and writers need not read before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from headway_api import contract
from headway_operator.cluster.client import Object
from headway_operator.resources import SWEEP, SWEEP_RECORD
from headway_operator.sweep.trial import Point
from headway_operator.sweep.value import Observed, observed
from headway_operator.sweep.view import RunJob, Sweep
from headway_operator.trainingjob.view import controller_uid

PER_RECORD: Final = 250
"""Configurations in one object. A run takes up to 3 KB, and an object has room for 1.5 MB."""
_FIELDS: Final = ("name", "uid", "phase", "reason", "stopped", "step", "checkpoint")


def record_name(sweep: str, index: int) -> str:
    """The object that has the record of a configuration."""
    return f"{sweep}-{index // PER_RECORD}"


def entry(job: RunJob) -> tuple[str, Object]:
    """Key and content of a run's record."""
    body = {
        **{name: getattr(job, name) for name in (*_FIELDS, "made", "ended", "message")},
        "params": dict(job.params),
        "attrs": dict(job.attrs),
        "pauseAt": job.pause_at,
        "observations": [_told(metric, job.observed[metric]) for metric in sorted(job.observed)],
    }
    return f"{job.index}-{job.number}", body


def record(sweep: Sweep, index: int, runs: Object) -> Object:
    """The object as it is made, for the configurations around an index."""
    return {
        "apiVersion": contract.API_VERSION,
        "kind": SWEEP_RECORD.kind,
        "metadata": {
            "name": record_name(sweep.name, index),
            "namespace": sweep.namespace,
            "labels": {contract.LABEL_SWEEP: sweep.name},
            "ownerReferences": [owner(sweep)],
        },
        "spec": {"runs": runs},
    }


def owner(sweep: Sweep) -> Object:
    """The owner reference of a sweep's children."""
    return {
        "apiVersion": contract.API_VERSION,
        "kind": SWEEP.kind,
        "name": sweep.name,
        "uid": sweep.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def parsed(item: Mapping[str, Any]) -> Iterator[RunJob]:
    """The runs that an object has records of; what is none is passed over."""
    for key, body in ((item.get("spec") or {}).get("runs") or {}).items():
        try:
            index, number = map(int, key.split("-"))
            yield RunJob(
                **{name: body[name] for name in _FIELDS},
                made=str(body.get("made") or ""),  # records of earlier versions lack these
                ended=str(body.get("ended") or ""),
                message=str(body.get("message") or ""),
                version=0,
                owner=controller_uid(item),
                index=index,
                number=number,
                params=dict(body["params"]),
                attrs=dict(body["attrs"]),
                pause_at=body.get("pauseAt"),
                observed=observed(body["observations"]),
            )
        except (KeyError, ValueError, TypeError):
            continue


def _told(metric: str, course: Observed) -> Object:
    """What `observed` reads again, and a TrainingJob's status has in the same form."""
    ends = {"last": course.last, "min": course.min, "max": course.max}
    return {
        "metric": metric,
        **{name: _point(point) for name, point in ends.items() if point is not None},
        "curve": [_point(point) for point in course.curve],
    }


def _point(point: Point) -> Object:
    return {"step": point.step, "value": repr(point.value)}
