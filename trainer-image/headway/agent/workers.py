"""Worker processes of this pod: started, listened to, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from headway.agent import orphans
from headway.zygote.protocol import STACKS_SIGNAL

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 8192
_CHUNK = 64 * 1024
_PART_OF_A_LINE_SECONDS = 1.0
"""How long the beginning of a line waits for its end before it is shown."""
_DRAIN_SECONDS = 2.0
"""How long the output of an ended worker is waited for: a process it left behind may hold it."""


@dataclass(frozen=True)
class Exit:
    """How a worker process ended.

    Attributes:
        local_rank: Which of the pod's workers.
        code: Exit code; 128 + signal number for a signal, as in a shell.
        signal: Name of the signal that ended it, e.g. `SIGKILL`; empty otherwise.
        tail: Last lines of its output.
    """

    local_rank: int
    code: int
    signal: str
    tail: str


def exit_code(returncode: int) -> tuple[int, str]:
    """A shell's exit code and the signal's name for a `returncode` as Python gives it."""
    if returncode >= 0:
        return returncode, ""
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    return 128 - returncode, name


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the agent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prepare() -> None:
    # The agent ignores nothing, but its own parent may have: a worker starts with defaults.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        _die_with_parent()


class Process(Protocol):
    """A child, or a child's child, whose end can be waited for."""

    @property
    def pid(self) -> int:
        """Its process id."""

    async def wait(self) -> int:
        """Exit code, or the negative number of the signal that ended it."""


Start = Callable[[int], Coroutine[Any, Any, Process]]
"""Starts a process that writes its output to the given descriptor."""


async def execute(command: Sequence[str], env: Mapping[str, str], output: int) -> Process:
    """Start a process by exec.

    Args:
        command: Program and arguments.
        env: Whole environment of the process.
        output: Descriptor for its output and errors.

    Raises:
        OSError: the command can't be started (not found, not executable).
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=_prepare,
    )
    orphans.awaited.add(process.pid)
    return process


class Worker:
    """One worker process, leader of its own process group."""

    def __init__(self, process: Process, output: BinaryIO, local_rank: int, prefix: str) -> None:
        self._process = process
        self._lines = Lines(prefix.encode())
        self._tail = b""
        self.local_rank = local_rank
        self._pump = asyncio.create_task(self._copy(output), name=f"output of {local_rank}")

    @classmethod
    async def start(cls, start: Start, local_rank: int, prefix: str) -> Worker:
        """Start the process.

        Args:
            start: How.
            local_rank: Which of the pod's workers it is.
            prefix: Put before each line of its output; empty for output as it is.

        Raises:
            OSError: the command can't be started (not found, not executable).
        """
        # A pipe of our own: with asyncio's, waiting for the process (before Python 3.13) would
        # also wait for every process it leaves behind that has inherited its output.
        reading, writing = os.pipe()
        try:
            process = await start(writing)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return cls(process, os.fdopen(reading, "rb", buffering=0), local_rank, prefix)

    @property
    def pid(self) -> int:
        """Process id, which is also that of the process group."""
        return self._process.pid

    async def wait(self) -> Exit:
        """Wait for the end of the process (not of what it left behind), and of its output."""
        returncode = await self._process.wait()
        orphans.awaited.discard(self.pid)
        self.signal(signal.SIGKILL)
        await asyncio.wait({self._pump}, timeout=_DRAIN_SECONDS)
        self._pump.cancel()
        code, name = exit_code(returncode)
        return Exit(self.local_rank, code, name, self._tail.decode(errors="replace").strip())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and everything that it started."""
        # A process that was forked a moment ago may not lead its group yet.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, number)

    def ask_for_stacks(self) -> None:
        """Have the stacks of its threads written to its output."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, STACKS_SIGNAL)

    async def _copy(self, output: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=_CHUNK)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), output
        )
        try:
            while not stream.at_eof():
                text = await self._more(stream)
                # In a thread: whoever reads our output may be slow, and heartbeats must go on.
                await loop.run_in_executor(None, _write_all, text)
        finally:
            transport.close()

    async def _more(self, stream: asyncio.StreamReader) -> bytes:
        try:
            patience = _PART_OF_A_LINE_SECONDS if self._lines.held else None
            chunk = await asyncio.wait_for(stream.read(_CHUNK), patience)
        except TimeoutError:
            return self._lines.rest()
        self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
        return self._lines.feed(chunk) if chunk else self._lines.rest()


class Lines:
    """Makes whole lines of chunks, so that those of several processes don't mix.

    Args:
        prefix: Put before each line; empty for output as it is.
    """

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._fresh = True
        self.held = b""
        """The beginning of a line that has not ended yet."""

    def feed(self, chunk: bytes) -> bytes:
        """The lines that are whole now; a carriage return (of a progress bar) ends one, too."""
        data = self.held + chunk
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if not end and len(data) >= _CHUNK:
            end = len(data)
        self.held = data[end:]
        return self._prefixed(data[:end])

    def rest(self) -> bytes:
        """What is held, though its line has not ended."""
        data, self.held = self.held, b""
        return self._prefixed(data)

    def _prefixed(self, data: bytes) -> bytes:
        if not (self._prefix and data):
            return data
        ends = data.endswith(b"\n")
        body = data[:-1] if ends else data
        text = body.replace(b"\n", b"\n" + self._prefix)
        first = self._prefix if self._fresh else b""
        self._fresh = ends
        return first + text + (b"\n" if ends else b"")


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
