"""Reading manifests for local mode: one TrainingJob or Sweep, and what it refers to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from headway_api.contract import API_VERSION
from headway_operator.cluster.client import SECRET, Object, Resource
from headway_operator.resources import (
    CLUSTER_TRAINING_RUNTIME,
    SWEEP,
    TRAINING_JOB,
    TRAINING_RUNTIME,
)

LOCAL_IMAGE = "this-machine"
"""Image of a job that names none: here it runs in the environment of this command."""
_OTHERS: Mapping[tuple[str, str], Resource] = {
    (API_VERSION, "TrainingRuntime"): TRAINING_RUNTIME,
    (API_VERSION, "ClusterTrainingRuntime"): CLUSTER_TRAINING_RUNTIME,
    ("v1", "Secret"): SECRET,
}


class ManifestError(Exception):
    """The file can't be run; the message says what to change."""


@dataclass(frozen=True)
class Manifest:
    """What a file describes.

    Attributes:
        resource: What is run: a TrainingJob or a Sweep.
        job: The object.
        others: Runtimes and Secrets, each with its resource.
        notes: What means something else here than in a cluster.
    """

    resource: Resource
    job: Object
    others: tuple[tuple[Resource, Object], ...]
    notes: tuple[str, ...] = ()

    @property
    def patch(self) -> Object:
        """A merge patch to the spec; a pause that is not there any more is taken back."""
        return {
            **({"pauseAtStep": None} if self.resource == TRAINING_JOB else {}),
            **self.job["spec"],
        }


@dataclass(frozen=True)
class Overrides:
    """What the command line changes in a job.

    Attributes:
        storage: URI of the storage.
        endpoint: URL of the S3-compatible server.
        parameters: Parameters by name.
    """

    storage: str | None = None
    endpoint: str | None = None
    parameters: Mapping[str, str] | None = None


def parse(text: str, resource: Resource = TRAINING_JOB) -> Manifest:
    """Read a manifest of one or several documents.

    Args:
        text: YAML.
        resource: what it has to have one of: a TrainingJob or a Sweep.

    Raises:
        ManifestError: it is no YAML, or does not hold exactly one of these.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"the manifest is not valid YAML: {error}") from None
    _check_numbers(documents)
    jobs: list[Object] = []
    others: list[tuple[Resource, Object]] = []
    for document in documents:
        kind = _kind(document)
        if kind == (API_VERSION, resource.kind):
            jobs.append(document)
        elif kind in _OTHERS:
            others.append((_OTHERS[kind], _with_namespace(document, _OTHERS[kind])))
        else:
            raise ManifestError(_not_here(kind, resource))
    if len(jobs) != 1:
        raise ManifestError(f"the manifest has {len(jobs)} {resource.kind}s; it should have one")
    return _without_gpu(
        Manifest(resource, _completed(resource, jobs[0]), tuple(others), _notes(jobs[0], others))
    )


def _notes(job: Object, others: list[tuple[Resource, Object]]) -> tuple[str, ...]:
    """What means something else here than in a cluster, and stays as it is."""
    for document in (job, *(item for _, item in others)):
        if "queueName" in (_job_spec(document).get("scheduling") or {}):
            return ("spec.scheduling.queueName has no meaning here: nobody else waits",)
    return ()


def _check_numbers(documents: list[Any]) -> None:
    try:
        json.dumps(documents, allow_nan=False, default=str)
    except ValueError:
        raise ManifestError(
            "the manifest has .inf or .nan, which no API server takes: write a number"
        ) from None


def _not_here(kind: tuple[str, str], resource: Resource) -> str:
    if kind == (API_VERSION, SWEEP.kind):
        return "a Sweep is run by `headway sweep run`"
    if kind == (API_VERSION, TRAINING_JOB.kind):
        return "a TrainingJob is run by `headway run`"
    command = "headway run" if resource == TRAINING_JOB else "headway sweep run"
    return (
        f"{kind[1] or 'a document'} ({kind[0] or 'no apiVersion'}) can't be run here; "
        f"`{command}` takes one {resource.kind} ({API_VERSION}), with runtimes and Secrets"
    )


def _without_gpu(manifest: Manifest) -> Manifest:
    """Here are no pools to choose from: processes see the GPUs that this machine has."""
    documents = [manifest.job, *(item for _, item in manifest.others)]
    if not any("gpu" in _job_spec(document) for document in documents):
        return manifest
    note = "spec.gpu has no meaning here: every worker sees all GPUs of this machine, if any"
    others = tuple((resource, _gpu_removed(item)) for resource, item in manifest.others)
    notes = (*manifest.notes, note)
    return Manifest(manifest.resource, _gpu_removed(manifest.job), others, notes)


def _gpu_removed(document: Object) -> Object:
    if "spec" not in document:
        return document
    spec = {name: value for name, value in _job_spec(document).items() if name != "gpu"}
    return _with_job_spec(document, spec)


def _job_spec(document: Mapping[str, Any]) -> Object:
    """The spec of a job, or of what is made into one: a runtime's, or a sweep's template's."""
    spec = document.get("spec") or {}
    if document.get("kind") == SWEEP.kind:
        spec = (spec.get("template") or {}).get("spec") or {}
    return dict(spec)


def _with_job_spec(document: Object, spec: Object) -> Object:
    if document.get("kind") != SWEEP.kind:
        return {**document, "spec": spec}
    sweep = dict(document.get("spec") or {})
    sweep["template"] = {**(sweep.get("template") or {}), "spec": spec}
    return {**document, "spec": sweep}


def _kind(document: Any) -> tuple[str, str]:
    if not isinstance(document, Mapping):
        raise ManifestError("a document of the manifest is not an object with apiVersion and kind")
    return str(document.get("apiVersion", "")), str(document.get("kind", ""))


def _with_namespace(document: Mapping[str, Any], resource: Resource) -> Object:
    metadata = dict(document.get("metadata") or {})
    if resource.namespaced:
        metadata.setdefault("namespace", "default")
    return {**document, "metadata": metadata}


def _completed(resource: Resource, job: Mapping[str, Any]) -> Object:
    completed = _with_namespace(job, resource)
    if not completed["metadata"].get("name"):
        raise ManifestError("metadata.name is missing: give it a name")
    # Running it is what this command is for.
    spec = {name: value for name, value in (job.get("spec") or {}).items() if name != "suspend"}
    completed = {**completed, "spec": spec}
    return _with_job_spec(completed, {"image": LOCAL_IMAGE, **_job_spec(completed)})


def with_overrides(manifest: Manifest, overrides: Overrides) -> Manifest:
    """The manifest with what the command line asked for."""
    spec = _job_spec(manifest.job)
    storage = dict(spec.get("storage") or {})
    if overrides.storage is not None:
        storage = {"uri": overrides.storage}
    if overrides.endpoint is not None:
        storage["endpoint"] = overrides.endpoint
    if storage:
        spec["storage"] = storage
    if overrides.parameters:
        spec["parameters"] = {**(spec.get("parameters") or {}), **overrides.parameters}
    return replace(manifest, job=_with_job_spec(manifest.job, spec))
