"""Worker processes of this pod: started, listened to, and ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

_PR_SET_PDEATHSIG = 1
_TAIL_BYTES = 2048
_CHUNK = 64 * 1024
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


class Worker:
    """One worker process, leader of its own process group."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: BinaryIO, local_rank: int, prefix: str
    ) -> None:
        self._process = process
        self._prefix = prefix.encode()
        self._tail = b""
        self.local_rank = local_rank
        self._pump = asyncio.create_task(self._copy(output), name=f"output of {local_rank}")

    @classmethod
    async def start(
        cls, command: Sequence[str], env: Mapping[str, str], local_rank: int, prefix: str
    ) -> Worker:
        """Start the process.

        Args:
            command: Program and arguments.
            env: Whole environment of the process.
            local_rank: Which of the pod's workers it is.
            prefix: Put before each line of its output; empty for output as it is.

        Raises:
            OSError: the command can't be started (not found, not executable).
        """
        # A pipe of our own: with asyncio's, waiting for the process (before Python 3.13) would
        # also wait for every process it leaves behind that has inherited its output.
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                start_new_session=True,
                preexec_fn=_prepare,
            )
        except OSError:
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
        self.signal(signal.SIGKILL)
        await asyncio.wait({self._pump}, timeout=_DRAIN_SECONDS)
        self._pump.cancel()
        code, name = exit_code(returncode)
        return Exit(self.local_rank, code, name, self._tail.decode(errors="replace").strip())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker and everything that it started."""
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return

    async def _copy(self, output: BinaryIO) -> None:
        loop = asyncio.get_running_loop()
        stream = asyncio.StreamReader(limit=_CHUNK)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), output
        )
        fresh = True
        try:
            while chunk := await stream.read(_CHUNK):
                self._tail = (self._tail + chunk)[-_TAIL_BYTES:]
                text, fresh = self._prefixed(chunk, fresh)
                # In a thread: whoever reads our output may be slow, and heartbeats must go on.
                await loop.run_in_executor(None, _write_all, text)
        finally:
            transport.close()

    def _prefixed(self, chunk: bytes, fresh: bool) -> tuple[bytes, bool]:
        if not self._prefix:
            return chunk, True
        ends = chunk.endswith(b"\n")
        body = chunk[:-1] if ends else chunk
        text = body.replace(b"\n", b"\n" + self._prefix)
        return (self._prefix if fresh else b"") + text + (b"\n" if ends else b""), ends


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sys.stdout.fileno(), view) :]
