"""The lead: worker 0's agent drives the group.

A shell around `group` (when generations begin and end), `agreement` (steps at which all ranks
save or stop) and `committer` (which checkpoints exist). Every event goes through one queue, so
that each decision sees the whole state.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headway.agent.agreement import Agreement, Decide, Move, Propose
from headway.agent.committer import Abandoned, Committed, Committer
from headway.agent.config import PodConfig
from headway.agent.faults import describe
from headway.agent.group import Action, Begin, Finish, Group, Leave, StopAll
from headway.agent.member import SILENCE_SECONDS
from headway.agent.reporting import Reporter
from headway.agent.wire import LINE_LIMIT, Channel, HandshakeFailed, Message, welcome
from headway.checkpoint.errors import Fenced
from headway.checkpoint.layout import CheckpointId
from headway_api.contract import AGENT_PORT, STORE_PORTS, ExitCode

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_HANDSHAKE_SECONDS = 5.0
_MARGIN_BEFORE_KILL = 5.0
"""Seconds before the end of the grace period at which waiting for a checkpoint is given up."""


@dataclass
class _Connection:
    channel: Channel
    uid: str
    heard: float


class Lead:
    """Accepts the agents of the group and takes it from generation to generation."""

    def __init__(
        self,
        config: PodConfig,
        key: bytes,
        group: Group,
        committer: Committer,
        reporter: Reporter,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._tls = tls
        self._group = group
        self._committer = committer
        self._reporter = reporter
        self._connections: dict[int, _Connection] = {}
        self._queue: asyncio.Queue[Callable[[], list[Action]]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._agreement = Agreement(group.world_size)
        self._attached: set[int] = set()
        self._stop_deadline: float | None = None
        self._saved_at = time.monotonic()
        self._steady = False
        self._led = False
        self.ended: Finish | None = None

    # --- the loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until this task is cancelled; the local member learns the end like all others."""
        server = await asyncio.start_server(
            self._serve,
            host=self._config.address,
            port=AGENT_PORT,
            limit=LINE_LIMIT,
            ssl=self._tls,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._tls else None,
        )
        self._spawn(self._tick())
        try:
            while True:
                for action in (await self._queue.get())():
                    await self._act(action)
                self._report()
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    def _post(self, event: Callable[[], list[Action]]) -> None:
        self._queue.put_nowait(event)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._post(self._on_tick)

    def _on_tick(self) -> list[Action]:
        now = time.monotonic()
        for index, connection in list(self._connections.items()):
            connection.channel.send({"type": "beat"})
            if now - connection.heard > SILENCE_SECONDS:
                log.warning("worker %d has been silent for %g s", index, SILENCE_SECONDS)
                self._spawn(connection.channel.close())
        if self._stop_deadline is not None and now > self._stop_deadline:
            self._stop_deadline = None
            log.warning("no checkpoint before the end of the grace period; ending the workers")
            self._broadcast({"type": "terminate"})
        self._save_when_due(now)
        return []

    # --- connections ----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                index, uid, generation = await welcome(channel, self._key)
        except (HandshakeFailed, TimeoutError) as error:
            log.warning("refused a connection: %s", error)
            await channel.close()
            return
        address = str(writer.get_extra_info("peername")[0])
        connection = _Connection(channel, uid, time.monotonic())
        self._post(lambda: self._on_joined(index, connection, address, generation))
        while (message := await channel.receive()) is not None:
            connection.heard = time.monotonic()
            if message["type"] != "beat":
                self._post(lambda m=message: self._on_message(index, connection, m))  # type: ignore[misc]
        self._post(lambda: self._on_lost(index, connection))
        await channel.close()

    def _on_joined(
        self, index: int, connection: _Connection, address: str, generation: int
    ) -> list[Action]:
        if self._led and generation > self._group.generation:
            return self._fenced(
                f"worker {index} has been in generation {generation} of another lead"
            )
        self._group.heard(generation)
        older = self._connections.get(index)
        actions = self._on_lost(index, older) if older else []
        self._connections[index] = connection
        log.info("worker %d has joined from %s", index, address)
        return actions + self._group.joined(index, connection.uid, address)

    def _on_lost(self, index: int, connection: _Connection) -> list[Action]:
        if self._connections.get(index) is not connection:
            return []
        del self._connections[index]
        if self.ended is None:
            log.warning("worker %d is gone", index)
        return self._group.lost(index)

    # --- what members say ------------------------------------------------------------------------

    def _on_message(self, index: int, connection: _Connection, message: Message) -> list[Action]:
        if self._connections.get(index) is not connection:
            return []
        match message["type"]:
            case "exit":
                return self._on_exit(index, message)
            case "stopped":
                return self._group.node_stopped(index, int(message["generation"]))
            case "going":
                return self._on_going(index)
            case "worker" if message["generation"] == self._group.generation:
                self._on_worker(int(message["rank"]), message["message"])
        return []

    def _on_exit(self, index: int, message: Message) -> list[Action]:
        if message["code"] == ExitCode.DONE:
            log.info("rank %d has finished", message["rank"])
            if len(self._attached) < self._group.world_size:
                self._attached.discard(int(message["rank"]))
        else:
            log.warning("%s", describe(index, message).message.splitlines()[0])
        return self._group.exited(
            describe(index, message), int(message["generation"]), time.monotonic()
        )

    def _on_going(self, index: int) -> list[Action]:
        log.info("worker %d is being taken away", index)
        actions = self._group.going(index)
        member = self._group.members.get(index)
        if member is not None and member.busy and self._stop_deadline is None:
            grace = max(self._config.grace_seconds - _MARGIN_BEFORE_KILL, 1.0)
            self._stop_deadline = time.monotonic() + grace
            if len(self._attached) == self._group.world_size:
                self._move(self._agreement.propose("stop"))
            else:  # scripts that know nothing of Headway get the signal themselves
                self._broadcast({"type": "terminate"})
        return actions

    def _on_worker(self, rank: int, message: Message) -> None:
        match message["type"]:
            case "attach":
                self._attached.add(rank)
                self._agreement.reached(int(message.get("step", 0)))
            case "step":
                self._group.stepped()
                self._agreement.reached(int(message["step"]))
                self._reporter.stepped(message)
            case "restored":
                self._agreement.reached(int(message["step"]))
                self._reporter.restored(message)
            case "promise":
                self._move(self._agreement.promised(int(message["number"]), rank))
            case "refuse":
                self._move(self._agreement.refused(int(message["number"]), int(message["step"])))
            case "receipt":
                self._spawn(self._on_receipt(message))
            case "save_failed":
                self._on_save_failed(message)
            case "event":
                self._reporter.event(message["reason"], message["message"], message["severity"])

    # --- checkpoints ----------------------------------------------------------------------------

    def _save_when_due(self, now: float) -> None:
        policy = self._config.checkpoint
        ready = (
            self._committer.idle
            and self._stop_deadline is None
            and self._agreement.open is None
            and self._steady
            and len(self._attached) == self._group.world_size
        )
        if not ready:
            return
        if policy.every_steps:
            self._steady = False
            self._move(self._agreement.propose("save", policy.every_steps))
        elif now - self._saved_at >= (policy.every_seconds or 300):
            self._steady = False
            self._move(self._agreement.propose("save"))

    async def _on_receipt(self, message: Message) -> None:
        try:
            result = await self._committer.receipt(message, self._group.world_size)
        except Fenced as error:
            self._post(lambda e=error: self._fenced(str(e)))  # type: ignore[misc]
            return
        if result is not None:
            self._saved(result)

    def _on_save_failed(self, message: Message) -> None:
        checkpoint = CheckpointId(int(message["generation"]), int(message["step"]))
        self._saved(self._committer.abandon(checkpoint, str(message["message"])))

    def _saved(self, result: Committed | Abandoned) -> None:
        """A checkpoint has come to an end, one way or the other: the next one may be taken."""
        self._saved_at, self._steady = time.monotonic(), True
        told: Message = {"type": "abandoned", "step": result.step}
        if isinstance(result, Committed):
            told["type"] = "committed"
            self._reporter.committed(result)
            self._spawn(self._committer.retire())
        else:
            told["message"] = result.message
        self._broadcast({"type": "tell", "message": told})

    def _fenced(self, why: str) -> list[Action]:
        return [Finish(ExitCode.FENCED, "Fenced", why)]

    def _move(self, moves: list[Move]) -> None:
        for move in moves:
            if isinstance(move, Propose):
                message: Message = {
                    "type": "propose",
                    "number": move.number,
                    "purpose": move.purpose,
                    "step": move.step,
                }
            else:
                assert isinstance(move, Decide)
                message = {"type": "decide", "number": move.number, "accepted": move.accepted}
            self._broadcast({"type": "tell", "message": message})

    # --- actions ---------------------------------------------------------------------------------

    async def _act(self, action: Action) -> None:
        match action:
            case Begin(pause):
                self._spawn(self._begin(pause))
            case StopAll(generation):
                self._broadcast({"type": "stop", "generation": generation})
            case Leave(indices):
                # The lead goes last: the others hear from it until they are gone.
                for index in sorted(indices, reverse=True):
                    self._send(index, {"type": "finish", "code": ExitCode.PREEMPTED})
                self._stop_deadline = None
            case Finish():
                await self._finish(action)

    async def _finish(self, finish: Finish) -> None:
        if self.ended is not None:
            return
        if finish.code == ExitCode.DONE:
            await self._committer.settle()
        self.ended = finish
        log.info("the group ends: %s", finish.message.splitlines()[0])
        for index in sorted(self._connections, reverse=True):
            code = finish.code
            if index and code:
                code = ExitCode.PEER_LOST  # not the culprit: only the lead's pod tells the reason
            self._send(index, {"type": "finish", "code": int(code)})

    async def _begin(self, pause: float) -> None:
        if pause:
            log.info("restarting in %g s", pause)
        await asyncio.sleep(pause)
        try:
            generation = await self._committer.claim(self._group.highest)
        except Fenced as error:
            self._post(lambda e=error: self._fenced(str(e)))  # type: ignore[misc]
            return
        self._post(lambda: self._start(generation))

    def _start(self, generation: int) -> list[Action]:
        group = self._group
        if group.missing or group.leaving or generation <= group.highest:
            return group.interrupted()
        self._agreement = Agreement(group.world_size)
        self._attached.clear()
        self._stop_deadline, self._steady = None, True
        self._saved_at = time.monotonic()
        self._led = True
        group.began(generation, time.monotonic())
        self._reporter.began(generation)
        log.info("generation %d starts with %d ranks", generation, group.world_size)
        self._broadcast(
            {
                "type": "start",
                "generation": generation,
                "world_size": group.world_size,
                "master_addr": self._config.address,
                "master_port": store_port(self._config.address, generation),
            }
        )
        return []

    def _report(self) -> None:
        group = self._group
        waiting = f"waiting for workers {group.missing}" if group.missing else ""
        self._reporter.group(group.state.value, waiting, group.total, group.counted, group.last)

    def _broadcast(self, message: Message) -> None:
        for index in self._connections:
            self._send(index, message)

    def _send(self, index: int, message: Message) -> None:
        connection = self._connections.get(index)
        if connection is not None:
            connection.channel.send(message)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            error = task.exception()
            self._post(lambda: _broken(error))


def _broken(error: BaseException | None) -> list[Action]:
    """A defect of ours in a background task ends the lead, loudly, instead of hanging it."""
    assert error is not None
    raise error


def store_port(address: str, generation: int) -> int:
    """A port for the store of this generation that nobody listens on now.

    Generations of a pod begin at different places of the range, so that no port comes back soon;
    so do pods, which in local mode share one machine: between this look and the moment at which
    torch listens lie the seconds in which it is imported.

    Raises:
        OSError: no port of the range is free.
    """
    first, last = STORE_PORTS
    start = zlib.crc32(address.encode()) + generation * 7
    for offset in range(last - first):
        port = first + (start + offset) % (last - first)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))  # as torch does: on all addresses
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {first} and {last} for the group's store")
