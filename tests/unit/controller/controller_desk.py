"""A controller on a cluster in memory, behind a client whose errors are written in advance."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from headway_api.contract import API_VERSION, LABEL_JOB
from headway_operator.cache import Cache
from headway_operator.cluster.client import NODE, POD, NotFound, Object, Resource
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.controller import Controller
from headway_operator.reflector import Reflector, Timing
from headway_operator.resources import CLUSTER_TRAINING_RUNTIME, TRAINING_JOB
from headway_operator.settings import Settings

LAB = "lab"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def clock() -> datetime:
    return EPOCH + timedelta(seconds=now())


def now() -> float:
    return asyncio.get_running_loop().time()


class Desk(MemoryCluster):
    """A cluster that notes when what was asked of it, and answers with errors first.

    Attributes:
        errors: by verb and kind, errors in the order in which they are raised.
        calls: time, verb, kind and name of every call but lists and watches.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(clock, **options)
        self.errors: defaultdict[tuple[str, str], list[Exception]] = defaultdict(list)
        self.calls: list[tuple[float, str, str, str]] = []

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._note("get", resource, name)
        return await super().get(resource, namespace, name)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        self._note("create", resource, body["metadata"]["name"])
        return await super().create(resource, namespace, body)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, **options: Any
    ) -> Object:
        self._note("patch", resource, name)
        return await super().patch(resource, namespace, name, body, **options)

    def times(self, verb: str, kind: str) -> list[float]:
        """When something was asked for."""
        return [time for time, *what in self.calls if what[:2] == [verb, kind]]

    def _note(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((now(), verb, resource.kind, name))
        if self.errors[verb, resource.kind]:
            raise self.errors[verb, resource.kind].pop(0)

    # --- people and kubelets, whose calls are not noted -------------------------------------------

    async def submit(self, name: str = "digits", **spec: Any) -> Object:
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": name},
            "spec": {"image": "i", "command": ["c"], **spec},
        }
        return await super().create(TRAINING_JOB, LAB, body)

    async def edit(self, spec: Object, name: str = "digits") -> None:
        await super().patch(TRAINING_JOB, LAB, name, {"spec": spec})

    async def report(self, name: str, status: Object) -> None:
        """A kubelet's word on a pod."""
        await super().patch(POD, LAB, name, {"status": status}, subresource="status")

    async def start(self, name: str = "digits-0") -> None:
        ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await self.report(name, ready)

    async def put_pod(self, name: str, **metadata: Any) -> Object:
        body = {"metadata": {"name": name, **metadata}, "spec": {}}
        return await super().create(POD, LAB, body)

    async def job(self, name: str = "digits") -> Object:
        return await super().get(TRAINING_JOB, LAB, name)

    async def status(self, name: str = "digits") -> Object:
        found: Object = (await self.job(name)).get("status") or {}
        return found

    async def stalled(self, name: str = "digits") -> str | None:
        """The message of the Stalled condition."""
        for entry in (await self.status(name)).get("conditions") or ():
            if entry["type"] == "Stalled":
                return str(entry["message"])
        return None

    async def has(self, pod: str) -> bool:
        try:
            await super().get(POD, LAB, pod)
        except NotFound:
            return False
        return True


KINDS = (CLUSTER_TRAINING_RUNTIME, NODE, TRAINING_JOB, POD)


@asynccontextmanager
async def at_work(
    desk: Desk, *, kinds: tuple[Resource, ...] = KINDS, **settings: Any
) -> AsyncIterator[Controller]:
    """A controller at work, that is told of some kinds; by default of all."""
    cache = Cache()
    controller = Controller(desk, cache, Settings(**settings), clock=clock, rng=random.Random(7))
    timing = Timing(clock=now, sleep=asyncio.sleep, jitter=lambda: 0.5)
    tasks = []
    for kind in kinds:
        observe = partial(controller.observe, kind)
        selector = LABEL_JOB if kind == POD else None
        reflector = Reflector(desk, kind, observe, label_selector=selector, timing=timing)
        tasks.append(asyncio.create_task(reflector.run()))
        await reflector.synced.wait()
    tasks.append(asyncio.create_task(controller.run()))
    try:
        yield controller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(holds: Callable[[], Any], *, within: float = 60.0) -> None:
    """Let virtual time pass until something holds; it may be a coroutine function."""
    end = now() + within
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert now() < end, "it never came to hold"
        await asyncio.sleep(0.01)
