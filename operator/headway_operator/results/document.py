"""Results as plain data: a document for programs, and a table with a line for each trial."""

from __future__ import annotations

import csv
import io
import math

from headway_operator.cluster.client import Object
from headway_operator.results.findings import Findings, Result
from headway_operator.sweep.space import text
from headway_operator.trainingjob.times import timestamp


def document(found: Findings, *, points: bool = False) -> Object:
    """Everything as JSON values.

    Args:
        found: the sweep.
        points: whether the course of each objective is wanted, too.

    Returns:
        Values that are no numbers are the strings `inf`, `-inf` and `nan`: JSON has none of them.
    """
    status, best = found.sweep.status, found.best
    return {
        "name": found.sweep.name,
        "namespace": found.sweep.namespace,
        "uid": found.sweep.uid,
        "phase": found.phase,
        "reason": status.reason,
        "message": status.message,
        "objectives": [
            {"metric": each.metric, "direction": each.direction, "take": each.take}
            for each in found.spec.objectives
        ],
        "counts": found.situation.counts.model_dump(),
        "maxTrials": found.spec.max_trials,
        "steps": found.steps,
        "activeSeconds": int(found.situation.active_seconds),
        "best": None if best is None else best.index,
        "paretoFront": [each.index for each in found.front],
        "trials": [_trial(found, each, points=points) for each in found.results],
    }


def _trial(found: Findings, result: Result, *, points: bool) -> Object:
    told: Object = {
        "index": result.index,
        "state": result.state,
        "values": None if result.values is None else [_json(value) for value in result.values],
        "step": result.trial.step,
        "parameters": dict(result.params),
        "job": result.name,
        "checkpoint": result.checkpoint or None,
        "why": result.why or None,
        "started": None if result.started is None else timestamp(result.started),
        "ended": None if result.ended is None else timestamp(result.ended),
    }
    if points:
        told["points"] = {
            each.metric: [[p.step, _json(p.value)] for p in result.course(each.metric)]
            for each in found.spec.objectives
        }
    return told


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def table(found: Findings) -> str:
    """CSV with a line for each trial; the columns depend on the sweep's spec alone."""
    names = [each.name for each in found.spec.parameters]
    metrics = [each.metric for each in found.spec.objectives]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *("trial", "state", "step"),
            *(f"value_{metric}" for metric in metrics),
            *(f"param_{name}" for name in names),
            *("job", "checkpoint", "started", "ended", "why"),
        ]
    )
    for each in found.results:
        values = each.values or [None] * len(metrics)
        writer.writerow(
            [
                *(each.index, each.state, each.trial.step),
                *("" if value is None else repr(value) for value in values),
                *(text(each.params[name]) if name in each.params else "" for name in names),
                *(each.name, each.checkpoint),
                *("" if time is None else timestamp(time) for time in (each.started, each.ended)),
                each.why,
            ]
        )
    return out.getvalue()
