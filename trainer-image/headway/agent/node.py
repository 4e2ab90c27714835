"""The workers of this pod in one generation: the agent's hands."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from headway.agent import oom, orphans, transfer
from headway.agent.config import PodConfig
from headway.agent.horovod.meeting import Meeting
from headway.agent.launcher import Launcher
from headway.agent.memory import Memory, NoRoomError
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
Say = Callable[[Message], None]
"""Sends a message to the lead."""


def rank_env(config: PodConfig, start: Message, local_rank: int, socket: Path) -> dict[str, str]:
    """What is special about one worker process's environment: torch's variables and ours."""
    return {
        "RANK": str(config.index * config.processes + local_rank),
        "WORLD_SIZE": str(start["world_size"]),
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(config.processes),
        "GROUP_RANK": str(config.index),
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
        self._watchers: set[asyncio.Task[None]] = set()
        self._link: WorkerLink | None = None
        self._ooms = oom.kills()
        self._starting: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()
        self._held: dict[int, int] = {}
        self._restore: Message = {}
        self._fetching: list[Message] | None = None
        self._uploads = Uploads(self._uploaded)
        self._meeting = Meeting(config, say) if config.framework == "Horovod" else None
        self.launcher = Launcher(config)
        self.memory = Memory(config.processes)
        self._server = transfer.StateServer(self.memory, key, config.address)
        self.kept: list[Message] = []
        self.generation = 0

    async def warm_up(self) -> None:
        """Start what takes seconds to be there, before it is needed."""
        if self._config.storage_uri:
            self._uploads.start()
            if self._config.replicas > 1:
                await self._server.open()
        await self.launcher.warm_up()

    async def close(self) -> None:
        """End what stays from one generation to the next."""
        self._server.close()
        await self._uploads.stop()
        await self.launcher.stop()

    async def start(self, order: Message) -> None:
        """Start the workers of a generation. An order for an old generation is ignored."""
        generation = int(order["generation"])
        if generation <= self.generation:
            return
        await self.stop()
        self.generation = generation
        self._starting = asyncio.create_task(self._start(generation, order))
        await asyncio.wait({self._starting})
        if not self._starting.cancelled():
            self._starting.result()

    async def _start(self, generation: int, order: Message) -> None:
        self._restore = dict(order.get("restore") or {})
        self._link = WorkerLink(self._config.scratch, generation, self._relay)
        await self._link.open()
        if not await self._have_checkpoint(generation):
            return
        if self._meeting is not None:
            await self._meeting.open(generation)
        for local_rank in range(self._config.processes):
            env = rank_env(self._config, order, local_rank, self._link.path)
            if self._meeting is not None:
                env |= self._meeting.environment(local_rank)
            prefix = f"[{env['RANK']}] " if self._config.processes > 1 else ""
            try:
                worker = await self.launcher.start(env, local_rank, prefix)
            except OSError as error:
                message = f"{self._config.command[0]}: {error.strerror}"
                # No restart makes a command appear: this exit code ends the job.
                self._report(generation, Exit(local_rank, ExitCode.CONFIG, "", message))
                return
            self._workers.append(worker)
            self._spawn(self._watch(generation, worker))

    async def _have_checkpoint(self, generation: int) -> bool:
        """Get the checkpoint of this generation from another pod, if we must."""
        order = self._restore
        if "from" not in order:
            return True
        first = self._config.index * self._config.processes
        states = {
            local: (first + local, order["rank_states"][str(first + local)])
            for local in range(self._config.processes)
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

    async def stop(self) -> None:
        """Kill the workers and what they have started, and wait until they are gone."""
        async with self._stopping:
            await self._stop()

    async def _stop(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
            self._starting = None
        for worker in self._workers:
            worker.signal(signal.SIGKILL)
        if self._watchers:
            await asyncio.wait(set(self._watchers))
        await asyncio.to_thread(orphans.kill, self.launcher.pids | self._uploads.pids)
        self._workers.clear()
        if self._link is not None:
            await self._link.close()
            self._link = None
        if self._meeting is not None:
            self._meeting.close()

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

    async def _watch(self, generation: int, worker: Worker) -> None:
        self._report(generation, await worker.wait())

    def _report(self, generation: int, ended: Exit) -> None:
        killed_for_memory = oom.kills() > self._ooms
        self._ooms = oom.kills()
        self._say(
            {
                "type": "exit",
                "generation": generation,
                "rank": self._config.index * self._config.processes + ended.local_rank,
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
                self.tell({"type": "answer", "ask": message["ask"], **self._offer()}, rank)
            case _:
                said = {"generation": self.generation, "rank": rank, "message": message}
                self._say({"type": "worker", **said})

    async def _give_slots(self, rank: int, message: Message) -> None:
        local_rank = rank % self._config.processes
        answer: Message = {"type": "answer", "ask": message["ask"]}
        try:
            nbytes = int(message["nbytes"])
            answer["paths"] = await asyncio.to_thread(self.memory.ensure, local_rank, nbytes)
        except (NoRoomError, OSError) as error:
            answer["refused"] = str(error)
        self.tell(answer, rank)
        self.tell({"type": "held", "slot": self._held.get(rank)}, rank)

    def _offer(self) -> Message:
        """What a worker restores from: this pod's memory, or nothing (then storage)."""
        return self.memory.offer(CheckpointId.named_in(self._restore)) if self._restore else {}

    def copies(self) -> list[Message]:
        """The checkpoints that this pod's memory holds, for the lead."""
        return [{**copy.id.names, "replicated": copy.replicated} for copy in self.memory.copies()]

    def show_stacks(self) -> None:
        """Let the workers write what each of their threads is doing to the log."""
        if self._link is None:
            return
        first = self._config.index * self._config.processes
        for worker in self._workers:
            # Others would be killed by the signal.
            if first + worker.local_rank in self._link.ranks:
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
            rank = self._config.index * self._config.processes + local_rank
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
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
