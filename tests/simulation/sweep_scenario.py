"""One simulated sweep, whose operator dies, and what has to be true at its end."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from faults import Faults, FaultyClient
from sweep_world import (
    NAMESPACE,
    TERMINAL,
    Curve,
    SweepCluster,
    Trainings,
    a_sweep,
    clock,
    now,
    the_sweep,
)

from headway_api.contract import LABEL_SWEEP
from headway_operator.cluster.client import Object
from headway_operator.metrics import Metrics
from headway_operator.reflector import Reflector, Timing
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.settings import Settings
from headway_operator.sweep.chooser import chosen
from headway_operator.sweep.controller import SweepController

PATIENCE = 4000.0


async def choose(*arguments: Any) -> Any:
    """In this process: a virtual clock does not wait for another."""
    return chosen(*arguments)


class SweepOperator:
    """One life of the operator, as far as sweeps are concerned."""

    def __init__(self, client: FaultyClient, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.controller = SweepController(
            client, Settings(), Metrics(), choose, clock=clock, rng=rng
        )
        timing = Timing(clock=loop.time, sleep=asyncio.sleep, jitter=rng.random)
        self._reflectors = [
            Reflector(client, kind, partial(self.controller.observe, kind), timing=timing)
            for kind in (SWEEP, SWEEP_RECORD, TRAINING_JOB)
        ]
        self._tasks = [asyncio.create_task(reflector.run()) for reflector in self._reflectors]
        self._tasks.append(asyncio.create_task(self._run()))

    async def _run(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()
        await self.controller.run()

    async def stop(self) -> None:
        """Die: nothing is finished, nothing is written."""
        self.client.crashed.set()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


class SweepSimulation:
    """A sweep, its trials, and an operator that keeps dying."""

    def __init__(self, seed: int, faults: Faults | None = None, curve: Curve | None = None) -> None:
        self.rng = random.Random(seed)
        self.faults = faults or Faults()
        self.trace: list[str] = []
        self.writes: list[str] = []
        self.bugs: list[str] = []
        self.cluster = SweepCluster(clock)
        self.world = Trainings(self.cluster, self.rng, self.log, curve or Curve())
        self.operator: SweepOperator | None = None
        self.on_their_way: list[asyncio.Task[None]] = []
        self.starts_at = 0.0
        self.to_the_end = 0
        """Writes until the sweep was over."""

    def log(self, text: str) -> None:
        self.trace.append(f"{now():8.2f} {text}")

    async def submit(self, **spec: Any) -> None:
        await self.cluster.create(SWEEP, NAMESPACE, a_sweep(**spec))

    async def edit(self, **spec: Any) -> None:
        self.log(f"user: edits {spec}")
        await self.cluster.patch(SWEEP, NAMESPACE, "sweep", {"spec": spec})

    async def moment(self) -> None:
        seconds = self.rng.uniform(0.3, 1.0)
        await asyncio.sleep(seconds)
        await self.world.step(seconds)
        if self.operator is not None and self.operator.client.crashed.is_set():
            await self.stop()
            self.starts_at = now() + self.rng.uniform(0, 20)
        if self.operator is None and now() >= self.starts_at:
            self.log("the operator starts")
            client = FaultyClient(self.cluster, self.faults, self.rng, self.log)
            client.writes, client.on_their_way = self.writes, self.on_their_way
            self.operator = SweepOperator(client, self.rng)
        assert not self.cluster.broken, self.cluster.broken[0]
        assert not self.bugs, self.bugs[0]

    async def stop(self) -> None:
        if self.operator is not None:
            await self.operator.stop()
        self.operator = None

    async def until(self, condition: Callable[[Object], bool], what: str) -> Object:
        while not condition((found := await the_sweep(self.cluster)).get("status") or {}):
            assert now() < PATIENCE, f"never {what}"
            await self.moment()
        return found

    async def until_over(self) -> Object:
        """Wait for the end of the sweep, and see that nothing is left to do then."""
        ended = await self.until(lambda status: status.get("phase") in TERMINAL, "over")
        self.to_the_end = len(self.writes)
        self.faults = Faults()
        await self.stop()
        await asyncio.gather(*self.on_their_way)
        self.starts_at = 0.0
        for _ in range(60):
            await self.moment()
        before = len(self.writes)
        await asyncio.sleep(700)
        assert self.writes[before:] == [], "the operator writes though nothing is left to do"
        await self.stop()
        found = await the_sweep(self.cluster)
        assert found["status"]["phase"] == ended["status"]["phase"]
        return found

    async def jobs(self) -> list[Object]:
        return (await self.cluster.list(TRAINING_JOB, label_selector=LABEL_SWEEP)).items
