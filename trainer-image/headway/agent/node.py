"""The workers of this pod in one generation: the agent's hands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from headway.agent import oom, orphans, transfer
from headway.agent.config import PodConfig
from headway.agent.hints import is_echo
from headway.agent.horovod.meeting import Meeting
from headway.agent.horovod.timeline import Files
from headway.agent.launcher import Launcher
from headway.agent.memory import Memory, NoRoomError
from headway.agent.placement import Placement
from headway.agent.uploads import Uploads
from headway.agent.wire import Hello, Message
from headway.agent.worker_link import WorkerLink
from headway.agent.workers import Exit, Worker
from headway.checkpoint.layout import CheckpointId
from headway_api import contract
from headway_api.contract import ExitCode

log = logging.getLogger(__name__)
_KEPT = 3
"""Checkpoints whose rank states are kept: those in both slots, and one that is being sealed."""
_ECHO_SECONDS = 2.0
"""For how long those who know the cause of an end are let speak first."""
Say = Callable[[Message], None]
"""Sends a message to the lead."""


def rank_env(config: PodConfig, start: Message, local_rank: int, socket: Path) -> dict[str, str]:
    """What is special about one worker process's environment: torch's variables and ours."""
    placement = Placement.told(start["ranks"])
    return {
        "RANK": str(placement.rank(config.index, local_rank)),
        "WORLD_SIZE": str(placement.world_size),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(config.processes),
        "GROUP_RANK": str(placement.pods.index(config.index)),
        "MASTER_ADDR": str(start["master_addr"]),
        "MASTER_PORT": str(start["master_port"]),
        contract.ENV_GENERATION: str(start["generation"]),
        contract.ENV_AGENT_SOCKET: str(socket),
    }


class Node:
    """Runs this pod's workers, generation by generation, and tells the lead how they fare."""

    def __init__(self, config: PodConfig, key: bytes, say: Say) -> None:
        self._config = config
        self._key = key
        self._say = say
        self._workers: list[Worker] = []
        self._watched: dict[Worker, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._link: WorkerLink | None = None
        self._ooms = oom.kills()
        self._starting: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()
        self._over = asyncio.Event()
        self._held: dict[int, int] = {}
        self._restore: Message = {}
        self._directions: Message = {}
        self._fetching: list[Message] | None = None
        self._uploads = Uploads(self._uploaded)
        self._placement = Placement(())
        self._meeting = Meeting(config, say) if config.framework == "Horovod" else None
        self._files = Files(config, os.environ)
        self.launcher = Launcher(config)
        self.memory = Memory(config.processes)
        self._server = transfer.StateServer(self.memory, key, config.address)
        self.kept: list[Message] = []
        self.generation = 0

    async def warm_up(self) -> None:
        """Start what takes seconds to be there, before it is needed."""
        if self._config.storage_uri:
            self._uploads.start()
            if self._config.endpoint:  # with an operator there are, or may be, other pods
                await self._server.open()
        await self.launcher.warm_up()

    async def close(self) -> None:
        """End what stays from one generation to the next."""
        self._server.close()
        await self._files.close()
        await self._uploads.stop()
        await self.launcher.stop()

    async def start(self, order: Message) -> None:
        """Start the workers of a generation. An order for an old generation is ignored."""
        generation = int(order["generation"])
        if generation <= self.generation:
            return
        await self.stop(0.0)
        self.generation = generation
        self._starting = asyncio.create_task(self._start(generation, order))
        await asyncio.wait({self._starting})
        if not self._starting.cancelled():
            self._starting.result()

    async def _start(self, generation: int, order: Message) -> None:
        self._over = asyncio.Event()
        self._restore = dict(order.get("restore") or {})
        self._directions = order.get("directions") or {}
        self._placement = Placement.told(order["ranks"])
        self._link = WorkerLink(self._config.scratch, generation, self._relay)
        await self._link.open()
        if not await self._have_checkpoint(generation):
            return
        going_on = set(self.survivors)
        if self._meeting is not None:
            await self._meeting.open(generation, self._placement, going_on)
        files = self._files.begin(generation, goes_on=bool(going_on))
        for local_rank in sorted(set(range(self._config.processes)) - going_on):
            env = rank_env(self._config, order, local_rank, self._link.path)
            if self._meeting is not None:
                env |= self._meeting.environment(local_rank) | files
            prefix = f"[{env['RANK']}] " if self._config.processes > 1 else ""
            try:
                worker = await self.launcher.start(env, local_rank, prefix)
            except OSError as error:
                message = f"{self._config.command[0]}: {error.strerror}"
                # No restart makes a command appear: this exit code ends the job.
                self._report(Exit(local_rank, ExitCode.CONFIG, "", message))
                return
            self._workers.append(worker)
            self._watched[worker] = asyncio.create_task(self._watch(worker))

    async def _have_checkpoint(self, generation: int) -> bool:
        """Get the checkpoint of this generation from another pod, if we must."""
        order = self._restore
        if "from" not in order:
            return True
        states = {
            local: (rank, order["rank_states"].get(str(rank)))
            for local, rank in enumerate(self._ranks)
        }
        wanted = CheckpointId.named_in(order).names
        hello = Hello(self._config.index, self._config.pod_uid, self.generation)
        self._fetching = []
        try:
            await transfer.fetch(self.memory, self._key, order["from"], hello, wanted, states)
        except transfer.TransferError as error:
            log.warning("no checkpoint from another pod's memory: %s", error)
            self._say({"type": "unready", "generation": generation, "message": str(error)})
            return False
        finally:
            waiting, self._fetching = self._fetching, None
        for each in waiting:
            self.upload(each)
        return True

    @property
    def _ranks(self) -> list[int]:
        """Global ranks of this pod's workers, by local rank."""
        return self._placement.ranks(self._config.index)

    @property
    def survivors(self) -> list[int]:
        """Local ranks whose process is to go on in the next generation, with its state."""
        waiting = self._meeting.waiting if self._meeting is not None else set()
        return sorted(waiting & {worker.local_rank for worker in self._workers})

    async def stop(self, patience: float | None = None) -> None:
        """Kill the workers and what they have started, and wait until they are gone.

        Args:
            patience: Spare those that wait for the next generation, or come to that point within
                so many seconds; None: nobody.
        """
        async with self._stopping:
            await self._stop(patience)

    async def _stop(self, patience: float | None) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
            self._starting = None
        self._over.set()
        spared = await self._spare(patience) if patience is not None else []
        for worker in self._workers:
            if worker not in spared:
                worker.signal(signal.SIGKILL)
        ending = [task for worker, task in self._watched.items() if worker not in spared]
        if tasks := {*ending, *self._tasks}:
            await asyncio.wait(tasks)
        self._watched = {worker: self._watched[worker] for worker in spared}
        pids = self.launcher.pids | self._uploads.pids
        await asyncio.to_thread(orphans.kill, pids, {worker.pid for worker in spared})
        if self._link is not None:
            await self._link.close()
            self._link = None
        if not spared:
            self._files.end()
            if self._meeting is not None:
                self._meeting.close()

    async def _spare(self, patience: float) -> list[Worker]:
        """The workers that go on in the next generation."""
        if self._meeting is None:
            return []
        attached = self._link.ranks if self._link is not None else set()
        able = {
            worker.local_rank: worker
            for worker in self._workers
            # What uses `headway.init()` starts anew, from the newest checkpoint in memory.
            if worker.local_rank in self._meeting.resizable
            and self._ranks[worker.local_rank] not in attached
        }
        rest = [worker for worker in self._workers if worker not in able.values()]
        for worker in rest:
            worker.signal(signal.SIGKILL)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while (left := deadline - loop.time()) > 0:
            alive = {worker.local_rank for worker in self._workers}
            if able.keys() & alive <= self._meeting.waiting:
                break
            await self._meeting.news(left)
        return [able[local] for local in self.survivors if local in able]

    async def resize(self) -> None:
        """Tell Horovod's elastic scripts that the group is to have another size."""
        if self._meeting is not None:
            await self._meeting.notify()

    def meet(self, message: Message) -> None:
        """A rank of another pod has told where it is (Horovod)."""
        if self._meeting is not None:
            self._meeting.hear(message)

    def terminate(self) -> None:
        """Ask scripts that know nothing of Headway to end (SIGTERM)."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)

    def tell(self, message: Message, rank: int | None = None) -> None:
        """Pass a message on to one rank, or to all."""
        if self._link is not None:
            self._link.send(message, rank)

    async def _watch(self, worker: Worker) -> None:
        ended = await worker.wait()
        self._workers.remove(worker)
        if self._meeting is not None:
            self._meeting.ended(worker.local_rank)
        if is_echo(ended.tail):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), _ECHO_SECONDS)
        self._report(ended)

    def _report(self, ended: Exit) -> None:
        killed_for_memory = oom.kills() > self._ooms
        self._ooms = oom.kills()
        self._say(
            {
                "type": "exit",
                "generation": self.generation,
                "rank": self._ranks[ended.local_rank],
                "code": ended.code,
                "signal": ended.signal,
                "oom": killed_for_memory and ended.signal == "SIGKILL",
                "tail": ended.tail,
                "time": time.time(),
                "absent": self._meeting.absent() if self._meeting else [],
            }
        )

    # --- what workers say ------------------------------------------------------------------------

    def _relay(self, rank: int, message: Message) -> None:
        match message["type"]:
            case "slots":
                self._spawn(self._give_slots(rank, message))
            case "restore":
                self.tell({"type": "answer", "ask": message["ask"], **self._offer(rank)}, rank)
            case _:
                said = {"generation": self.generation, "rank": rank, "message": message}
                self._say({"type": "worker", **said})

    async def _give_slots(self, rank: int, message: Message) -> None:
        local_rank = self._placement.local_rank(rank)
        answer: Message = {"type": "answer", "ask": message["ask"]}
        try:
            nbytes = int(message["nbytes"])
            answer["paths"] = await asyncio.to_thread(self.memory.ensure, local_rank, nbytes)
        except (NoRoomError, OSError) as error:
            answer["refused"] = str(error)
        self.tell(answer, rank)
        self.tell({"type": "held", "slot": self._held.get(rank)}, rank)

    def _offer(self, rank: int) -> Message:
        """What a worker restores from: this pod's memory, or nothing (then storage)."""
        if not self._restore:
            return {"directions": self._directions}
        told = self._restore.get("rank_states")
        own = {} if told is None else {"rank_state": told.get(str(rank))}
        offer = self.memory.offer(CheckpointId.named_in(self._restore))
        return {**offer, **own, "directions": self._directions}

    def copies(self) -> list[Message]:
        """The checkpoints that this pod's memory holds, for the lead."""
        return [copy.message for copy in self.memory.copies()]

    def show_stacks(self) -> None:
        """Let the workers write what each of their threads is doing to the log."""
        if self._link is None:
            return
        for worker in self._workers:
            # Others would be killed by the signal.
            if self._ranks[worker.local_rank] in self._link.ranks:
                worker.ask_for_stacks()

    def keep(self, message: Message) -> None:
        """Keep the states of the lead's own ranks: should its pod be lost, its successor asks."""
        self.kept = [*self.kept, message][-_KEPT:]

    # --- the way to storage -----------------------------------------------------------------------

    def upload(self, order: Message) -> None:
        """Send the parts of this pod's ranks to storage."""
        if self._fetching is not None:
            self._fetching.append(order)  # it is about the very checkpoint that is on its way here
            return
        slots = self.memory.find(CheckpointId.named_in(order))
        if slots is None:
            self._say({**order, "type": "unsent"})
            return
        parts = []
        for local_rank, number in enumerate(slots):
            rank = self._ranks[local_rank]
            self._held[rank] = number
            self.tell({"type": "held", "slot": number}, rank)
            parts.append({"rank": rank, "slot": self.memory.paths(local_rank)[number]})
        self._uploads.order({**CheckpointId.named_in(order).names, "parts": parts})

    def _uploaded(self, message: Message) -> None:
        if "waiting" in message:
            self._say({"type": "waiting", "message": message["waiting"]})
            return
        rank = int(message["rank"])
        self._held.pop(rank, None)
        self.tell({"type": "held", "slot": None}, rank)
        kinds = {"failed": "failed", "overwritten": "unsent"}
        kind = next((kind for name, kind in kinds.items() if name in message), "receipt")
        self._say({"type": kind, **message})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
