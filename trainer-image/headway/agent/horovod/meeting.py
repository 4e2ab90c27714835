"""A pod's part in how Horovod's ranks of a generation meet, and meet again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
from collections.abc import Callable, Collection

from headway.agent.config import PodConfig
from headway.agent.horovod.environment import Slot, environment
from headway.agent.horovod.notification import Listener, NotificationError, notify
from headway.agent.horovod.rendezvous import Rendezvous, Store
from headway.agent.placement import Placement
from headway.agent.wire import Message

log = logging.getLogger(__name__)
_GLOBAL = "global"
"""The scope in which all ranks tell where they are (HOROVOD_GLOO_GLOBAL_PREFIX)."""
_NEW_PLACE = "rank_and_size"
"""The scope in which a process that goes on asks for its new place, by `host:local rank`."""
_LISTENER = "worker_addresses"
"""The scope in which a process of an elastic script tells where it listens."""


class Meeting:
    """Keeps the store of the current generation, in step with those of the other pods.

    Args:
        config: This pod.
        say: Sends a message to the lead, which passes it on to the other pods.
    """

    def __init__(self, config: PodConfig, say: Callable[[Message], None]) -> None:
        self._config = config
        self._say = say
        self._generation = self._port = 0
        self._placement = Placement(())
        self._stores: dict[int, Store] = {}
        self._rendezvous: Rendezvous | None = None
        self._listeners: dict[int, Listener] = {}
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._news = asyncio.Event()

    async def open(
        self, generation: int, placement: Placement, going_on: Collection[int] = ()
    ) -> None:
        """Serve a new generation, whose store is its own.

        Args:
            generation: Its number.
            placement: Its ranks.
            going_on: Local ranks whose process has waited for it.
        """
        self._generation, self._placement = generation, placement
        self._stores = {g: s for g, s in self._stores.items() if g >= generation}
        self._listeners = {k: v for k, v in self._listeners.items() if k in going_on}
        if self._rendezvous is not None and going_on:
            # They know no other port. Nobody else is left who could write into the new store.
            self._rendezvous.store = self._store(generation)
        else:
            self.close()
            self._rendezvous = Rendezvous(self._store(generation), self._put, self._ask)
            self._port = await self._rendezvous.open()
        for local_rank, answer in list(self._waiting.items()):
            if local_rank in going_on:
                answer.set_result(self._slot(local_rank).answer.encode())
                self._say_resizable(local_rank)
            else:
                answer.cancel()
        self._waiting.clear()

    def close(self) -> None:
        """Stop serving."""
        if self._rendezvous is not None:
            self._rendezvous.close()
            self._rendezvous = None

    def environment(self, local_rank: int) -> dict[str, str]:
        """Horovod's variables for a rank of this pod."""
        here, slot = self._config, self._slot(local_rank)
        return environment(slot, here.pod_name, here.address, self._port, os.environ)

    def hear(self, message: Message) -> None:
        """Take over what a rank of another pod has changed. It may be faster than our start."""
        generation, value = int(message["generation"]), message["value"]
        if generation >= self._generation:
            data = None if value is None else base64.b64decode(value)
            self._store(generation).change(str(message["path"]), data)

    def absent(self) -> list[int]:
        """Ranks that have not told where they are; none if nobody has: the script may not ask."""
        told = {path for path in self._store(self._generation) if path.startswith(f"{_GLOBAL}/")}
        ranks = range(self._placement.world_size)
        return [rank for rank in ranks if f"{_GLOBAL}/{rank}" not in told] if told else []

    # --- processes that go on --------------------------------------------------------------------

    @property
    def resizable(self) -> set[int]:
        """Local ranks whose script is elastic: they can go on in another generation."""
        return set(self._listeners)

    @property
    def waiting(self) -> set[int]:
        """Local ranks that have left the generation, and wait for the next one."""
        return set(self._waiting)

    async def news(self, seconds: float) -> None:
        """Wait until another rank waits, or has ended; at most so long."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    def ended(self, local_rank: int) -> None:
        """The process of this rank is gone."""
        self._listeners.pop(local_rank, None)
        if answer := self._waiting.pop(local_rank, None):
            answer.cancel()
        self._news.set()

    async def notify(self) -> None:
        """Tell all ranks that can go on that the group is to have another size."""
        for listener in list(self._listeners.values()):
            try:
                await notify(listener)
            except NotificationError as error:
                log.warning("%s", error)

    async def _ask(self, path: str) -> bytes | None:
        scope, _, process = path.partition("/")
        if scope != _NEW_PLACE:
            return None
        local_rank = _local_rank(process)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[local_rank] = answer
        self._news.set()
        return await answer

    def _say_resizable(self, local_rank: int) -> None:
        rank = self._placement.rank(self._config.index, local_rank)
        self._say({"type": "resizable", "generation": self._generation, "rank": rank})

    # --- the store -------------------------------------------------------------------------------

    def _slot(self, local_rank: int) -> Slot:
        return Slot.of(self._placement, self._config.index, local_rank)

    def _store(self, generation: int) -> Store:
        return self._stores.setdefault(generation, Store())

    def _put(self, path: str, value: bytes | None) -> None:
        scope, _, key = path.partition("/")
        if scope != _LISTENER:
            text = None if value is None else base64.b64encode(value).decode()
            self._say({"type": "meet", "generation": self._generation, "path": path, "value": text})
        elif value is not None:
            self._listen(_local_rank(key), value)

    def _listen(self, local_rank: int, value: bytes) -> None:
        try:
            self._listeners[local_rank] = Listener.told(value)
        except NotificationError as error:
            log.warning("local rank %d can't be told of other sizes: %s", local_rank, error)
        else:
            self._say_resizable(local_rank)


def _local_rank(process: str) -> int:
    """Of a process as Horovod names it: `host:local rank`."""
    return int(process.rpartition(":")[2])
