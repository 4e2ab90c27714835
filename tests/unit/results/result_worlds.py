"""Sweeps as a cluster has them when they have trained: objects for the tests of results."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headway_api import contract
from headway_operator.results.findings import Findings, findings
from headway_operator.sweep import records
from headway_operator.sweep.view import parse_run, parse_sweep
from headway_operator.trainingjob.times import timestamp

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BEGAN = NOW - timedelta(hours=2)
PARAMETERS = [
    {"name": "lr", "float": {"min": 1e-4, "max": 0.1, "log": True}},
    {"name": "optimizer", "choice": ["adam", "sgd"]},
    {
        "name": "momentum",
        "float": {"min": 0.0, "max": 0.9, "step": 0.1},
        "when": {"parameter": "optimizer", "values": ["sgd"]},
    },
    {"name": "layers", "int": {"min": 1, "max": 4}},
    {"name": "epochs", "choice": [20]},
]


def a_sweep(name: str = "digits", uid: str = "u-1", **spec: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "parameters": PARAMETERS,
        "objectives": [{"metric": "loss"}],
        "maxTrials": 10,
        "parallelTrials": 2,
        "template": {
            "spec": {
                "image": "trainer:1",
                "command": ["python", "train.py", "--lr=${params.lr}"],
                "storage": {"uri": "s3://bucket/jobs"},
            }
        },
        **spec,
    }
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "Sweep",
        "metadata": {
            "namespace": "lab",
            "name": name,
            "uid": uid,
            "resourceVersion": "7",
            "creationTimestamp": timestamp(BEGAN),
        },
        "spec": body,
        "status": {"phase": "Running", "startTime": timestamp(BEGAN)},
    }


def a_job(
    sweep: Mapping[str, Any],
    index: int,
    params: Mapping[str, Any],
    points: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    *,
    run: int = 0,
    phase: str = "Succeeded",
    stopped: str = "",
    attrs: Mapping[str, Any] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A trial's TrainingJob; `points` are its reports by metric."""
    meta = sweep["metadata"]
    name = contract.trial_name(meta["name"], index, run)
    began = BEGAN + timedelta(minutes=index % 60)
    last = max((step for course in (points or {}).values() for step, _ in course), default=0)
    notes = {contract.ANNOTATION_TRIAL: json.dumps({"params": params, "attrs": attrs or {}})}
    if stopped:
        notes[contract.ANNOTATION_STOPPED] = stopped
    ends = {"completionTime": timestamp(began + timedelta(minutes=5))}
    rests = {
        "conditions": [
            {
                "type": "Suspended",
                "status": "True",
                "lastTransitionTime": timestamp(began + timedelta(minutes=4)),
            }
        ]
    }
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "TrainingJob",
        "metadata": {
            "namespace": meta["namespace"],
            "name": name,
            "uid": f"{meta['uid']}-{index}-{run}",
            "resourceVersion": str(100 + index),
            "creationTimestamp": timestamp(began),
            "labels": {
                contract.LABEL_SWEEP: meta["name"],
                contract.LABEL_TRIAL: str(index),
                contract.LABEL_RUN: str(run),
            },
            "annotations": notes,
            "ownerReferences": [{"uid": meta["uid"], "controller": True}],
        },
        "spec": {},
        "status": {
            "phase": phase,
            "progress": {"step": last},
            "observations": [observation(metric, each) for metric, each in (points or {}).items()],
            **({"checkpoint": {"uri": f"s3://bucket/jobs/{name}/{last}"}} if last else {}),
            **(ends if phase in {"Succeeded", "Failed"} else {}),
            **(rests if phase == "Suspended" else {}),
            **status,
        },
    }


def observation(metric: str, points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    told = [{"step": step, "value": repr(value)} for step, value in points]
    numbers = sorted(
        (point for point in told if point["value"] != "nan"), key=lambda p: float(str(p["value"]))
    )
    ends = {"min": numbers[0], "max": numbers[-1]} if numbers else {}
    return {"metric": metric, "last": told[-1], "curve": told, **ends}


def a_record(
    sweep: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], number: int = 0
) -> dict[str, Any]:
    """The SweepRecord that is left of some jobs."""
    runs = [run for job in jobs if (run := parse_run(job)) is not None]
    body = records.record(parse_sweep(sweep), 0, dict(records.entry(run) for run in runs))
    name = f"{sweep['metadata']['name']}-{number}"
    extra = {"name": name, "uid": f"r-{number}", "resourceVersion": "9"}
    return {**body, "metadata": {**body["metadata"], **extra}}


def of_an_earlier_version(record: dict[str, Any]) -> dict[str, Any]:
    """The record as 0.1.0's first builds wrote it."""
    runs = record["spec"]["runs"]
    lean = {
        key: {
            name: value for name, value in run.items() if name not in {"made", "ended", "message"}
        }
        for key, run in runs.items()
    }
    return {**record, "spec": {"runs": lean}}


def course(last: float, steps: int = 30, points: int = 6) -> list[tuple[int, float]]:
    """Reports that fall to a value."""
    every = range(steps // points, steps + 1, steps // points)
    return [(step, last + 1.0 - step / steps) for step in every]


def loss(params: Mapping[str, Any]) -> float:
    found = (math.log10(params["lr"]) + 2.0) ** 2 + 0.1 * params["layers"]
    return found + (0.3 if params["optimizer"] == "adam" else params["momentum"])


def drawn(rng: random.Random) -> dict[str, Any]:
    params: dict[str, Any] = {
        "lr": 10 ** rng.uniform(-4, -1),
        "optimizer": rng.choice(["adam", "sgd"]),
        "layers": rng.randint(1, 4),
        "epochs": 20,
    }
    if params["optimizer"] == "sgd":
        params["momentum"] = rng.randint(0, 9) / 10
    return params


def trained(sweep: Mapping[str, Any], count: int, *, points: int = 6) -> list[dict[str, Any]]:
    """Jobs of a sweep over `PARAMETERS`: every fifth was stopped, every seventh has failed."""
    rng = random.Random(7)
    jobs = []
    for index in range(count):
        params = drawn(rng)
        reports = {
            objective["metric"]: course(loss(params) * (1 + place), 30 * points, points)
            for place, objective in enumerate(sweep["spec"]["objectives"])
        }
        if index % 7 == 6:
            jobs.append(a_job(sweep, index, params, phase="Failed", message="exit code 1: no GPU"))
        elif index % 5 == 4:
            half = {metric: each[: points // 2] for metric, each in reports.items()}
            why = "it is not among the best of its rung"
            jobs.append(a_job(sweep, index, params, half, phase="Suspended", stopped=why))
        else:
            jobs.append(a_job(sweep, index, params, reports))
    return jobs


def found(sweep: Mapping[str, Any], *items: Mapping[str, Any]) -> Findings:
    return findings([dict(sweep), *map(dict, items)], sweep["metadata"]["name"], NOW)


def written(folder: Path, *items: Mapping[str, Any]) -> Path:
    """A file as `kubectl get -o json` writes it."""
    file = folder / "objects.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    return file
