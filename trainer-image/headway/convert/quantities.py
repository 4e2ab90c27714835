"""Resources of a container: what is a GPU, and what is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway.convert.fields import ConvertError, Fields
from headway.convert.job import Job

_GPUS = ("nvidia.com/", "amd.com/gpu", "gpu.intel.com/", "habana.ai/gaudi")
PLACEHOLDER_POOL = "gpu"


def convert(source: Fields, job: Job) -> tuple[dict[str, Any], int]:
    """Takes `requests` and `limits`.

    Returns:
        What goes to `workers.resources`, and the number of GPUs.

    Raises:
        ConvertError: the number of GPUs is no number.
    """
    parts: dict[str, Any] = {}
    gpus = 0
    for kind in ("requests", "limits"):
        given = source.take(kind, dict) or {}
        for name, amount in given.items():
            if _is_gpu(name):
                gpus = max(gpus, _count(f"{source.at(kind)}.{name}", amount))
                _tell(source.at(kind), name, gpus, job)
        kept = {name: _plain(amount) for name, amount in given.items() if not _is_gpu(name)}
        if kept:
            parts[kind] = kept
    return parts, gpus


def put_gpus(where: str, gpus: int, job: Job) -> None:
    """Sets `gpu` for that many in each pod."""
    if not gpus:
        return
    job.put("gpu.pools", list(job.pools) or [PLACEHOLDER_POOL])
    job.put("gpu.perWorker", gpus)
    if not job.pools:
        text = (
            "name the GPU pools by preference: they are the operator's configuration (Helm value"
            f" `pools`); {PLACEHOLDER_POOL} is a guess (`headway convert --pool NAME`)"
        )
        job.ask(where, text, "spec.gpu.pools")


def _is_gpu(name: str) -> bool:
    return name.startswith(_GPUS)


def _tell(where: str, name: str, gpus: int, job: Job) -> None:
    if not gpus:
        job.say(f"{where}.{name}", "no GPUs are the default")
    elif name not in {"nvidia.com/gpu", "amd.com/gpu"}:
        text = f"a GPU pool says what its GPUs are called: choose one whose resource is {name}"
        job.ask(f"{where}.{name}", text, "spec.gpu.pools")


def _count(where: str, amount: Any) -> int:
    try:
        return int(amount)
    except (TypeError, ValueError):
        raise ConvertError(f"{where} should be a number of GPUs, not {amount}") from None


def _plain(amount: Any) -> Any:
    return str(amount) if isinstance(amount, float) else amount


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Requests and limits of both, of which the second win."""
    kinds = [kind for kind in ("requests", "limits") if kind in base or kind in over]
    return {kind: {**base.get(kind, {}), **over.get(kind, {})} for kind in kinds}
