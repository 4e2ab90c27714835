"""The workers of this pod in one generation: the agent's hands."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

from headway.agent import oom, orphans
from headway.agent.config import PodConfig
from headway.agent.launcher import Launcher
from headway.agent.wire import Message
from headway.agent.worker_link import WorkerLink
from headway.agent.workers import Exit, Worker
from headway_api import contract
from headway_api.contract import ExitCode

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

    def __init__(self, config: PodConfig, say: Say) -> None:
        self._config = config
        self._say = say
        self._workers: list[Worker] = []
        self._watchers: set[asyncio.Task[None]] = set()
        self._link: WorkerLink | None = None
        self._ooms = oom.kills()
        self._starting: asyncio.Task[None] | None = None
        self._stopping = asyncio.Lock()
        self.launcher = Launcher(config)
        self.generation = 0

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
        self._link = WorkerLink(self._config.scratch, generation, self._relay)
        await self._link.open()
        for local_rank in range(self._config.processes):
            env = rank_env(self._config, order, local_rank, self._link.path)
            prefix = f"[{env['RANK']}] " if self._config.processes > 1 else ""
            try:
                worker = await self.launcher.start(env, local_rank, prefix)
            except OSError as error:
                message = f"{self._config.command[0]}: {error.strerror}"
                # No restart makes a command appear: this exit code ends the job.
                self._report(generation, Exit(local_rank, ExitCode.CONFIG, "", message))
                return
            self._workers.append(worker)
            task = asyncio.create_task(self._watch(generation, worker))
            self._watchers.add(task)
            task.add_done_callback(self._watchers.discard)

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
        await asyncio.to_thread(orphans.kill, self.launcher.pids)
        self._workers.clear()
        if self._link is not None:
            await self._link.close()
            self._link = None

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
            }
        )

    def _relay(self, rank: int, message: Message) -> None:
        self._say(
            {"type": "worker", "generation": self.generation, "rank": rank, "message": message}
        )
