"""`headway sweep run` as a user runs it, and the trials that it makes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from local_runs import Job

from headway_api import contract


@dataclass
class SweepRun(Job):
    """A Sweep's manifest in a folder, and the `headway sweep run` processes that work on it."""

    verb: tuple[str, ...] = ("sweep", "run")

    def trials(self) -> list[dict[str, Any]]:
        """The TrainingJobs as they were saved last, by index and run."""
        found = self.objects("TrainingJob")
        return sorted(found, key=lambda job: (index_of(job), int(labels(job)[contract.LABEL_RUN])))

    def objects(self, kind: str) -> list[dict[str, Any]]:
        """Objects of a kind as they were saved last."""
        file = self.folder / "state/cluster.json"
        collections = json.loads(file.read_text())["collections"] if file.exists() else []
        return [
            item
            for each in collections
            if each["resource"]["kind"] == kind
            for item in each["objects"]
        ]

    def pods_of(self, trial: Mapping[str, Any]) -> int:
        """How many pods a trial's worker 0 has had."""
        folder = self.folder / "state/pods" / f"{trial['metadata']['name']}-0"
        return len(list(folder.glob("*")))


def a_sweep(
    command: Sequence[str], *, template: Mapping[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A Sweep called `s` over a learning rate, by random search unless told otherwise."""
    job = {"command": list(command), "workers": {"replicas": 1}, **(template or {})}
    return {
        "apiVersion": contract.API_VERSION,
        "kind": "Sweep",
        "metadata": {"name": "s"},
        "spec": {
            "parameters": [{"name": "lr", "float": {"min": 0.001, "max": 0.5, "log": True}}],
            "objectives": [{"metric": "val_accuracy", "direction": "Maximize"}],
            "algorithm": {"name": "random"},
            "seed": 1,
            "maxTrials": 4,
            "parallelTrials": 2,
            "template": {"spec": job},
            **spec,
        },
    }


def labels(job: Mapping[str, Any]) -> dict[str, str]:
    """Labels of a trial's TrainingJob."""
    found: dict[str, str] = job["metadata"]["labels"]
    return found


def index_of(job: Mapping[str, Any]) -> int:
    """A trial's number."""
    return int(labels(job)[contract.LABEL_TRIAL])


def told(job: Mapping[str, Any]) -> dict[str, Any]:
    """What its record says of a trial: `params` and `attrs`."""
    found: dict[str, Any] = json.loads(job["metadata"]["annotations"][contract.ANNOTATION_TRIAL])
    return found


def stopped(job: Mapping[str, Any]) -> str:
    """Why a rule has stopped a trial; empty if none has."""
    found: str = job["metadata"]["annotations"].get(contract.ANNOTATION_STOPPED, "")
    return found


def states(sweep: Mapping[str, Any]) -> dict[int, str]:
    """States of the trials by index, as the sweep's status has them."""
    return {trial["index"]: trial["state"] for trial in sweep["status"]["trials"]}
