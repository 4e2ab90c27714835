"""Reading manifests for local mode: one TrainingJob, and what it refers to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import yaml

from headway_api.contract import API_VERSION
from headway_operator.cluster.client import SECRET, Object, Resource
from headway_operator.resources import CLUSTER_TRAINING_RUNTIME, TRAINING_JOB, TRAINING_RUNTIME

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
        job: The TrainingJob.
        others: Runtimes and Secrets, each with its resource.
        notes: What means something else here than in a cluster.
    """

    job: Object
    others: tuple[tuple[Resource, Object], ...]
    notes: tuple[str, ...] = ()


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


def parse(text: str) -> Manifest:
    """Read a manifest of one or several documents.

    Raises:
        ManifestError: it is no YAML, or does not hold exactly one TrainingJob.
    """
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError as error:
        raise ManifestError(f"the manifest is not valid YAML: {error}") from None
    jobs: list[Object] = []
    others: list[tuple[Resource, Object]] = []
    for document in documents:
        kind = _kind(document)
        if kind == (API_VERSION, "TrainingJob"):
            jobs.append(document)
        elif kind in _OTHERS:
            others.append((_OTHERS[kind], _with_namespace(document, _OTHERS[kind])))
        else:
            raise ManifestError(
                f"{kind[1] or 'a document'} ({kind[0] or 'no apiVersion'}) can't be run here; "
                f"`headway run` takes one TrainingJob ({API_VERSION}), with runtimes and Secrets"
            )
    if len(jobs) != 1:
        raise ManifestError(f"the manifest has {len(jobs)} TrainingJobs; it should have one")
    return _without_gpu(Manifest(_completed(jobs[0]), tuple(others)))


def _without_gpu(manifest: Manifest) -> Manifest:
    """Here are no pools to choose from: processes see the GPUs that this machine has."""
    documents = [manifest.job, *(item for _, item in manifest.others)]
    if not any("gpu" in (document.get("spec") or {}) for document in documents):
        return manifest
    note = "spec.gpu has no meaning here: every worker sees all GPUs of this machine, if any"
    others = tuple((resource, _gpu_removed(item)) for resource, item in manifest.others)
    return Manifest(_gpu_removed(manifest.job), others, (note,))


def _gpu_removed(document: Object) -> Object:
    if "spec" not in document:
        return document
    spec = {name: value for name, value in document["spec"].items() if name != "gpu"}
    return {**document, "spec": spec}


def _kind(document: Any) -> tuple[str, str]:
    if not isinstance(document, Mapping):
        raise ManifestError("a document of the manifest is not an object with apiVersion and kind")
    return str(document.get("apiVersion", "")), str(document.get("kind", ""))


def _with_namespace(document: Mapping[str, Any], resource: Resource) -> Object:
    metadata = dict(document.get("metadata") or {})
    if resource.namespaced:
        metadata.setdefault("namespace", "default")
    return {**document, "metadata": metadata}


def _completed(job: Mapping[str, Any]) -> Object:
    completed = _with_namespace(job, TRAINING_JOB)
    if not completed["metadata"].get("name"):
        raise ManifestError("metadata.name is missing: give the job a name")
    spec = dict(completed.get("spec") or {})
    spec.setdefault("image", LOCAL_IMAGE)
    # Running it is what this command is for.
    spec.pop("suspend", None)
    return {**completed, "spec": spec}


def with_overrides(manifest: Manifest, overrides: Overrides) -> Manifest:
    """The manifest with what the command line asked for."""
    spec = dict(manifest.job["spec"])
    storage = dict(spec.get("storage") or {})
    if overrides.storage is not None:
        storage = {"uri": overrides.storage}
    if overrides.endpoint is not None:
        storage["endpoint"] = overrides.endpoint
    if storage:
        spec["storage"] = storage
    if overrides.parameters:
        spec["parameters"] = {**(spec.get("parameters") or {}), **overrides.parameters}
    return replace(manifest, job={**manifest.job, "spec": spec})
