"""The environment of a worker pod, as `headway_api.contract` has it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from headway_api import contract, horovod
from headway_api.trainingjob import Storage, TrainingJobSpec
from headway_operator.settings import Settings
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.view import Job

KUBEFLOW_DIR = "/var/run/secrets/kubeflow/trainer"
"""Where Kubeflow's clients expect token and authority (KEP-2779)."""
_PARAMETER = re.compile(r"\$\{params\.([^}]*)\}")
_FIELDS = {
    contract.ENV_POD_NAME: "metadata.name",
    contract.ENV_POD_UID: "metadata.uid",
    contract.ENV_POD_IP: "status.podIP",
}


def shared_environment(
    job: Job, spec: TrainingJobSpec, settings: Settings, *, grace: int, memory: int | None
) -> list[dict[str, Any]]:
    """Variables that all pods of a job have in common.

    Args:
        job: whose pods they are.
        spec: with its runtime merged in.
        settings: of the operator.
        grace: termination grace period, in seconds.
        memory: limit of the container, in bytes, if there is one.

    Raises:
        Stuck: the job sets a variable that is ours.
    """
    parameters = spec.parameters or {}
    values = {
        contract.ENV_JOB_NAME: job.name,
        contract.ENV_JOB_NAMESPACE: job.namespace,
        contract.ENV_JOB_UID: job.uid,
        contract.ENV_REPLICAS: str(spec.workers.replicas),
        contract.ENV_PROCESSES: str(spec.workers.processes_per_worker),
        contract.ENV_FRAMEWORK: spec.framework,
        contract.ENV_GRACE_SECONDS: str(grace),
        contract.ENV_TERMINATION_LOG: contract.TERMINATION_LOG,
        contract.ENV_SCRATCH: contract.SCRATCH_DIR,
        contract.ENV_PARAMETERS: json.dumps(parameters, sort_keys=True),
        **{parameter_variable(name): value for name, value in parameters.items()},
        **_storage(job, spec.storage),
        **_endpoint(job, settings),
    }
    if memory is not None:
        values[contract.ENV_MEMORY_LIMIT] = str(memory)
    if spec.preload:
        values[contract.ENV_PRELOAD] = ",".join(spec.preload)
    if spec.checkpoint is not None:
        values[contract.ENV_CHECKPOINT] = json.dumps(spec.checkpoint.wire(), sort_keys=True)
    values |= _horovod(spec)
    own: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in values.items()]
    own += [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in _FIELDS.items()
    ]
    return [*own, *_users(spec)]


def parameter_variable(name: str) -> str:
    """The environment variable of a parameter: `lr.warmup` is HEADWAY_PARAM_LR_WARMUP."""
    return contract.ENV_PARAM_PREFIX + re.sub(r"[^A-Za-z0-9]", "_", name).upper()


def with_parameters(command: list[str], parameters: Mapping[str, str]) -> list[str]:
    """The command with `${params.<name>}` replaced.

    Raises:
        Stuck: it names a parameter that is not there.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in parameters:
            raise Stuck(
                "UnknownParameter",
                f"command refers to ${{params.{name}}}, but parameters has no {name}: add it.",
            )
        return parameters[name]

    return [_PARAMETER.sub(value, part) for part in command]


def _users(spec: TrainingJobSpec) -> list[dict[str, Any]]:
    variables = (spec.pod.env if spec.pod else None) or []
    for variable in variables:
        if variable.name.startswith("HEADWAY_"):
            raise Stuck(
                "ReservedVariable",
                f"pod.env sets {variable.name}, but names that begin with HEADWAY_ are "
                "Headway's own: choose another, or use parameters.",
            )
    return [variable.wire() for variable in variables]


def _horovod(spec: TrainingJobSpec) -> dict[str, str]:
    if spec.horovod is None or spec.framework != "Horovod":
        return {}
    users = {variable.name for variable in (spec.pod.env if spec.pod else None) or ()}
    files = ",".join(spec.horovod.kept)
    values = horovod.variables(spec.horovod) | (
        {contract.ENV_HOROVOD_FILES: files} if files else {}
    )
    return {name: value for name, value in values.items() if name not in users}


def _storage(job: Job, storage: Storage | None) -> dict[str, str]:
    if storage is None:
        return {}
    values = {
        contract.ENV_STORAGE_URI: contract.job_root(storage.uri, job.name, job.uid),
        contract.ENV_STORAGE_ENDPOINT: storage.endpoint,
        contract.ENV_STORAGE_REGION: storage.region,
    }
    return {name: value for name, value in values.items() if value is not None}


def _endpoint(job: Job, settings: Settings) -> dict[str, str]:
    if not settings.endpoint_url:
        return {}
    base = settings.endpoint_url.rstrip("/")
    return {
        contract.ENV_ENDPOINT: base,
        contract.ENV_ENDPOINT_CA: settings.endpoint_ca,
        contract.ENV_TOKEN_FILE: contract.TOKEN_FILE,
        "KUBEFLOW_TRAINER_SERVER_URL": base
        + contract.kubeflow_status_path(job.namespace, job.name),
        "KUBEFLOW_TRAINER_SERVER_CA_CERT": f"{KUBEFLOW_DIR}/ca.crt",
        "KUBEFLOW_TRAINER_SERVER_TOKEN": f"{KUBEFLOW_DIR}/token",
    }
