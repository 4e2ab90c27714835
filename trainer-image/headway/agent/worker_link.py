"""The Unix socket on which worker processes talk to their agent.

A script that never calls `headway.init()` never connects, and nothing here is needed for it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from headway.agent.wire import LINE_LIMIT, Channel, Message

OnMessage = Callable[[int, Message], None]
"""Called with the global rank and what it said."""


class WorkerLink:
    """Serves the workers of one generation; a new generation gets a new link.

    Attributes:
        path: Where workers connect. It leads through this process's own file descriptor of the
            folder, since the path of a Unix socket may have 107 bytes only.
    """

    def __init__(self, folder: Path, generation: int, on_message: OnMessage) -> None:
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        name = f"agent-{os.getpid()}-{generation}.sock"
        self.path = Path(f"/proc/{os.getpid()}/fd/{self._folder}/{name}")
        self._generation = generation
        self._on_message = on_message
        self._channels: dict[int, Channel] = {}
        self._server: asyncio.Server | None = None

    @property
    def ranks(self) -> set[int]:
        """Global ranks that are connected."""
        return set(self._channels)

    async def open(self) -> None:
        """Start listening."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._serve, path=str(self.path), limit=LINE_LIMIT
        )

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for channel in list(self._channels.values()):
            await channel.close()
        self.path.unlink(missing_ok=True)
        os.close(self._folder)

    def send(self, message: Message, rank: int | None = None) -> None:
        """Tell one rank, or all that are connected."""
        for each, channel in self._channels.items():
            if rank is None or rank == each:
                channel.send(message)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        hello = await channel.receive()
        if hello is None or hello.get("generation") != self._generation:
            await channel.close()
            return
        rank = int(hello["rank"])
        self._channels[rank] = channel
        while (message := await channel.receive()) is not None:
            self._on_message(rank, message)
        self._channels.pop(rank, None)
        await channel.close()
