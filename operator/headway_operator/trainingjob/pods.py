"""Builds the worker pods of a job, and the headless Service of those who want names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from headway_api import contract
from headway_api.pod import PodOptions
from headway_api.trainingjob import TrainingJobSpec
from headway_operator.settings import Settings
from headway_operator.trainingjob.avoidance import keeping_off
from headway_operator.trainingjob.environment import (
    KUBEFLOW_DIR,
    shared_environment,
    with_parameters,
)
from headway_operator.trainingjob.grace import grace_seconds
from headway_operator.trainingjob.pools import place
from headway_operator.trainingjob.quantity import whole_bytes
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.supported import check_supported
from headway_operator.trainingjob.view import Job

ANNOTATION_CA = f"{contract.GROUP}/endpoint-ca"
"""The endpoint's authority once more, as only an annotation becomes a file without a ConfigMap."""
_NODE_GONE_SECONDS = 30
_POD_FIELDS = ("framework", "image", "command", "parameters", "workers", "gpu", "pod")
_MORE_POD_FIELDS = ("preload", "storage", "checkpoint", "scheduling", "network", "horovod")
_POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
_CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


@dataclass(frozen=True)
class Blueprint:
    """What all pods of a job have in common, checked once."""

    job: Job
    spec_hash: str
    metadata: dict[str, Any]
    spec: dict[str, Any]
    """Pod spec with one container, short of the pod's own names and numbers."""
    service: bool

    def pod(self, index: int, attempt: int, avoid: tuple[str, ...] = ()) -> dict[str, Any]:
        """The pod with this stable node rank, which keeps away from some nodes."""
        name = contract.pod_name(self.job.name, index)
        metadata = {
            **self.metadata,
            "name": name,
            "labels": {
                **self.metadata["labels"],
                contract.LABEL_INDEX: str(index),
                contract.LABEL_ROLE: "lead" if index == 0 else "worker",
                contract.LABEL_ATTEMPT: str(attempt),
            },
        }
        (container,) = self.spec["containers"]
        own = [
            {"name": contract.ENV_INDEX, "value": str(index)},
            {"name": contract.ENV_ATTEMPT, "value": str(attempt)},
        ]
        spec = {**self.spec, "containers": [{**container, "env": [*own, *container["env"]]}]}
        if self.service:
            spec |= {"hostname": name, "subdomain": self.job.name}
        if avoid:
            spec["affinity"] = keeping_off(spec.get("affinity"), avoid)
            told = {contract.ANNOTATION_AVOIDS: ",".join(avoid)}
            metadata["annotations"] = {**metadata["annotations"], **told}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}

    def headless_service(self) -> dict[str, Any]:
        """A Service that gives each pod a DNS name, ready or not."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.job.name,
                "namespace": self.job.namespace,
                "labels": {contract.LABEL_JOB: self.job.name},
                "ownerReferences": self.metadata["ownerReferences"],
            },
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {contract.LABEL_JOB: self.job.name},
                "ports": [{"name": "agent", "port": contract.AGENT_PORT}],
            },
        }


def blueprint(job: Job, spec: TrainingJobSpec, settings: Settings) -> Blueprint:
    """How the pods of a job are made.

    Args:
        job: whose pods they are.
        spec: with its runtime merged in.
        settings: of the operator.

    Raises:
        Stuck: no pod can be made of this spec.
    """
    check_supported(spec)
    options = spec.pod or PodOptions()
    _check_names(options)
    digest = spec_hash(spec)
    return Blueprint(
        job=job,
        spec_hash=digest,
        metadata=_metadata(job, options, digest, settings),
        spec=_pod_spec(job, spec, options, settings),
        service=spec.network is not None and spec.network.service,
    )


def spec_hash(spec: TrainingJobSpec) -> str:
    """Hash of what pods are built from; not of settings, and stable when defaults are added.

    A rollout of the operator must not restart anybody's training.
    """
    fields = set(_POD_FIELDS + _MORE_POD_FIELDS)
    content = spec.model_dump(mode="json", by_alias=True, include=fields, exclude_defaults=True)
    if spec.workers.elastic is not None:  # the group changes size without being replaced
        content["workers"] = {
            name: value
            for name, value in content["workers"].items()
            if name not in {"replicas", "elastic"}
        }
    scheduling = content.pop("scheduling", {})
    scheduling.pop("startTimeoutSeconds", None)
    scheduling.pop("queueName", None)
    if scheduling:
        content["scheduling"] = scheduling
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_names(options: PodOptions) -> None:
    for name in [*(options.labels or ()), *(options.annotations or ())]:
        if name.startswith(f"{contract.GROUP}/"):
            raise Stuck(
                "ReservedName", f"pod sets {name}, but {contract.GROUP}/ is Headway's own: drop it."
            )
    for volume in options.volumes or ():
        if str(volume.get("name", "")).startswith("headway-"):
            raise Stuck(
                "ReservedName",
                f"pod.volumes has {volume['name']}, but headway-… is Headway's own: rename it.",
            )


def _metadata(job: Job, options: PodOptions, digest: str, settings: Settings) -> dict[str, Any]:
    annotations = {**(options.annotations or {}), contract.ANNOTATION_SPEC_HASH: digest}
    if settings.endpoint_ca:
        annotations[ANNOTATION_CA] = settings.endpoint_ca
    return {
        "namespace": job.namespace,
        "labels": {**(options.labels or {}), contract.LABEL_JOB: job.name},
        "annotations": annotations,
        "ownerReferences": [
            {
                "apiVersion": contract.API_VERSION,
                "kind": "TrainingJob",
                "name": job.name,
                "uid": job.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }


def _pod_spec(
    job: Job, spec: TrainingJobSpec, options: PodOptions, settings: Settings
) -> dict[str, Any]:
    placement = place(spec.gpu, settings.pools)
    grace = grace_seconds(spec, job.status, settings)
    resources = _resources(spec, placement.resources)
    limit = resources.get("limits", {}).get("memory")
    memory = whole_bytes(limit) if limit is not None else None
    volumes, mounts = _volumes(job, options, settings, memory)
    given = {
        "serviceAccountName": options.service_account_name,
        "nodeSelector": {**placement.node_selector, **(options.node_selector or {})} or None,
        "affinity": _affinity(options, placement.node_affinity),
        "topologySpreadConstraints": options.topology_spread_constraints,
        "runtimeClassName": options.runtime_class_name,
        "schedulerName": options.scheduler_name,
        "imagePullSecrets": [item.wire() for item in options.image_pull_secrets or ()] or None,
        "priorityClassName": spec.scheduling and spec.scheduling.priority_class_name,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {**_POD_SECURITY, **(options.security_context or {})},
        "tolerations": [
            *_node_tolerations(),
            *(dict(entry) for entry in placement.tolerations),
            *(entry.wire() for entry in options.tolerations or ()),
        ],
        "volumes": volumes,
        "containers": [
            _container(
                spec,
                options,
                env=shared_environment(job, spec, settings, grace=grace, memory=memory),
                mounts=mounts,
                resources=resources,
            )
        ],
    }


def _container(
    spec: TrainingJobSpec,
    options: PodOptions,
    *,
    env: list[dict[str, Any]],
    mounts: list[dict[str, Any]],
    resources: dict[str, Any],
) -> dict[str, Any]:
    secret = spec.storage.secret_ref if spec.storage else None
    sources = [{"secretRef": {"name": secret.name}}] if secret else []
    given = {
        "workingDir": options.working_dir,
        "imagePullPolicy": options.image_pull_policy,
        "envFrom": [*sources, *(options.env_from or ())] or None,
        "resources": resources or None,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "name": contract.CONTAINER,
        "image": spec.image,
        # The agent has to be PID 1, whatever entry point the image has.
        "command": ["headway-agent"],
        "args": ["--", *with_parameters(spec.command or [], spec.parameters or {})],
        "env": env,
        "ports": [
            {"name": "agent", "containerPort": contract.AGENT_PORT},
        ],
        "volumeMounts": mounts,
        "securityContext": _CONTAINER_SECURITY,
        "terminationMessagePath": contract.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _resources(spec: TrainingJobSpec, gpus: dict[str, int]) -> dict[str, Any]:
    asked = spec.workers.resources.wire() if spec.workers.resources else {}
    if not gpus:
        return asked
    return {**asked, **{kind: {**_part(asked, kind), **gpus} for kind in ("requests", "limits")}}


def _part(resources: dict[str, Any], kind: str) -> dict[str, Any]:
    part: dict[str, Any] = resources.get(kind) or {}
    return part


def _affinity(options: PodOptions, pools: dict[str, Any] | None) -> dict[str, Any] | None:
    if pools is None:
        return options.affinity
    if "nodeAffinity" in (options.affinity or {}):
        raise Stuck(
            "AffinityConflict",
            "Several gpu.pools and pod.affinity.nodeAffinity can't be joined: name one pool, "
            "or use pod.nodeSelector.",
        )
    return {**(options.affinity or {}), "nodeAffinity": pools}


def _node_tolerations() -> list[dict[str, Any]]:
    """Half a minute on a node that went silent, not Kubernetes' five."""
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": _NODE_GONE_SECONDS,
        }
        for state in ("not-ready", "unreachable")
    ]


def _volumes(
    job: Job, options: PodOptions, settings: Settings, memory: int | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes of the pod, and where they are mounted."""
    shared: dict[str, Any] = {"medium": "Memory"}
    if options.shared_memory is not None:
        shared["sizeLimit"] = str(options.shared_memory)
    elif memory is not None:
        shared["sizeLimit"] = str(memory // 2)
    volumes: list[dict[str, Any]] = [
        {"name": "headway-tmp", "emptyDir": {}},
        {"name": "headway-scratch", "emptyDir": {"medium": "Memory"}},
        {"name": "headway-shm", "emptyDir": shared},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "headway-tmp", "mountPath": contract.TMP_DIR},
        {"name": "headway-scratch", "mountPath": contract.SCRATCH_DIR},
        {"name": "headway-shm", "mountPath": contract.SHM_DIR},
    ]
    if settings.endpoint_url:
        volumes += _token_volumes(job, settings)
        mounts += [
            {"name": "headway-token", "mountPath": contract.TOKEN_DIR, "readOnly": True},
            {"name": "headway-kubeflow", "mountPath": KUBEFLOW_DIR, "readOnly": True},
        ]
    return [*volumes, *(options.volumes or ())], [*mounts, *(options.volume_mounts or ())]


def _token_volumes(job: Job, settings: Settings) -> list[dict[str, Any]]:
    ours = contract.token_audience(job.namespace, job.name)
    kubeflow = [_token(contract.kubeflow_audience(job.namespace, job.name), settings)]
    if settings.endpoint_ca:
        path = f"metadata.annotations['{ANNOTATION_CA}']"
        authority = {"path": "ca.crt", "fieldRef": {"fieldPath": path}}
        kubeflow.append({"downwardAPI": {"items": [authority]}})
    return [
        {"name": "headway-token", "projected": {"sources": [_token(ours, settings)]}},
        {"name": "headway-kubeflow", "projected": {"sources": kubeflow}},
    ]


def _token(audience: str, settings: Settings) -> dict[str, Any]:
    token = {"audience": audience, "expirationSeconds": settings.token_seconds, "path": "token"}
    return {"serviceAccountToken": token}
