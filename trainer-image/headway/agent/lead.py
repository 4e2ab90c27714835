"""The lead: worker 0's agent drives the group.

A shell around `group` (when generations begin and end) and `checkpoints` (what is saved, sent,
and started from). Every event goes through one queue, so that each decision sees the whole state.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from headway.agent.checkpoints import Checkpoints
from headway.agent.committer import Committer
from headway.agent.config import PodConfig
from headway.agent.faults import describe, utc
from headway.agent.group import Action, Begin, Drain, Finish, Group, Leave, State, StopAll, Wait
from headway.agent.member import SILENCE_SECONDS
from headway.agent.memory import Copy
from headway.agent.ports import store_port
from headway.agent.reporting import Reporter
from headway.agent.sources import Source
from headway.agent.wire import LINE_LIMIT, Channel, HandshakeFailed, Hello, Message, welcome
from headway.checkpoint.errors import Fenced
from headway_api.contract import AGENT_PORT, ExitCode
from headway_api.messages import Directions, Peer

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_HANDSHAKE_SECONDS = 5.0
_FIRST_CALL_SECONDS = 5.0
"""Time that a pod which has an address already gets to find a lead that is new."""
_STACKS_SECONDS = 2.0
"""Time for workers to write their stacks to the log."""
_LAST_SECONDS = 60.0
"""Longest time that the end of a failed group waits for storage."""
_TIME_TO_LEAVE = 0.9
"""Part of the grace period after which the pods go, whatever has been saved by then."""
_TIME_TO_SAVE = 0.5
"""Part of the grace period in which a last checkpoint has to be in memory: if it is not, the
workers hang, and the rest of the time is for sending the one before."""


@dataclass
class _Connection:
    channel: Channel
    uid: str
    heard: float
    address: str
    copies: list[Copy]


class Lead:
    """Accepts the agents of the group and takes it from generation to generation."""

    def __init__(
        self,
        config: PodConfig,
        key: bytes,
        group: Group,
        committer: Committer,
        reporter: Reporter,
        peers: Sequence[Peer] = (),
        tls: ssl.SSLContext | None = None,
        directions: Directions | None = None,
    ) -> None:
        self._config = config
        self._key = key
        self._tls = tls
        self._group = group
        self._reporter = reporter
        self._checkpoints = Checkpoints(config, committer, reporter, self._send, self._spawn)
        self._connections: dict[int, _Connection] = {}
        now = time.monotonic()
        self._absent = {p.index: (p.uid, now + _FIRST_CALL_SECONDS) for p in peers if p.index}
        self._queue: asyncio.Queue[Callable[[], list[Action]]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._attached: set[int] = set()
        self._resizable: set[int] = set()
        self._stop_deadline: float | None = None
        self._leave_at = 0.0
        self._progress_at = now
        self._dumping = self._led = False
        self.ended: Finish | None = None
        self._follow(directions or Directions())

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
                self._reporter.lost(index, connection.uid)
                self._spawn(connection.channel.close())
        for index, (uid, since) in list(self._absent.items()):
            if index >= self._group.replicas:  # it is not asked for any more
                del self._absent[index]
            elif now - since > SILENCE_SECONDS and self.ended is None:
                # The operator knows whether it has heard of it since.
                self._reporter.lost(index, uid)
                del self._absent[index]
        if self._stop_deadline is not None and now > self._stop_deadline:
            self._stop_deadline = None
            log.warning("no checkpoint before the end of the grace period; ending the workers")
            self._send({"type": "terminate"})
        if self._group.draining and now > self._leave_at:
            return self._group.abandoned()
        self._save_when_due(now)
        self._look_for_hang(now)
        return []

    def _save_when_due(self, now: float) -> None:
        training = self._group.state is State.RUNNING and self._all_attached
        if training and self._stop_deadline is None:
            self._checkpoints.bound_when_changed()
            self._checkpoints.save_when_due(now)

    # --- connections ----------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                hello = await welcome(channel, self._key)
        except (HandshakeFailed, TimeoutError) as error:
            log.warning("refused a connection: %s", error)
            await channel.close()
            return
        index = hello.index
        copies = [Copy.told(each) for each in hello.copies]
        connection = _Connection(channel, hello.uid, time.monotonic(), hello.address, copies)
        self._post(lambda: self._on_joined(index, connection, hello))
        while (message := await channel.receive()) is not None:
            connection.heard = time.monotonic()
            if message["type"] != "beat":
                self._post(lambda m=message: self._on_message(index, connection, m))  # type: ignore[misc]
        self._post(lambda: self._on_lost(index, connection))
        await channel.close()

    def _on_joined(self, index: int, connection: _Connection, hello: Hello) -> list[Action]:
        if self._led and hello.generation > self._group.generation:
            return self._fenced(
                f"worker {index} has been in generation {hello.generation} of another lead"
            )
        self._group.heard(hello.generation)
        older = self._connections.get(index)
        actions = self._on_lost(index, older) if older else []
        self._connections[index] = connection
        self._absent.pop(index, None)
        self._reporter.found(index)
        for kept in hello.kept:
            self._checkpoints.keep(kept)
        log.info("worker %d has joined from %s", index, connection.address)
        return actions + self._group.joined(
            index, connection.uid, connection.address, hello.survivors
        )

    def resize(self, replicas: int) -> None:
        """The group should have so many pods now."""
        self._post(lambda: self._group.resized(replicas))

    def direct(self, directions: Directions) -> None:
        """What the job wants now."""
        self._post(lambda: self._follow(directions))

    def _follow(self, directions: Directions) -> list[Action]:
        self._directions = directions
        self._reporter.observe(directions.observe)
        self._checkpoints.pause_at = directions.pause_at_step
        return []

    def _on_lost(self, index: int, connection: _Connection) -> list[Action]:
        if self._connections.get(index) is not connection:
            return []
        del self._connections[index]
        self._absent[index] = (connection.uid, time.monotonic())
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
                connection.copies = [Copy.told(each) for each in message["copies"]]
                survivors = message["survivors"]
                return self._group.node_stopped(index, int(message["generation"]), survivors)
            case "unready" if message["generation"] == self._group.generation:
                self._checkpoints.distrust_memory()
                return self._group.abandoned()
            case "going":
                return self._on_going(index)
            case _:
                self._on_word(index, message)
        return []

    def _on_word(self, index: int, message: Message) -> None:
        """What changes nothing about the group."""
        current = message.get("generation") == self._group.generation
        match message["type"]:
            case "worker" if current:
                self._on_worker(int(message["rank"]), message["message"])
            case "meet" if current:
                for other in set(self._group.placement.pods) - {index}:
                    self._send(message, to=other)
            case "resizable" if current:
                self._resizable.add(int(message["rank"]))
            case "receipt":
                self._spawn(self._on_receipt(message))
            case "unsent" | "failed" | "waiting":
                self._checkpoints.on_uploader(message)

    @property
    def _all_attached(self) -> bool:
        """Whether every rank takes part in agreements: its script calls `headway.init()`."""
        return len(self._attached) == self._group.world_size

    def _on_exit(self, index: int, message: Message) -> list[Action]:
        if message["code"] == ExitCode.DONE:
            log.info("rank %d has finished", message["rank"])
            if len(self._attached) < self._group.world_size:
                self._attached.discard(int(message["rank"]))
        elif message["code"] == ExitCode.PAUSED and self._group.pausing is not None:
            log.info("rank %d has paused", message["rank"])
        elif message["generation"] == self._group.generation:
            log.warning("%s", describe(index, message).message.splitlines()[0])
        return self._group.exited(
            describe(index, message), int(message["generation"]), time.monotonic()
        )

    def _on_going(self, index: int) -> list[Action]:
        log.info("worker %d is being taken away", index)
        actions = self._group.going(index)
        member = self._group.members.get(index)
        if member is not None and member.busy:
            actions += self._stop_together()
        return actions

    def _stop_together(self) -> list[Action]:
        """Have all ranks save and stop after the same step, as far as their script can."""
        if self._stop_deadline is not None or self._group.state is not State.RUNNING:
            return []
        now, grace = time.monotonic(), self._config.grace_seconds
        self._stop_deadline = self._leave_at = now + _TIME_TO_LEAVE * grace
        if self._all_attached:
            self._stop_deadline = now + _TIME_TO_SAVE * grace
            self._checkpoints.stop()
        elif len(self._resizable) == self._group.world_size:
            # They come to their next `state.commit()`, and wait there for their new places.
            if not self._group.leaving:
                self._stop_deadline = now + self._group.policy.progress_deadline_seconds
            self._send({"type": "resize", "generation": self._group.generation})
            return self._group.drained()
        else:  # scripts that know nothing of Headway get the signal themselves
            self._send({"type": "terminate"})
        return []

    def _on_attached(self, rank: int, step: int) -> None:
        self._attached.add(rank)
        self._progress_at = time.monotonic()
        self._checkpoints.reached(step)
        if self._stop_deadline is not None and self._all_attached:
            # It was sent SIGTERM as a script that knows nothing of us, and took no notice.
            self._checkpoints.stop()

    def _on_worker(self, rank: int, message: Message) -> None:
        match message["type"]:
            case "attach":
                self._on_attached(rank, int(message.get("step", 0)))
            case "step":
                self._group.stepped()
                self._progress_at = time.monotonic()
                self._checkpoints.stepped(int(message["step"]))
                self._reporter.stepped(message)
            case "restored":
                self._checkpoints.restored(message)
            case "event":
                self._reporter.event(message["reason"], message["message"], message["severity"])
            case _:
                self._on_save(rank, message)

    def _on_save(self, rank: int, message: Message) -> None:
        if message["type"] == "pausing":
            self._group.pausing = int(message["step"])
        self._checkpoints.on_rank(rank, message)
        if self._stop_deadline is not None and self._checkpoints.stop_is_sealed:
            self._stop_deadline = self._leave_at  # now only storage is waited for
        self._save_when_due(time.monotonic())

    async def _on_receipt(self, message: Message) -> None:
        try:
            await self._checkpoints.receipt(message)
        except Fenced as error:
            self._post(lambda e=error: self._fenced(str(e)))  # type: ignore[misc]

    # --- hangs -----------------------------------------------------------------------------------

    def _look_for_hang(self, now: float) -> None:
        """A script that has reported steps, and reports none for too long, has hung."""
        deadline = self._group.policy.progress_deadline_seconds
        watched = self._group.state is State.RUNNING and self._attached and not self._dumping
        if not watched or self._stop_deadline is not None or now - self._progress_at < deadline:
            return
        self._dumping = True
        log.warning("no step for %g s; the stacks of all workers follow", deadline)
        self._send({"type": "stacks"})
        self._spawn(self._end_hang(self._group.generation, deadline))

    async def _end_hang(self, generation: int, deadline: float) -> None:
        await asyncio.sleep(_STACKS_SECONDS)
        self._post(
            lambda: self._group.hung(generation, deadline, time.monotonic(), utc(time.time()))
        )

    def _fenced(self, why: str) -> list[Action]:
        return [Finish(ExitCode.FENCED, "Fenced", why)]

    # --- actions ---------------------------------------------------------------------------------

    async def _act(self, action: Action) -> None:
        match action:
            case Begin(pause):
                self._spawn(self._begin(pause))
            case StopAll(generation):
                patience = self._stop_deadline and self._stop_deadline - time.monotonic()
                self._stop_deadline = None if patience else self._stop_deadline
                self._send({"type": "stop", "generation": generation, "patience": patience})
            case Drain():
                log.info("the group is to have %d workers", self._group.replicas)
                for each in self._stop_together():
                    await self._act(each)
            case Wait(number, seconds):
                log.info("waiting %g s for workers %s", seconds, self._group.missing)
                self._spawn(self._wait(number, seconds))
            case Leave(indices):
                self._spawn(self._let_go(indices))
            case Finish():
                self._spawn(self._finish(action))

    async def _wait(self, number: int, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._post(lambda: self._group.waited(number))

    async def _let_go(self, indices: Collection[int]) -> None:
        await self._send_the_rest(self._leave_at - time.monotonic())
        # The lead goes last: the others hear from it until they are gone.
        for index in sorted(indices, reverse=True):
            self._send({"type": "finish", "code": ExitCode.PREEMPTED}, to=index)
        self._stop_deadline = None

    async def _send_the_rest(self, seconds: float) -> None:
        if not self._group.absent:
            await self._checkpoints.send_the_rest(seconds)

    async def _finish(self, finish: Finish) -> None:
        if self.ended is not None:
            return
        self.ended = finish
        if self._group.pausing is not None and finish.code == ExitCode.PAUSED:
            self._reporter.paused(self._group.pausing)
        if finish.code in (ExitCode.DONE, ExitCode.PAUSED):
            await self._checkpoints.settle()
        elif finish.code != ExitCode.FENCED:
            await self._send_the_rest(_LAST_SECONDS)
        log.info("the group ends: %s", finish.message.splitlines()[0])
        for index in sorted(self._connections, reverse=True):
            code = finish.code
            if index and code not in (ExitCode.DONE, ExitCode.PAUSED):
                code = ExitCode.PEER_LOST  # not the culprit: only the lead's pod tells the reason
            self._send({"type": "finish", "code": int(code)}, to=index)

    async def _begin(self, pause: float) -> None:
        if pause:
            log.info("restarting in %g s", pause)
        await asyncio.sleep(pause)
        try:
            placement = self._group.next_placement
            # Who has other ranks now may have to start from storage.
            if placement != self._group.placement and not self._checkpoints.in_memory(
                placement, self._held
            ):
                await self._send_the_rest(_LAST_SECONDS)
            # Another lead has led those who hold something: is there anything newer?
            look = not self._led and any(self._held.values())
            generation = await self._checkpoints.claim(self._group.highest, look=look)
        except Fenced as error:
            self._post(lambda e=error: self._fenced(str(e)))  # type: ignore[misc]
            return
        self._post(lambda: self._start(generation))

    def _start(self, generation: int) -> list[Action]:
        group = self._group
        if not group.may_begin or generation <= group.highest:
            return group.interrupted()
        before = group.placement
        self._attached.clear()
        self._resizable.clear()
        self._stop_deadline, self._dumping = None, False
        self._progress_at = time.monotonic()
        self._led = True
        group.began(generation, time.monotonic())
        self._reporter.began(generation)
        source = self._checkpoints.begin(generation, group.placement, self._held)
        if before.world_size not in (0, group.world_size):
            self._resized(before.world_size)
        where = f" from {source.id} in memory" if source else ""
        log.info("generation %d starts with %d ranks%s", generation, group.world_size, where)
        start = {
            "type": "start",
            "generation": generation,
            "world_size": group.world_size,
            "master_addr": self._config.address,
            "master_port": store_port(self._config.address, generation),
            "ranks": group.placement.message,
            "directions": self._directions.wire(),
        }
        for index in group.placement.pods:
            self._send({**start, "restore": self._restore_order(source, index)}, to=index)
        self._checkpoints.began(source)
        return []

    @property
    def _held(self) -> dict[int, list[Copy]]:
        """What each connected node has in memory."""
        return {index: connection.copies for index, connection in self._connections.items()}

    def _resized(self, before: int) -> None:
        group = self._group
        message = f"The group goes on with {group.world_size} ranks; it had {before}."
        self._reporter.event("Resized", message, "Normal")

    def _restore_order(self, source: Source | None, index: int) -> Message | None:
        addresses = {i: connection.address for i, connection in self._connections.items()}
        return None if source is None else self._checkpoints.order(source, index, addresses)

    def _report(self) -> None:
        group = self._group
        waiting = ""
        if group.missing and group.state is State.RUNNING:
            waiting = f"training with {len(group.placement.pods)} of {group.replicas} workers"
        elif group.missing:
            waiting = f"waiting for workers {group.missing}"
        self._reporter.group(group.state.value, waiting, group.total, group.counted, group.last)

    def _send(self, message: Message, to: int | None = None) -> None:
        """Send to one agent, or to all of the generation; who is not connected gets nothing."""
        to_whom = set(self._group.placement.pods) if to is None else {to}
        for index in self._connections.keys() & to_whom:
            self._connections[index].channel.send(message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
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
