"""Where pods with GPUs may run: pools are the operator's configuration, jobs name them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headway_api.trainingjob import Gpu
from headway_operator.settings import GpuPool
from headway_operator.trainingjob.stuck import Stuck


@dataclass(frozen=True)
class Placement:
    """What a pod needs in its spec to get its GPUs."""

    resources: dict[str, int]
    node_selector: dict[str, str]
    tolerations: tuple[Mapping[str, Any], ...]
    node_affinity: dict[str, Any] | None = None


NOWHERE_SPECIAL = Placement({}, {}, ())


def place(gpu: Gpu | None, pools: Mapping[str, GpuPool]) -> Placement:
    """Placement for the pools that a job names, the first preferred.

    Raises:
        Stuck: a pool is unknown, too small, or does not go together with another.
    """
    if gpu is None:
        return NOWHERE_SPECIAL
    chosen = [_known(name, pools) for name in gpu.pools]
    _check(gpu, chosen)
    tolerations = tuple(entry for pool in chosen for entry in pool.tolerations)
    resources = {chosen[0].resource: gpu.per_worker}
    if len(chosen) == 1:
        return Placement(resources, dict(chosen[0].node_selector), tolerations)
    return Placement(resources, {}, tolerations, _any_of(chosen))


def _known(name: str, pools: Mapping[str, GpuPool]) -> GpuPool:
    if name not in pools:
        names = ", ".join(sorted(pools)) or "none: ask for pools to be configured"
        raise Stuck("UnknownPool", f"There is no GPU pool {name}. Pools here: {names}.")
    return pools[name]


def _check(gpu: Gpu, chosen: list[GpuPool]) -> None:
    if len({pool.resource for pool in chosen}) > 1:
        raise Stuck(
            "PoolsDiffer",
            f"The pools {', '.join(gpu.pools)} offer different kinds of GPUs: name pools of one.",
        )
    largest = max(pool.per_node or gpu.per_worker for pool in chosen)
    if gpu.per_worker > largest:
        raise Stuck(
            "PoolTooSmall",
            f"gpu.perWorker is {gpu.per_worker}, but nodes of {', '.join(gpu.pools)} have "
            f"{largest}: ask for fewer per worker and more workers.",
        )


def _any_of(chosen: list[GpuPool]) -> dict[str, Any] | None:
    """Node affinity: on one of the pools, the earlier the better."""
    terms = [
        {
            "matchExpressions": [
                {"key": key, "operator": "In", "values": [value]}
                for key, value in sorted(pool.node_selector.items())
            ]
        }
        for pool in chosen
    ]
    if not all(term["matchExpressions"] for term in terms):  # one of them is anywhere
        return None
    preferred = [
        {"weight": max(1, 100 - 10 * place), "preference": term} for place, term in enumerate(terms)
    ]
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        "preferredDuringSchedulingIgnoredDuringExecution": preferred,
    }
