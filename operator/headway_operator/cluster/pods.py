"""What the API server does to pods alone: their first status, their fixed spec, their deletion.

Source: `pkg/registry/core/pod/strategy.go` of Kubernetes.
"""

from typing import Any, Final

from .client import Object, api_error

DEFAULT_GRACE: Final = 30
_MUTABLE: Final = frozenset({"activeDeadlineSeconds", "tolerations", "schedulingGates"})


def created(pod: Object) -> Object:
    """A pod as it starts: pending, whatever its author says."""
    return {**pod, "status": {"phase": "Pending"}}


def check_spec(new: Object, old: Object) -> None:
    """Refuse changes of what a pod fixes at creation.

    Raises:
        Invalid: the specs differ in more than images and the few mutable fields.
    """
    if _fixed(new.get("spec", {})) != _fixed(old.get("spec", {})):
        raise api_error(
            422,
            "Invalid",
            f"Pod {new['metadata']['name']!r} is invalid: spec: Forbidden: pod updates may not "
            "change fields other than images, activeDeadlineSeconds and tolerations",
        )


def grace_period(pod: Object, requested: int | None) -> int:
    """Seconds that the node gets to end a pod; 0 where there is nothing to wait for."""
    spec, phase = pod.get("spec", {}), pod.get("status", {}).get("phase")
    if not spec.get("nodeName") or phase in {"Succeeded", "Failed"}:
        return 0
    if requested is not None:
        return requested
    return int(spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE))


def _fixed(spec: dict[str, Any]) -> dict[str, Any]:
    fixed = {key: value for key, value in spec.items() if key not in _MUTABLE}
    for kind in ("containers", "initContainers"):
        if kind in fixed:
            fixed[kind] = [{**container, "image": ""} for container in fixed[kind]]
    return fixed
