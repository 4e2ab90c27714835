"""The agent's side of the zygote: a process that forks workers which have torch already.

A worker that is started by exec needs seconds to import torch; a forked one is there in
milliseconds. Where that cannot work (the command is no Python program, an imported module has
started threads, …) workers are started by exec, and the log says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from headway.agent import orphans
from headway.zygote.protocol import MESSAGE_BYTES, Invocation

log = logging.getLogger(__name__)
_READY_SECONDS = 600.0
"""Longest time that the imports may take before workers are started without them."""


class ZygoteGoneError(Exception):
    """There is no zygote (any more); its children have died with it."""


class Forked:
    """A process that a zygote has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, or the negative number of a signal."""
        return await asyncio.shield(self._ended)

    def ended(self, returncode: int) -> None:
        """Note how it has ended."""
        if not self._ended.done():
            self._ended.set_result(returncode)


class Zygote:
    """A running zygote. Use `start` to make one."""

    def __init__(self, process: asyncio.subprocess.Process, link: socket.socket) -> None:
        self.pid = process.pid
        self._process = process
        orphans.awaited.add(process.pid)
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._unfit: asyncio.Future[str] = self._loop.create_future()
        self._forking: dict[int, asyncio.Future[Forked]] = {}
        self._children: dict[int, Forked] = {}
        self._orders = 0
        self._loop.add_reader(link.fileno(), self._read)

    @classmethod
    async def start(
        cls, invocation: Invocation, preload: Sequence[str], env: Mapping[str, str]
    ) -> Zygote:
        """Start it; it imports in the background.

        Args:
            invocation: The program that its children will run.
            preload: Modules to import beside torch.
            env: Its environment, which is that of its children but for what `fork` adds.

        Raises:
            OSError: the interpreter can't be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        words = [invocation.interpreter, *invocation.options, "-m", "headway.zygote"]
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    str(theirs.fileno()),
                    env=dict(env),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        flags = {"module": ["-m"], "code": ["-c"], "file": []}
        program = invocation.program
        shown = [*invocation.options, *flags[program.kind], program.target, *program.arguments]
        order = {"program": asdict(program), "preload": list(preload), "shown": shown}
        with contextlib.suppress(OSError):  # it has ended already: `unfit` will say so
            ours.send(json.dumps(order).encode())
        return cls(process, ours)

    async def unfit(self) -> str:
        """Why it can't fork workers; empty if it can. Waits until it has imported everything."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._unfit), _READY_SECONDS)
        except TimeoutError:
            return f"its imports have taken more than {_READY_SECONDS:g} s"

    @property
    def killed(self) -> bool:
        """Whether a signal has ended it: the next one may fare better."""
        return (self._process.returncode or 0) < 0

    @property
    def alive(self) -> bool:
        """Whether it may still be used."""
        return not (self._unfit.done() and self._unfit.result())

    async def fork(self, env: Mapping[str, str], output: int) -> Forked:
        """Fork a worker.

        Args:
            env: What is different from the zygote's own environment.
            output: Descriptor for its output and errors; it stays the caller's to close.

        Raises:
            ZygoteGoneError: there is no zygote any more.
        """
        self._orders += 1
        number, order = self._orders, json.dumps({"fork": self._orders, "env": dict(env)})
        answer = self._forking[number] = self._loop.create_future()
        try:
            socket.send_fds(self._link, [order.encode()], [output])
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_kill)
            raise
        except OSError as error:
            raise ZygoteGoneError(str(error)) from error

    async def stop(self) -> None:
        """End it, and its children with it."""
        self._loop.remove_reader(self._link.fileno())
        self._link.close()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        orphans.awaited.discard(self.pid)
        self._lost("it was stopped")

    def _read(self) -> None:
        while True:
            try:
                data = self._link.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._link.fileno())
                self._lost("it has ended; its messages are above")
                return
            self._hear(json.loads(data))

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            for failed in message["failed"]:
                log.warning("preload: %s", failed)
            self._unfit.set_result(message["unsafe"])
        elif "forked" in message:
            child = Forked(message["pid"])
            self._children[child.pid] = child
            self._forking.pop(message["forked"]).set_result(child)
        else:
            child = self._children.pop(message["exited"])
            child.ended(message["status"])

    def _lost(self, why: str) -> None:
        if not self._unfit.done():
            self._unfit.set_result(why)
        elif self.alive:
            self._unfit = self._loop.create_future()
            self._unfit.set_result(why)
        for answer in self._forking.values():
            if not answer.done():
                answer.set_exception(ZygoteGoneError(why))
                answer.exception()  # looked at: nobody may be waiting any more
        self._forking.clear()
        for child in self._children.values():
            # They asked the kernel to die with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            child.ended(-signal.SIGKILL)
        self._children.clear()


def _kill(answer: asyncio.Future[Forked]) -> None:
    if not answer.cancelled() and answer.exception() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(answer.result().pid, signal.SIGKILL)
