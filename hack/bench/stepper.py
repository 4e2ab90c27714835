"""A job that steps when its bench tells it to (see `turns` for what is said)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import harness
from bench.turns import Door, Line, Message

START_SECONDS = 180.0


@dataclass
class Stepper:
    """A job, and the connection to its rank 0.

    Attributes:
        pids: The processes of the ranks, as far as rank 0 has told them.
    """

    process: subprocess.Popen[bytes]
    door: Door
    line: Line
    pids: Sequence[int] = ()

    @classmethod
    def start(
        cls, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None
    ) -> Stepper:
        """Start a job with its log in this folder, and wait until it has done its first steps.

        Raises:
            RuntimeError: it did not get there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log, door = folder / "log", Door(folder / "socket")
        env = {"OMP_NUM_THREADS": "1", "BENCH_SOCKET": str(door.path), **(env or {})}
        process = harness.start(command, log, env)

        def connection() -> Line | None:
            if process.poll() is not None:
                raise TimeoutError(f"it ended with {process.returncode}")
            return door.accept()

        try:
            line = harness.wait_for("the first steps", connection, START_SECONDS)
            told = line.receive()
            if told is None:
                raise TimeoutError("it is gone")
        except TimeoutError as error:
            harness.end(process)
            raise RuntimeError(
                f"{folder.name} did not start ({error}):\n{harness.tail(log)}"
            ) from None
        return cls(process, door, line, told.get("pids", ()))

    def step(self, kind: str, count: int) -> Message:
        """Have it do some steps.

        Raises:
            RuntimeError: it ended instead.
        """
        self.line.send({"kind": kind, "count": count})
        answer = self.line.receive()
        if answer is None:
            raise RuntimeError("a job ended on the way; see its log with --keep FOLDER")
        return answer

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let its ranks run, which stand still otherwise (after the first time)."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End it."""
        self._signal(signal.SIGCONT)
        harness.end(self.process)
        self.door.close()
