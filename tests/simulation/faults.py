"""A cluster connection that fails as real ones do, and an operator that dies at any write."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, get_args

from invariants import CheckedCluster

from headway_operator.cluster.client import (
    ApiError,
    Conflict,
    Gone,
    Listing,
    Object,
    Resource,
    TooManyRequests,
    Unavailable,
    WatchEvent,
)

Moment = Literal["before", "after", "on its way"]
MOMENTS: tuple[Moment, ...] = get_args(Moment)


@dataclass
class Faults:
    """How often what goes wrong; all 0: a good day.

    `crash_write` kills the operator at exactly that write, counted from 1, before or after it
    takes effect, or while it is on its way: it arrives when the next operator is at work.
    """

    crash: float = 0.0
    error: float = 0.0
    slow_watch: float = 0.0
    broken_watch: float = 0.0
    gone: float = 0.0
    crash_write: int = 0
    crash_moment: Moment = "before"
    latency: float = 0.005


class FaultyClient:
    """The operator's `KubeClient`: the cluster behind faults drawn from a seeded random."""

    def __init__(
        self,
        cluster: CheckedCluster,
        faults: Faults,
        rng: random.Random,
        log: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._rng = rng
        self._log = log
        self.writes: list[str] = []
        self.on_their_way: list[asyncio.Task[None]] = []
        self.crashed = asyncio.Event()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        await self._travel()
        return await self._cluster.get(resource, namespace, name)

    async def list(self, resource: Resource, **options: Any) -> Listing:
        await self._travel()
        if self._rng.random() < self._faults.error:
            raise Unavailable(500, "InternalError", "list failed")
        listing = await self._cluster.list(resource, **options)
        await self._travel()
        return listing

    async def watch(self, resource: Resource, **options: Any) -> AsyncGenerator[WatchEvent, None]:
        stream = self._cluster.watch(resource, **options)
        async with aclosing(stream):
            async for event in stream:
                await self._travel()
                if self._rng.random() < self._faults.slow_watch:
                    await asyncio.sleep(self._rng.uniform(0, 8))
                if self._rng.random() < self._faults.gone:
                    # This event is lost, and whatever happens meanwhile: found by the relist.
                    await asyncio.sleep(self._rng.uniform(0, 10))
                    self._cluster.compact()
                    raise Gone(410, "Expired", "too old")
                if self._rng.random() < self._faults.broken_watch:
                    raise Unavailable(0, "NoAnswer", "connection lost")
                yield event
                if self._rng.random() < self._faults.slow_watch:
                    yield event  # twice

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        said = f"create {resource.kind} {body['metadata']['name']}"
        return await self._write(said, lambda: self._cluster.create(resource, namespace, body))

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, **options: Any
    ) -> Object:
        said = f"patch {resource.kind} {name} {body.get('status')}"
        return await self._write(
            said, lambda: self._cluster.patch(resource, namespace, name, body, **options)
        )

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Object, **options: Any
    ) -> Object:
        return await self._write(
            f"apply {resource.kind} {name}",
            lambda: self._cluster.apply(resource, namespace, name, body, **options),
        )

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, **options: Any
    ) -> None:
        said = f"delete {resource.kind} {name} {options}"
        await self._write(said, lambda: self._cluster.delete(resource, namespace, name, **options))

    async def pod_log(self, namespace: str, name: str, *, tail_lines: int | None = None) -> str:
        return await self._cluster.pod_log(namespace, name, tail_lines=tail_lines)

    async def _travel(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, self._faults.latency))

    async def _write(self, said: str, call: Callable[[], Awaitable[Any]]) -> Any:
        await self._travel()
        if self.crashed.is_set():  # the dead don't write
            await asyncio.Event().wait()
        number = len(self.writes) + 1
        self.writes.append(said)
        self._log(f"operator #{number}: {said}")
        crash = self._crash(number)
        if crash == "on its way":
            self.on_their_way.append(asyncio.create_task(self._arrive_late(call)))
        if crash in {"before", "on its way"}:
            await self._die(crash)
        kind = self._rng.random() < self._faults.error and self._rng.choice(
            ["conflict", "busy", "lost request", "lost answer"]
        )
        if kind and kind != "lost answer":
            self._log(f"  {kind}")
        if kind == "conflict" and said.startswith("patch"):
            raise Conflict(409, "Conflict", "simulated")
        if kind == "busy":
            raise TooManyRequests(429, "TooManyRequests", "simulated", self._rng.choice([None, 2]))
        if kind == "lost request":
            raise Unavailable(500, "InternalError", "simulated, not carried out")
        try:
            answer = await call()
        finally:
            if crash == "after":
                await self._die(crash)
        if kind == "lost answer":
            self._log("  lost answer")
            raise Unavailable(0, "NoAnswer", "simulated, carried out")
        await self._travel()
        return answer

    async def _arrive_late(self, call: Callable[[], Awaitable[Any]]) -> None:
        await asyncio.sleep(self._rng.uniform(0, 60))
        with self._cluster.late_write():
            try:
                await call()
            except ApiError as error:
                self._log(f"a dead operator's write arrives: {error}")
            else:
                self._log("a dead operator's write arrives, and is carried out")

    def _crash(self, number: int) -> Moment | None:
        faults = self._faults
        if number == faults.crash_write:
            return faults.crash_moment
        if self._rng.random() < faults.crash:
            return self._rng.choice(MOMENTS)
        return None

    async def _die(self, when: str) -> None:
        self._log(f"  the operator dies, this write is: {when}")
        self.crashed.set()
        await asyncio.Event().wait()
