"""A cluster connection that fails as real ones do, and an operator that dies at any write."""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from headway_operator.cluster.client import (
    Conflict,
    Gone,
    Listing,
    Object,
    Resource,
    TooManyRequests,
    Unavailable,
    WatchEvent,
)
from headway_operator.cluster.memory import MemoryCluster


@dataclass
class Faults:
    """How often what goes wrong; all 0: a good day.

    `crash_write` kills the operator at exactly that write, counted from 1, before or after it
    takes effect.
    """

    crash: float = 0.0
    error: float = 0.0
    slow_watch: float = 0.0
    broken_watch: float = 0.0
    gone: float = 0.0
    crash_write: int = 0
    crash_after: bool = False
    latency: float = 0.005


class FaultyClient:
    """The operator's `KubeClient`: the cluster behind faults drawn from a seeded random."""

    def __init__(
        self,
        cluster: MemoryCluster,
        faults: Faults,
        rng: random.Random,
        log: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._rng = rng
        self._log = log
        self.writes: list[str] = []
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
        before, after = self._crash(number)
        if before:
            await self._die("before")
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
        answer = await call()
        if after:
            await self._die("after")
        if kind == "lost answer":
            self._log("  lost answer")
            raise Unavailable(0, "NoAnswer", "simulated, carried out")
        await self._travel()
        return answer

    def _crash(self, number: int) -> tuple[bool, bool]:
        faults = self._faults
        if number == faults.crash_write:
            return not faults.crash_after, faults.crash_after
        if self._rng.random() < faults.crash:
            after = self._rng.random() < 0.5
            return not after, after
        return False, False

    async def _die(self, when: str) -> None:
        self._log(f"  the operator dies {when} this write")
        self.crashed.set()
        await asyncio.Event().wait()
