"""Kueue, as far as jobs see it: it admits Workloads while there is quota, and takes it back."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from world import NAMESPACE, clock

from headway_operator.cluster.client import POD, Object
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.resources import RESOURCE_FLAVOR, WORKLOAD
from headway_operator.trainingjob.times import timestamp
from headway_operator.trainingjob.view import controller_uid


@dataclass
class Kueue:
    """A ClusterQueue of one flavor.

    Args:
        cluster: where the Workloads are.
        rng: says when it has time.
        log: of the history.
        quota: pods.
        patience: seconds for which a pod may be there without a reservation: one whose creation a
            dead operator had sent off comes late, and is cleared away.
    """

    cluster: MemoryCluster
    rng: random.Random
    log: Callable[[str], None]
    quota: int
    patience: float = 0.0
    unreserved: dict[str, float] = field(default_factory=dict)

    async def install(self) -> None:
        flavor = {"metadata": {"name": "plain"}, "spec": {"nodeLabels": {"pool": "plain"}}}
        await self.cluster.create(RESOURCE_FLAVOR, None, flavor)

    async def step(self) -> None:
        used = sum(map(_count, await self._workloads(reserved=True)))
        assert used <= self.quota, "more is admitted than there is"
        await self._check_pods()
        for item in await self._workloads(reserved=False):
            wanted = item["spec"]["podSets"][0]["count"]
            if self.rng.random() < 0.3 and used + wanted <= self.quota:
                used += wanted
                await self._admit(item, wanted)

    async def preempt(self, job: str) -> None:
        """Take a job's quota back, for somebody more important who is gone soon."""
        for item in await self._workloads(reserved=True):
            if item["metadata"]["labels"]["headway.dev/job-name"] == job:
                self.log(f"kueue: preempts {job}")
                await self._say(item, Evicted=("True", "Preempted", "to make room"))

    async def _admit(self, item: Object, count: int) -> None:
        self.log(f"kueue: admits {item['metadata']['name']}")
        assignment = {"name": "workers", "flavors": {"cpu": "plain"}, "count": count}
        admission = {"clusterQueue": "all", "podSetAssignments": [assignment]}
        yes, no = ("True", "Admitted", ""), ("False", "Admitted", "")
        await self._say(
            item, admission, QuotaReserved=yes, Admitted=yes, Evicted=no, PodsReady=no, Requeued=no
        )

    async def _say(
        self, item: Object, admission: Object | None = None, **conditions: tuple[str, str, str]
    ) -> None:
        held = {each["type"]: each for each in (item.get("status") or {}).get("conditions") or ()}
        for kind, (status, reason, message) in conditions.items():
            held[kind] = {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": timestamp(clock()),
            }
        status = {"conditions": list(held.values())}
        if admission is not None:
            status["admission"] = admission  # type: ignore[assignment]
        name = item["metadata"]["name"]
        await self.cluster.patch(
            WORKLOAD, NAMESPACE, name, {"status": status}, subresource="status"
        )

    async def _workloads(self, *, reserved: bool) -> list[Object]:
        return [
            item
            for item in (await self.cluster.list(WORKLOAD)).items
            if "deletionTimestamp" not in item["metadata"]
            and not _says(item, "Finished")
            and bool((item.get("status") or {}).get("admission")) == reserved
        ]

    async def _check_pods(self) -> None:
        """Only who has a reservation has pods."""
        holders = {controller_uid(item) for item in await self._workloads(reserved=True)}
        now = asyncio.get_running_loop().time()
        for pod in (await self.cluster.list(POD)).items:
            ended = (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}
            if not ended and controller_uid(pod) not in holders:
                since = self.unreserved.setdefault(pod["metadata"]["uid"], now)
                name = pod["metadata"]["name"]
                assert now - since < self.patience, f"{name} runs without a reservation"


def _says(item: Object, kind: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or ()
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def _count(item: Object) -> int:
    return int(item["status"]["admission"]["podSetAssignments"][0]["count"])
