"""A pod's part in how Horovod's ranks of a generation meet."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable

from headway.agent.config import PodConfig
from headway.agent.horovod.environment import Slot, environment
from headway.agent.horovod.rendezvous import Rendezvous, Store
from headway.agent.wire import Message

_GLOBAL = "global"
"""The scope in which all ranks tell where they are (HOROVOD_GLOO_GLOBAL_PREFIX)."""


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
        self._stores: dict[int, Store] = {}
        self._rendezvous: Rendezvous | None = None

    async def open(self, generation: int) -> None:
        """Serve a new generation, whose store is its own."""
        self.close()
        self._generation = generation
        self._stores = {g: s for g, s in self._stores.items() if g >= generation}
        self._rendezvous = Rendezvous(self._store(generation), self._share)
        self._port = await self._rendezvous.open()

    def close(self) -> None:
        """Stop serving."""
        if self._rendezvous is not None:
            self._rendezvous.close()
            self._rendezvous = None

    def environment(self, local_rank: int) -> dict[str, str]:
        """Horovod's variables for a rank of this pod."""
        here = self._config
        slot = Slot.of(here.index, here.replicas, local_rank, here.processes)
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
        ranks = range(self._config.world_size)
        return [rank for rank in ranks if f"{_GLOBAL}/{rank}" not in told] if told else []

    def _store(self, generation: int) -> Store:
        return self._stores.setdefault(generation, Store())

    def _share(self, path: str, value: bytes | None) -> None:
        text = None if value is None else base64.b64encode(value).decode()
        self._say({"type": "meet", "generation": self._generation, "path": path, "value": text})
