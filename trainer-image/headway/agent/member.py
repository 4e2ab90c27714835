"""An agent as a member of its group: connected to the lead, doing what the lead says."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from headway.agent import tls
from headway.agent.config import PodConfig
from headway.agent.node import Node
from headway.agent.peers import is_silence
from headway.agent.wire import LINE_LIMIT, Channel, HandshakeFailed, Hello, Message, greet
from headway_api.contract import AGENT_PORT, ExitCode

log = logging.getLogger(__name__)
BEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0
"""A peer that says nothing for so long is lost."""
_CONNECT_SECONDS = 3.0
_RETRY_SECONDS = 0.2
_PATIENCE_SECONDS = 20.0
"""For processes that could go on in the next generation, to find that this one is over."""

T = TypeVar("T")
FindLead = Callable[[bool], Coroutine[Any, Any, str]]
"""Gives the address of the pod that leads now; waits until there is one. Is told whether the one
given last has been silent."""


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`, or None (and `work` cancelled) as soon as `stop` is set."""
    doing, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        stopping.cancel()


class Member:
    """Connects to the lead again and again, and obeys it, until it says how to exit."""

    def __init__(self, config: PodConfig, key: bytes, find_lead: FindLead) -> None:
        self._config = config
        self._key = key
        self._tls = tls.of_member(config.endpoint_ca)
        self._find_lead = find_lead
        self._channel: Channel | None = None
        self._going = asyncio.Event()
        self._silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.node = Node(config, key, self._say)

    async def run(self) -> int:
        """Take part until the group ends; returns the pod's exit code."""
        self._spawn(self.node.warm_up())
        work = asyncio.ensure_future(self._take_part())
        try:
            watched: set[asyncio.Future[Any]] = {work, self._broken}
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if self._broken.done():
                self._broken.result()
            return work.result()
        finally:
            work.cancel()
            self._broken.cancel()
            await self.node.close()

    async def _take_part(self) -> int:
        while True:
            address = await unless(self._going, self._find_lead(self._silent))
            self._silent = False
            code = None if address is None else await self._session(address)
            if code is not None:
                return code
            # Whatever ended the session, nothing of this pod may train without a lead.
            await self.node.stop(_PATIENCE_SECONDS)
            if self._going.is_set():
                await self.node.stop()
                return ExitCode.PREEMPTED
            await asyncio.sleep(_RETRY_SECONDS)

    def leave(self) -> None:
        """This pod got SIGTERM: ask the lead for a checkpoint, then leave."""
        self._going.set()
        self._say({"type": "going"})

    async def _session(self, address: str) -> int | None:
        connecting = asyncio.open_connection(
            address,
            AGENT_PORT,
            limit=LINE_LIMIT,
            ssl=self._tls,
            server_hostname=tls.hostname(self._config.namespace, self._config.job, self._tls),
        )
        try:
            reader, writer = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
        except ssl.SSLError as error:
            log.warning("%s is not the lead of this job: %s", address, error)
            return None
        except (OSError, TimeoutError) as error:
            self._silent = is_silence(error)
            return None
        channel = Channel(reader, writer)
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await greet(channel, self._key, self._hello())
        except (HandshakeFailed, TimeoutError) as error:
            self._silent = is_silence(error)
            log.warning("no agreement with the lead at %s: %s", address, error)
            await channel.close()
            return None
        self._channel = channel
        if self._going.is_set():
            self._say({"type": "going"})
        beat = asyncio.create_task(self._beat(channel))
        try:
            return await self._obey(channel)
        finally:
            self._channel = None
            beat.cancel()
            await channel.close()

    def _hello(self) -> Hello:
        here, node = self._config, self.node
        return Hello(
            here.index,
            here.pod_uid,
            node.generation,
            here.address,
            node.copies(),
            node.kept,
            node.survivors,
        )

    async def _beat(self, channel: Channel) -> None:
        while True:
            channel.send({"type": "beat"})
            await asyncio.sleep(BEAT_SECONDS)

    async def _obey(self, channel: Channel) -> int | None:
        while True:
            try:
                order = await asyncio.wait_for(channel.receive(), SILENCE_SECONDS)
            except TimeoutError:
                log.warning("the lead has been silent for %g s", SILENCE_SECONDS)
                self._silent = True
                return None
            if order is None:
                return None
            if order["type"] == "finish":
                await self.node.stop()
                return int(order["code"])
            self._follow(order)

    def _follow(self, order: Message) -> None:
        match order["type"]:
            case "start":
                self._spawn(self.node.start(order))
            case "stop":
                self._spawn(self._stop(order))
            case "meet":
                self.node.meet(order)
            case "resize":
                self._spawn(self.node.resize())
            case "keep":
                self.node.keep(order)
            case "stacks":
                self.node.show_stacks()
            case "upload":
                self.node.upload(order)
            case "terminate":
                self.node.terminate()
            case "tell":
                self.node.tell(order["message"], order.get("rank"))

    async def _stop(self, order: Message) -> None:
        await self.node.stop(order["patience"] or _PATIENCE_SECONDS)
        said = {"copies": self.node.copies(), "survivors": self.node.survivors}
        self._say({"type": "stopped", "generation": order["generation"], **said})

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A defect of ours must end the pod, loudly, instead of leaving the group hanging.
            self._broken.set_exception(error)

    def _say(self, message: Message) -> None:
        if self._channel is not None:
            self._channel.send(message)
