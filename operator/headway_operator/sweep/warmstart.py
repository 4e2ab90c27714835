"""What other sweeps have found out: read once, and kept, so that every trial is chosen by it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from headway_api import contract
from headway_operator.cluster.client import Object
from headway_operator.resources import SWEEP_RECORD
from headway_operator.sweep.records import owner
from headway_operator.sweep.trial import Trial
from headway_operator.sweep.trials import runs_of
from headway_operator.sweep.view import Sweep, View

_PREFIX = "warm-"
_MOST = 2000
"""Trials that are taken over, the newest of each sweep first: an object has room for so many."""


def record_name(sweep: str) -> str:
    """The object that keeps what was taken over."""
    return f"{sweep}-warm"


def found(sweep: Sweep, others: Iterable[View]) -> list[Trial]:
    """The trials of other sweeps that have a value for each objective of this one."""
    trials: list[Trial] = []
    for other in others:
        spec = other.sweep.spec.model_copy(update={"objectives": sweep.spec.objectives})
        seen = replace(other, sweep=replace(other.sweep, spec=spec))
        trials += [
            each.trial
            for each in runs_of(seen)
            if each.trial.state in {"Complete", "Stopped"} and each.trial.values is not None
        ]
    return [replace(trial, index=place) for place, trial in enumerate(trials[-_MOST:])]


def record(sweep: Sweep, trials: Iterable[Trial]) -> Object:
    """The object that keeps them."""
    runs = {
        f"{_PREFIX}{trial.index}": {
            "params": dict(trial.params),
            "values": [repr(value) for value in trial.values or ()],
        }
        for trial in trials
    }
    return {
        "apiVersion": contract.API_VERSION,
        "kind": SWEEP_RECORD.kind,
        "metadata": {
            "name": record_name(sweep.name),
            "namespace": sweep.namespace,
            "labels": {contract.LABEL_SWEEP: sweep.name},
            "ownerReferences": [owner(sweep)],
        },
        "spec": {"runs": runs},
    }


def parsed(item: Mapping[str, Any]) -> tuple[Trial, ...]:
    """The trials that such an object keeps, by their place."""
    trials = []
    for key, body in ((item.get("spec") or {}).get("runs") or {}).items():
        try:
            index = int(key.removeprefix(_PREFIX))
            values = tuple(float(value) for value in body["values"])
            trials.append(Trial(index, dict(body["params"]), "Complete", values))
        except (KeyError, ValueError, TypeError):
            continue
    return tuple(sorted(trials, key=lambda trial: trial.index))
