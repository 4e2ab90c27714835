"""The lead: worker 0's agent drives the group.

A shell around `group` (when generations begin and end), `agreement` (steps at which all ranks
save or stop), `pipeline` (how far each checkpoint is), `sources` (from whose memory a generation
starts) and `committer` (which checkpoints are in storage). Every event goes through one queue,
so that each decision sees the whole state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from headway.agent.agreement import Agreement, Decide, Move, Propose
from headway.agent.committer import Abandoned, Committed, Committer
from headway.agent.config import PodConfig
from headway.agent.faults import describe, utc
from headway.agent.group import Action, Begin, Finish, Group, Leave, State, StopAll
from headway.agent.member import SILENCE_SECONDS
from headway.agent.memory import Copy
from headway.agent.pipeline import Pipeline, Upload
from headway.agent.rankstates import RankStates
from headway.agent.reporting import Reporter
from headway.agent.sources import Source, choose
from headway.agent.wire import LINE_LIMIT, Channel, HandshakeFailed, Hello, Message, welcome
from headway.checkpoint.errors import Fenced
from headway.checkpoint.layout import CheckpointId
from headway_api.contract import AGENT_PORT, STORE_PORTS, ExitCode
from headway_api.messages import Peer

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.5
_HANDSHAKE_SECONDS = 5.0
_FIRST_CALL_SECONDS = 5.0
"""Time that a pod which has an address already gets to find a lead that is new."""
_STACKS_SECONDS = 2.0
"""Time for workers to write their stacks to the log."""
_TRIES_FROM_MEMORY = 2
"""So many generations may end without a step before memory is no longer trusted: what is in it
may be what kills them (Megatron-LM#5281 restarted 44 times from a bad replica)."""
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
    ) -> None:
        self._config = config
        self._key = key
        self._tls = tls
        self._group = group
        self._committer = committer
        self._reporter = reporter
        self._connections: dict[int, _Connection] = {}
        now = time.monotonic()
        self._absent = {p.index: (p.uid, now + _FIRST_CALL_SECONDS) for p in peers if p.index}
        self._queue: asyncio.Queue[Callable[[], list[Action]]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._agreement = Agreement(group.world_size)
        self._attached: set[int] = set()
        self._stop_deadline: float | None = None
        self._saved_at = self._progress_at = time.monotonic()
        self._pipeline = Pipeline(frozenset(range(group.world_size)))
        self._states = RankStates(config.processes)
        self._saving_step: int | None = None
        self._in_storage: CheckpointId | None = None
        self._distrusted = 0
        self._dumping = self._waiting = False
        self._settled = asyncio.Event()
        self._led = False
        self._leave_at = 0.0
        self._stopping_at: CheckpointId | None = None
        self._fetched = False
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
                self._reporter.lost(index, connection.uid)
                self._spawn(connection.channel.close())
        for index, (uid, since) in list(self._absent.items()):
            if now - since > SILENCE_SECONDS and self.ended is None:
                # The operator knows whether it has heard of it since.
                self._reporter.lost(index, uid)
                del self._absent[index]
        if self._stop_deadline is not None and now > self._stop_deadline:
            self._stop_deadline = None
            log.warning("no checkpoint before the end of the grace period; ending the workers")
            self._broadcast({"type": "terminate"})
        self._save_when_due(now)
        self._look_for_hang(now)
        return []

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
        copies = [_copy(each) for each in hello.copies]
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
            self._states.add_all(kept)
        log.info("worker %d has joined from %s", index, connection.address)
        return actions + self._group.joined(index, connection.uid, connection.address)

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
                connection.copies = [_copy(each) for each in message["copies"]]
                return self._group.node_stopped(index, int(message["generation"]))
            case "unready" if message["generation"] == self._group.generation:
                self._distrusted = _TRIES_FROM_MEMORY
                return self._group.abandoned()
            case "going":
                return self._on_going(index)
            case "worker" if message["generation"] == self._group.generation:
                self._on_worker(int(message["rank"]), message["message"])
            case _:
                self._on_uploader(message)
        return []

    def _on_uploader(self, message: Message) -> None:
        match message["type"]:
            case "receipt":
                self._spawn(self._on_receipt(message))
            case "unsent":  # a worker has already begun to write over it
                self._upload(self._pipeline.failed(_id(message)))
            case "failed":
                self._saved(self._committer.abandon(_id(message), str(message["failed"])))
            case "waiting":
                self._storage_waits(str(message["message"]))

    @property
    def _all_attached(self) -> bool:
        """Whether every rank takes part in agreements: its script calls `headway.init()`."""
        return len(self._attached) == self._group.world_size

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
            now, grace = time.monotonic(), self._config.grace_seconds
            self._stop_deadline = self._leave_at = now + _TIME_TO_LEAVE * grace
            if self._all_attached:
                self._stop_deadline = now + _TIME_TO_SAVE * grace
                self._move(self._agreement.propose("stop"))
            else:  # scripts that know nothing of Headway get the signal themselves
                self._broadcast({"type": "terminate"})
        return actions

    def _on_attached(self, rank: int, step: int) -> None:
        self._attached.add(rank)
        self._progress_at = time.monotonic()
        self._agreement.reached(step)
        if self._stop_deadline is not None and self._all_attached:
            # It was sent SIGTERM as a script that knows nothing of us, and took no notice.
            self._move(self._agreement.propose("stop"))

    def _on_worker(self, rank: int, message: Message) -> None:
        match message["type"]:
            case "attach":
                self._on_attached(rank, int(message.get("step", 0)))
            case "step":
                self._group.stepped()
                self._distrusted, self._progress_at = 0, time.monotonic()
                self._agreement.reached(int(message["step"]))
                self._reporter.stepped(message)
            case "restored":
                self._agreement.reached(int(message["step"]))
                fetched = message["source"] == "memory" and self._fetched
                self._reporter.restored({**message, **({"source": "peer"} if fetched else {})})
            case "promise":
                self._move(self._agreement.promised(int(message["number"]), rank))
            case "refuse":
                self._move(self._agreement.refused(int(message["number"]), int(message["step"])))
            case "sealed":
                self._on_sealed(rank, message)
            case "finishing":
                self._upload(self._pipeline.ends_at(int(message["step"])))
            case "save_failed":
                self._saved(self._committer.abandon(_id(message), str(message["message"])))
            case "event":
                self._reporter.event(message["reason"], message["message"], message["severity"])

    # --- checkpoints ----------------------------------------------------------------------------

    def _save_when_due(self, now: float) -> None:
        policy = self._config.checkpoint
        ready = (
            self._committer.stores
            and self._group.state is State.RUNNING
            and self._stop_deadline is None
            and self._agreement.open is None
            and self._pipeline.copying is None
            and self._pipeline.last_step is None
            and self._all_attached
        )
        if not ready:
            return
        if policy.every_steps:
            self._move(self._agreement.propose("save", policy.every_steps))
        elif now - self._saved_at >= (policy.every_seconds or 300):
            self._move(self._agreement.propose("save"))

    def _agreed(self, proposal: Propose) -> None:
        """All ranks save after this step: nothing else is saved or sent before they have."""
        checkpoint = CheckpointId(self._group.generation, proposal.step)
        every, before = self._config.checkpoint.every_steps, self._saving_step
        if every and proposal.purpose == "save" and before is not None:
            for _ in range((proposal.step - before) // every - 1):
                self._reporter.skipped()
        self._saving_step = proposal.step
        self._saved_at = time.monotonic()
        if proposal.purpose == "stop":
            self._stopping_at = checkpoint
        self._pipeline.agreed(checkpoint, urgent=proposal.purpose == "stop")

    def _on_sealed(self, rank: int, message: Message) -> None:
        checkpoint = _id(message)
        if self._group.replicas > 1:
            self._states.add(checkpoint, rank, message["rank_state"])
        self._upload(self._pipeline.sealed(checkpoint, rank))
        if self._pipeline.newest == checkpoint:
            if checkpoint == self._stopping_at:
                self._stop_deadline = self._leave_at  # now only storage is waited for
            log.debug("checkpoint of step %d is in memory", checkpoint.step)
            if self._group.replicas > 1:
                self._send(1, {"type": "keep", **self._states.of(checkpoint, 0)})
            self._save_when_due(time.monotonic())

    def _upload(self, uploads: list[Upload]) -> None:
        for upload in uploads:
            self._committer.expect(upload.id)
            self._broadcast({"type": "upload", **_json(upload.id)})

    def _storage_waits(self, why: str) -> None:
        if not self._waiting:
            self._reporter.event("StorageUnavailable", f"storage does not answer: {why}")
        self._waiting = True

    async def _on_receipt(self, message: Message) -> None:
        try:
            result = await self._committer.receipt(message, self._group.world_size)
        except Fenced as error:
            self._post(lambda e=error: self._fenced(str(e)))  # type: ignore[misc]
            return
        if result is not None:
            self._saved(result)

    def _saved(self, result: Committed | Abandoned) -> None:
        """A checkpoint has come to an end, one way or the other."""
        told: Message = {"type": "abandoned", "step": result.step}
        self._waiting = False
        if isinstance(result, Committed):
            told["type"] = "committed"
            self._reporter.committed(result, result.seconds)
            self._spawn(self._committer.retire())
            uploads = self._pipeline.settle(result.id)
        else:
            told["message"] = result.message
            uploads = self._pipeline.failed(result.id)
        self._broadcast({"type": "tell", "message": told})
        self._upload(uploads)
        self._settled.set()

    # --- hangs -----------------------------------------------------------------------------------

    def _look_for_hang(self, now: float) -> None:
        """A script that has reported steps, and reports none for too long, has hung."""
        deadline = self._group.policy.progress_deadline_seconds
        watched = self._group.state is State.RUNNING and self._attached and not self._dumping
        if not watched or self._stop_deadline is not None or now - self._progress_at < deadline:
            return
        self._dumping = True
        log.warning("no step for %g s; the stacks of all workers follow", deadline)
        self._broadcast({"type": "stacks"})
        self._spawn(self._end_hang(self._group.generation, deadline))

    async def _end_hang(self, generation: int, deadline: float) -> None:
        await asyncio.sleep(_STACKS_SECONDS)
        self._post(
            lambda: self._group.hung(generation, deadline, time.monotonic(), utc(time.time()))
        )

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
                if move.accepted:
                    self._agreed(move.proposal)
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
                self._spawn(self._let_go(indices))
            case Finish():
                self._spawn(self._finish(action))

    async def _let_go(self, indices: Collection[int]) -> None:
        await self._send_the_rest(self._leave_at - time.monotonic())
        # The lead goes last: the others hear from it until they are gone.
        for index in sorted(indices, reverse=True):
            self._send(index, {"type": "finish", "code": ExitCode.PREEMPTED})
        self._stop_deadline = None

    async def _send_the_rest(self, seconds: float) -> None:
        """Memory goes with the pods: what is not in storage yet is sent now, if it can be."""
        rest, deadline = self._pipeline.unsent, time.monotonic() + seconds
        if rest is None or self._group.missing or not self._committer.stores:
            return
        log.info("sending the checkpoint of step %d to storage before the pods go", rest.step)
        self._upload(self._pipeline.began(rest))
        while self._pipeline.unsent == rest and (left := deadline - time.monotonic()) > 0:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), min(left, 1.0))

    async def _finish(self, finish: Finish) -> None:
        if self.ended is not None:
            return
        self.ended = finish
        if finish.code == ExitCode.DONE:
            await self._committer.settle()
        elif finish.code != ExitCode.FENCED:
            await self._send_the_rest(_LAST_SECONDS)
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
            if not self._led and any(c.copies for c in self._connections.values()):
                # Another lead has led those who hold something: is there anything newer?
                self._in_storage = await self._committer.newest()
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
        self._stop_deadline, self._saving_step, self._dumping = None, None, False
        self._saved_at = self._progress_at = time.monotonic()
        self._led = True
        group.began(generation, time.monotonic())
        self._reporter.began(generation)
        source = self._choose_source()
        self._fetched = bool(source and source.donors)
        where = f" from {source.id} in memory" if source else ""
        log.info("generation %d starts with %d ranks%s", generation, group.world_size, where)
        start = {
            "type": "start",
            "generation": generation,
            "world_size": group.world_size,
            "master_addr": self._config.address,
            "master_port": store_port(self._config.address, generation),
        }
        for index in self._connections:
            self._send(index, {**start, "restore": self._restore_order(source, index)})
        self._upload(self._pipeline.began(source.id if source else None))
        return []

    def _choose_source(self) -> Source | None:
        """Memory, unless the generations that started from it have not got to a single step."""
        self._distrusted += 1
        if self._distrusted > _TRIES_FROM_MEMORY:
            return None
        held = {index: connection.copies for index, connection in self._connections.items()}
        return choose(held, self._states.knows, self._in_storage)

    def _restore_order(self, source: Source | None, index: int) -> Message | None:
        if source is None:
            return None
        order: Message = _json(source.id)
        if index in source.donors:
            order["from"] = self._connections[source.donors[index]].address
            order["rank_states"] = self._states.of(source.id, index)["states"]
        return order

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


def _id(message: Message) -> CheckpointId:
    return CheckpointId(int(message["generation"]), int(message["step"]))


def _json(checkpoint: CheckpointId) -> Message:
    return {"generation": checkpoint.generation, "step": checkpoint.step}


def _copy(message: Message) -> Copy:
    return Copy(_id(message), bool(message["replicated"]))


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
