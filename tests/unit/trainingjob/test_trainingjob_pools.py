"""Where pods with GPUs may run."""

from typing import Any

import pytest

from headway_api.trainingjob import Gpu
from headway_operator.settings import GpuPool
from headway_operator.trainingjob.pools import NOWHERE_SPECIAL, place
from headway_operator.trainingjob.stuck import Stuck

SPOT = GpuPool(per_node=8, node_selector={"pool": "spot"}, tolerations=({"key": "spot"},))
FIRM = GpuPool(per_node=4, node_selector={"pool": "firm"}, tolerations=({"key": "gpu"},))
AMD = GpuPool(resource="amd.com/gpu")
ANYWHERE = GpuPool()
POOLS = {"spot": SPOT, "firm": FIRM, "amd": AMD, "anywhere": ANYWHERE}


def gpu(*pools: str, **fields: Any) -> Gpu:
    return Gpu.model_validate({"pools": list(pools), **fields})


def test_a_job_without_gpus_goes_anywhere() -> None:
    assert place(None, POOLS) == NOWHERE_SPECIAL


def test_one_pool_gives_resource_selector_and_tolerations() -> None:
    found = place(gpu("spot", perWorker=8), POOLS)
    assert found.resources == {"nvidia.com/gpu": 8}
    assert found.node_selector == {"pool": "spot"}
    assert found.tolerations == ({"key": "spot"},)
    assert found.node_affinity is None


def test_several_pools_become_an_affinity_that_prefers_the_first() -> None:
    found = place(gpu("firm", "spot"), POOLS)
    assert found.node_selector == {}
    assert found.tolerations == ({"key": "gpu"}, {"key": "spot"})
    assert found.node_affinity is not None
    terms = found.node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    named = [term["matchExpressions"][0]["values"] for term in terms["nodeSelectorTerms"]]
    assert named == [["firm"], ["spot"]]
    preferred = found.node_affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred[0]["weight"] > preferred[1]["weight"]
    assert preferred[0]["preference"]["matchExpressions"][0]["values"] == ["firm"]


def test_a_pool_without_labels_leaves_every_node_open() -> None:
    """A term without expressions matches nothing: it must not become part of the affinity."""
    assert place(gpu("spot", "anywhere"), POOLS).node_affinity is None


@pytest.mark.parametrize(
    ("asked", "reason", "told"),
    [
        (gpu("h100"), "UnknownPool", "amd, anywhere, firm, spot"),
        (gpu("spot", "amd"), "PoolsDiffer", "spot, amd"),
        (gpu("firm", perWorker=8), "PoolTooSmall", "have 4"),
    ],
)
def test_what_no_node_can_give_is_said_at_once(asked: Gpu, reason: str, told: str) -> None:
    with pytest.raises(Stuck) as caught:
        place(asked, POOLS)
    assert caught.value.reason == reason
    assert told in caught.value.message


def test_the_largest_of_several_pools_has_to_suffice() -> None:
    assert place(gpu("firm", "spot", perWorker=8), POOLS).resources == {"nvidia.com/gpu": 8}
