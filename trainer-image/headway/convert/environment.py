"""Environment variables of the trainer container."""

from __future__ import annotations

import re
from typing import Any

from headway.convert.fields import Fields
from headway.convert.job import Job

_RANKS = re.compile(
    r"(MASTER_(ADDR|PORT)|(LOCAL_|GROUP_|ROLE_)?RANK|(LOCAL_|ROLE_|GROUP_)?WORLD_SIZE"
    r"|PET_\w+|TORCHELASTIC_\w+|HOROVOD_(LOCAL_|CROSS_)?(RANK|SIZE)|HOROVOD_HOSTNAME"
    r"|HOROVOD_(CONTROLLER|CPU_OPERATIONS|GLOO_RENDEZVOUS_\w+))"
)
_MPI = re.compile(r"(OMPI|PMIX|PRTE|I_MPI|HYDRA|MPIEXEC)_\w+")
_LABELS = {
    "training.kubeflow.org/replica-index": "headway.dev/worker-index",
    "training.kubeflow.org/job-name": "headway.dev/job-name",
    "jobset.sigs.k8s.io/jobset-name": "headway.dev/job-name",
}


def convert(given: list[dict[str, Any]], where: str, job: Job) -> list[dict[str, Any]]:
    """Variables that a TrainingJob may set, each once.

    Args:
        given: As in a container.
        where: Their path.
        job: Is told of those that are left out.
    """
    kept: dict[str, dict[str, Any]] = {}
    for index, entry in enumerate(given):
        path, name = f"{where}[{index}]", entry["name"]
        if _left_out(name, path, job):
            continue
        if kept.pop(name, None) is not None:
            job.say(where, f"{name} is set twice: the last one counts")
        kept[name] = _labels_renamed(_text(entry), path, job)
    return list(kept.values())


def is_of_ranks(name: str) -> bool:
    """Whether the agents give this variable to each rank."""
    return bool(_RANKS.fullmatch(name))


def _left_out(name: str, path: str, job: Job) -> bool:
    if name.startswith("HEADWAY_"):
        text = f"{name} is left out: names that begin with HEADWAY_ are Headway's own"
        job.ask(path, text, "spec.pod")
        return True
    if is_of_ranks(name):
        job.say(path, f"{name} is left out: the agents give it to each rank")
        return True
    if _MPI.fullmatch(name):
        job.say(path, f"{name} is left out: ranks are not started by MPI")
        return True
    return False


def _text(entry: dict[str, Any]) -> dict[str, Any]:
    value = entry.get("value")
    if isinstance(value, bool):
        return {**entry, "value": str(value).lower()}
    return entry if value is None or isinstance(value, str) else {**entry, "value": str(value)}


def _labels_renamed(entry: dict[str, Any], path: str, job: Job) -> dict[str, Any]:
    """A variable that reads a label which the other operator sets reads ours instead."""
    source = Fields(entry.get("valueFrom"), f"{path}.valueFrom").inner("fieldRef")
    found = re.fullmatch(r"metadata\.labels\['(.+)'\]", source.take("fieldPath", str) or "")
    if not found:
        return entry
    if found[1] in _LABELS:
        ours = _LABELS[found[1]]
        job.say(path, f"reads {ours} instead of {found[1]}")
        return {**entry, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{ours}']"}}}
    if "kubeflow.org/" in found[1] or "jobset." in found[1]:
        text = f"{entry['name']} reads {found[1]}, a label that Headway's pods don't have"
        job.ask(path, text, "spec.pod.env")
    return entry


def values(given: list[dict[str, Any]]) -> dict[str, str]:
    """What is known of variables: those that have their value in the manifest."""
    return {each["name"]: str(each["value"]) for each in given if each.get("value") is not None}


def merged(base: list[dict[str, Any]], over: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Variables of both, of which the second win."""
    return list(({each["name"]: each for each in [*base, *over]}).values())
