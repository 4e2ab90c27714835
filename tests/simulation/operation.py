"""The whole operator, as it runs, on a faulty connection; it can be killed and started anew."""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime
from functools import partial

from faults import FaultyClient

from headway_api.contract import LABEL_JOB
from headway_operator.cache import Cache
from headway_operator.cluster.client import NODE, POD
from headway_operator.controller import Controller
from headway_operator.reflector import Reflector, Timing
from headway_operator.resources import (
    CLUSTER_TRAINING_RUNTIME,
    RESOURCE_FLAVOR,
    TRAINING_JOB,
    WORKLOAD,
)
from headway_operator.settings import Settings

KINDS = (CLUSTER_TRAINING_RUNTIME, NODE, TRAINING_JOB, POD, WORKLOAD, RESOURCE_FLAVOR)


class Operator:
    """One life of the operator."""

    def __init__(
        self,
        client: FaultyClient,
        settings: Settings,
        clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        self.ready = False
        self.cache = Cache()
        self.controller = Controller(client, self.cache, settings, clock=clock, rng=rng)
        timing = Timing(clock=loop.time, sleep=asyncio.sleep, jitter=rng.random)
        self._reflectors = [
            Reflector(
                client,
                kind,
                partial(self.controller.observe, kind),
                label_selector=LABEL_JOB if kind in {POD, WORKLOAD} else None,
                timing=timing,
            )
            for kind in KINDS
        ]
        self._tasks = [asyncio.create_task(reflector.run()) for reflector in self._reflectors]
        self._tasks.append(asyncio.create_task(self._run()))

    async def _run(self) -> None:
        for reflector in self._reflectors:
            await reflector.synced.wait()
        self.ready = True
        await self.controller.run()

    async def stop(self) -> None:
        """Die: nothing is finished, nothing is written."""
        self.client.crashed.set()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
