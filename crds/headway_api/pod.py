"""The curated subset of a pod that a TrainingJob may set.

Schemas of whole pod templates would take the CRD past what `kubectl apply` can store, and
most of their fields would break the contract with the agent. Parts whose schema is deep and
Kubernetes' own (affinity, volumes, …) are passed through and checked when the pod is made.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from headway_api.base import (
    ApiModel,
    ListType,
    Name,
    PreserveUnknown,
    Quantity,
    Rule,
    SubdomainName,
    Text,
)

Passthrough = Annotated[dict[str, Any], PreserveUnknown()]
LabelValue = Annotated[str, Field(max_length=63)]


class EnvVar(ApiModel):
    """An environment variable of the trainer container."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the variable. Names that begin with `HEADWAY_` are Headway's own and refused."""
    value: Text | None = None
    """Its value; `$(OTHER)` refers to a variable defined earlier."""
    value_from: Passthrough | None = None
    """Where the value comes from instead: a key of a Secret or ConfigMap, or a pod field."""

    cel: ClassVar = (
        Rule(
            "!self.name.startsWith('HEADWAY_')",
            "names that begin with HEADWAY_ are Headway's own: use another, or spec.parameters",
            ".name",
        ),
        Rule("!has(self.value) || !has(self.valueFrom)", "set value or valueFrom, not both"),
    )


class Toleration(ApiModel):
    """A taint that the pods tolerate."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """Key of the taint; empty with `Exists` matches every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """`Equal` (the default) or `Exists`."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; empty matches all."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """How long a `NoExecute` taint is tolerated, in seconds."""


class LocalObjectReference(ApiModel):
    """The name of an object in the job's namespace."""

    name: SubdomainName
    """Name of the object."""


class Resources(ApiModel):
    """What the trainer container of each worker asks for, as in a pod."""

    requests: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """What is set aside for the container, e.g. `{cpu: "4", memory: 16Gi}`."""
    limits: Annotated[dict[str, Quantity], Field(max_length=16)] | None = None
    """What the container may use at most."""


class PodOptions(ApiModel):
    """What a job may set on its pods beside image, command and resources."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels added to the pods; `headway.dev/` is reserved."""
    annotations: Annotated[dict[str, Text], Field(max_length=32)] | None = None
    """Annotations added to the pods."""
    env: Annotated[list[EnvVar], ListType("map", ("name",)), Field(max_length=128)] | None = None
    """Environment variables of the trainer container."""
    env_from: Annotated[list[Passthrough], ListType("atomic"), Field(max_length=16)] | None = None
    """Secrets and ConfigMaps whose keys become environment variables."""
    volumes: Annotated[list[Passthrough], ListType("atomic"), Field(max_length=32)] | None = None
    """Volumes of the pod, as in a pod. Names that begin with `headway-` are reserved."""
    volume_mounts: Annotated[list[Passthrough], ListType("atomic"), Field(max_length=32)] | None = (
        None
    )
    """Where the volumes are mounted in the trainer container, as in a pod."""
    working_dir: Annotated[str, Field(max_length=1024)] | None = None
    """Working directory of the command."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When the image is pulled."""
    image_pull_secrets: (
        Annotated[list[LocalObjectReference], ListType("map", ("name",)), Field(max_length=8)]
        | None
    ) = None
    """Secrets for pulling the image."""
    service_account_name: SubdomainName | None = None
    """Service account of the pods. They need no access to the API."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] | None = None
    """Labels that a node must have."""
    tolerations: Annotated[list[Toleration], ListType("atomic"), Field(max_length=32)] | None = None
    """Taints that the pods tolerate."""
    affinity: Passthrough | None = None
    """Affinity, as in a pod."""
    topology_spread_constraints: (
        Annotated[list[Passthrough], ListType("atomic"), Field(max_length=8)] | None
    ) = None
    """How the pods are spread over the topology, as in a pod."""
    security_context: Passthrough | None = None
    """Merged over the restricted security context that Headway sets on the pod."""
    runtime_class_name: SubdomainName | None = None
    """Runtime class of the pods."""
    scheduler_name: Name | None = None
    """Scheduler of the pods."""
    termination_grace_period_seconds: Annotated[int, Field(ge=1, le=86400)] | None = None
    """How long a pod may take to save its state after SIGTERM, in seconds (default 60)."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, in memory (default: half of the container's memory limit)."""

    cel: ClassVar = (
        Rule(
            "!has(self.labels) || self.labels.all(key, !key.startsWith('headway.dev/'))",
            "labels that begin with headway.dev/ are Headway's own: use another prefix",
            ".labels",
        ),
    )


__all__ = [
    "EnvVar",
    "LocalObjectReference",
    "PodOptions",
    "Resources",
    "Toleration",
]
