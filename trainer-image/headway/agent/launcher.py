"""How worker processes come to life: forked where that is possible, by exec where not."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from functools import partial

from headway.agent.config import PodConfig
from headway.agent.workers import Worker, execute
from headway.agent.zygote import Zygote, ZygoteGoneError
from headway.zygote.protocol import parse

log = logging.getLogger(__name__)


def base_env(pod: Mapping[str, str], config: PodConfig) -> dict[str, str]:
    """What the environments of all worker processes of a pod have in common.

    `TORCHELASTIC_*` variables are left out: with them torch takes a store of ours for torchrun's
    own and waits for it for half an hour (pytorch/pytorch#191957).
    """
    env = {k: v for k, v in pod.items() if not k.startswith("TORCHELASTIC_")}
    env["PYTHONUNBUFFERED"] = "1"
    # As torchrun does: several processes that each take all cores only hinder each other.
    if config.processes > 1:
        env.setdefault("OMP_NUM_THREADS", "1")
    return env


class Launcher:
    """Starts the worker processes of a pod."""

    def __init__(self, config: PodConfig) -> None:
        self._config = config
        self._base = base_env(os.environ, config)
        self._invocation = parse(config.command)
        own = ("horovod.torch",) if config.framework == "Horovod" else ()
        self._preload = (*own, *config.preload)
        self._zygote: Zygote | None = None
        self._waking = asyncio.Lock()

    @property
    def pids(self) -> set[int]:
        """Processes that stay from one generation to the next."""
        return {self._zygote.pid} if self._zygote else set()

    async def warm_up(self) -> None:
        """Begin to import torch, before anybody needs it."""
        async with self._waking:
            if self._invocation is None or (self._zygote and self._zygote.alive):
                return
            await self.stop()
            try:
                self._zygote = await Zygote.start(self._invocation, self._preload, self._base)
            except OSError:
                # The same command will fail again, where its failure counts.
                self._invocation = None

    async def start(self, env: Mapping[str, str], local_rank: int, prefix: str) -> Worker:
        """Start a worker process.

        Args:
            env: What is special about its environment.
            local_rank: Which of the pod's workers it is.
            prefix: Put before each line of its output.

        Raises:
            OSError: the command can't be started.
        """
        await self.warm_up()
        if self._zygote is not None and await self._fit(self._zygote):
            try:
                return await Worker.start(partial(self._zygote.fork, env), local_rank, prefix)
            except ZygoteGoneError as error:
                log.warning("the process that forks workers is gone: %s", error)

        by_exec = partial(execute, self._config.command, {**self._base, **env})
        return await Worker.start(by_exec, local_rank, prefix)

    async def _fit(self, zygote: Zygote) -> bool:
        if why := await zygote.unfit():
            log.warning("workers are not forked, so that each start imports anew: %s", why)
            if not zygote.killed:
                self._invocation = None
            await self.stop()
            return False
        return True

    async def stop(self) -> None:
        """End what stays from one generation to the next."""
        if self._zygote is not None:
            await self._zygote.stop()
            self._zygote = None
