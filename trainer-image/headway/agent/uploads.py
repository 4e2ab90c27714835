"""The agent's side of the uploader process (see `uploader`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable

from headway.agent import orphans
from headway.agent.wire import LINE_LIMIT, Channel, Message

log = logging.getLogger(__name__)
_AGAIN_SECONDS = 1.0


class Uploads:
    """Keeps an uploader running, and gives it the newest order again should it die.

    Args:
        on_message: Called with what it says.
    """

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._process: asyncio.subprocess.Process | None = None
        self._channel: Channel | None = None
        self._order: Message | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pids(self) -> set[int]:
        """The process, if there is one."""
        return {self._process.pid} if self._process else set()

    def start(self) -> None:
        """Start the process; it takes a second to be there."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    def order(self, message: Message) -> None:
        """Send a checkpoint; one that is on its way is given up for it."""
        self._order = message
        self.start()
        if self._channel is not None:
            self._channel.send(message)

    async def stop(self) -> None:
        """End the process."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
            self._keeper = None

    async def _keep(self) -> None:
        while True:
            try:
                await self._serve()
            finally:
                self._channel = None
                if self._process is not None:
                    if self._process.returncode is None:
                        with contextlib.suppress(ProcessLookupError):
                            self._process.kill()
                    await self._process.wait()
                    orphans.awaited.discard(self._process.pid)
                    self._process = None
            log.warning("the uploader has ended; starting another one")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _serve(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headway.agent.uploader",
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        orphans.awaited.add(self._process.pid)
        reader, writer = await asyncio.open_connection(sock=ours, limit=LINE_LIMIT)
        self._channel = Channel(reader, writer)
        if self._order is not None:
            self._channel.send(self._order)
        try:
            while (message := await self._channel.receive()) is not None:
                self._on_message(message)
        finally:
            await self._channel.close()
