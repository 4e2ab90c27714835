"""A runtime under a job: the job's own fields win."""

from __future__ import annotations

from typing import Any

from headway_api.pod import PodOptions
from headway_api.runtime import TrainingRuntimeSpec
from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.trainingjob.stuck import Stuck

_WHOLE = (
    "image",
    "command",
    "preload",
    "gpu",
    "storage",
    "checkpoint",
    "failure_policy",
    "scheduling",
    "network",
    "horovod",
)
"""Fields that a job sets or leaves: half a storage is no storage."""


def snapshot(
    spec: TrainingJobSpec, status: TrainingJobStatus, runtime: TrainingRuntimeSpec | None
) -> TrainingRuntimeSpec | None:
    """The runtime that a job is bound to: as it was at the first reconcile, or as it is now.

    Raises:
        Stuck: the job refers to a runtime that does not exist.
    """
    if status.runtime is not None:
        return TrainingRuntimeSpec.model_validate(status.runtime)
    if spec.runtime_ref is None:
        return None
    if runtime is None:
        reference = spec.runtime_ref
        raise Stuck(
            "RuntimeNotFound",
            f"{reference.kind} {reference.name} does not exist: create it, "
            "or make a new job with another runtimeRef.",
        )
    return runtime


def merged(spec: TrainingJobSpec, runtime: TrainingRuntimeSpec | None) -> TrainingJobSpec:
    """The spec with everything filled in that the runtime gives.

    Raises:
        Stuck: what both give together is no job.
    """
    if runtime is not None:
        spec = _over(runtime, spec)
    if spec.image is None:
        raise Stuck("ImageMissing", "Neither the job nor its runtime gives an image: set image.")
    if spec.command is None:
        raise Stuck(
            "CommandMissing",
            "Neither the job nor its runtime gives a command: "
            "set command, e.g. [python, train.py].",
        )
    if spec.storage is None and (spec.checkpoint is not None or spec.model is not None):
        raise Stuck("StorageMissing", "Checkpoints and models need storage.uri: set it.")
    if spec.storage is None and spec.pause_at_step is not None:
        raise Stuck("StorageMissing", "pauseAtStep saves a checkpoint: set storage.uri.")
    files = spec.horovod.kept if spec.horovod and spec.framework == "Horovod" else ()
    if spec.storage is None and files:
        raise Stuck(
            "StorageMissing",
            "horovod.timeline and horovod.autotune.log need storage.uri: set it.",
        )
    return spec


def _over(runtime: TrainingRuntimeSpec, spec: TrainingJobSpec) -> TrainingJobSpec:
    if runtime.framework not in {None, spec.framework}:
        raise Stuck(
            "FrameworkMismatch",
            f"The runtime is for {runtime.framework}, the job for {spec.framework}: "
            "make a new job with a runtime of its framework.",
        )
    update: dict[str, Any] = {
        name: getattr(runtime, name) for name in _WHOLE if getattr(spec, name) is None
    }
    update["parameters"] = _joined(runtime.parameters, spec.parameters)
    update["pod"] = _pod_over(runtime.pod, spec.pod)
    if spec.workers.resources is None:
        update["workers"] = spec.workers.model_copy(update={"resources": runtime.resources})
    return spec.model_copy(update=update)


def _pod_over(base: PodOptions | None, own: PodOptions | None) -> PodOptions | None:
    if base is None or own is None:
        return own or base
    update: dict[str, Any] = {
        name: value for name in PodOptions.model_fields if (value := getattr(own, name)) is not None
    }
    for name in ("labels", "annotations", "node_selector"):
        update[name] = _joined(getattr(base, name), getattr(own, name))
    by_name = {variable.name: variable for variable in [*(base.env or ()), *(own.env or ())]}
    update["env"] = list(by_name.values()) or None
    return base.model_copy(update=update)


def _joined(base: dict[str, str] | None, own: dict[str, str] | None) -> dict[str, str] | None:
    return {**(base or {}), **(own or {})} or None
