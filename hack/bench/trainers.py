"""The processes of `bench-checkpoint` and `bench-restore`: one for each contestant."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import harness, memory
from bench.cpus import Cpus
from bench.harness import Storage
from bench.turns import Door, Line, Message

START_SECONDS = 180.0
ANSWER_SECONDS = 120.0
SETTLE_SECONDS = 1.0
"""After a save: what it leaves to do (a commit, retention) is nobody else's burden."""
OURS = ("headway", "headway_memory")
_WATCH_SECONDS = 0.02
_SAMPLE_SECONDS = 0.05


class TrainerError(Exception):
    """A contestant's trainer ended, or did not answer."""


@dataclass
class Trainer:
    """A contestant's process (ours: its agent), and the connection to its script.

    Attributes:
        name: The contestant.
        log: What it prints.
        scratch: Its folder for files in memory.
        own: Memory of the script alone before its contestant was set up, in bytes.
    """

    name: str
    process: subprocess.Popen[bytes]
    door: Door
    log: Path
    scratch: Path
    storage: Storage
    own: int = 0
    saves: int = 0
    line: Line = field(init=False)

    @classmethod
    def start(
        cls, name: str, script: Sequence[str], storage: Storage, folder: Path, cpus: Cpus
    ) -> Trainer:
        """Start a script (module and arguments), and wait for its connection.

        Raises:
            TrainerError: it ended, or took too long.
        """
        folder.mkdir(parents=True, exist_ok=True)
        scratch = harness.memory_folder() / f"headway-bench-{os.getpid()}-{name}"
        scratch.mkdir(exist_ok=True)
        door = Door(folder / f"{name}.sock")
        env = {**storage.env, "BENCH_SOCKET": str(door.path), "BENCH_MEMORY": str(scratch)}
        env |= cpus.env
        command = [sys.executable, "-m", *script]
        if name in OURS:
            command = [sys.executable, "-m", "headway.agent", "--", *command]
            env |= pod_environment(name, storage, folder)
        log = folder / f"{name}.log"
        trainer = cls(
            name, harness.start(command, log, env, cpus.trainer), door, log, scratch, storage
        )
        trainer.connect()
        return trainer

    def connect(self) -> None:
        """Wait for the script's connection; again after a restart.

        Raises:
            TrainerError: it ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while (line := self.door.accept()) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise TrainerError(f"it did not start:\n{harness.tail(self.log)}")
            time.sleep(0.005)
        self.line = line

    def tell(self, message: Message) -> None:
        """Send the script a message."""
        try:
            self.line.send(message)
        except OSError:
            raise TrainerError(f"it is gone:\n{harness.tail(self.log)}") from None

    def answer(self) -> Message:
        """Wait for what the script has to say.

        Raises:
            TrainerError: it said nothing for too long, or is gone.
        """
        found = self.line.receive() if self.line.waiting(ANSWER_SECONDS) else None
        if found is None:
            raise TrainerError(f"no answer in {ANSWER_SECONDS:g} s:\n{harness.tail(self.log)}")
        return found

    def used(self) -> int:
        """Bytes of memory of all its processes, and of its files in memory."""
        return memory.used((each.pid for each in harness.tree(self.process.pid)), self.scratch)

    def used_by_script(self) -> int:
        """Bytes of memory of the process that has the model: the largest."""
        return max(memory.used([each.pid]) for each in harness.tree(self.process.pid))

    def cpu(self) -> float:
        """Seconds of CPU that all its processes have used."""
        total = 0.0
        for each in harness.tree(self.process.pid):
            with contextlib.suppress(psutil.Error):
                total += sum(each.cpu_times()[:4])
        return total

    def stop(self) -> None:
        """End it, and remove what it left in memory."""
        harness.end(self.process, grace=0)
        self.door.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def pod_environment(name: str, storage: Storage, folder: Path) -> dict[str, str]:
    """What the operator would tell a pod of its own."""
    scratch = folder / f"{name}-scratch"
    scratch.mkdir(exist_ok=True)
    return {
        # The agent listens on a port that is always the same.
        "HEADWAY_POD_IP": f"127.88.251.{OURS.index(name) + 1}",
        "HEADWAY_STORAGE_URI": f"s3://{storage.bucket}/{name}",
        "HEADWAY_STORAGE_ENDPOINT": storage.server.endpoint,
        "HEADWAY_STORAGE_REGION": "us-east-1",
        "HEADWAY_CHECKPOINT": '{"everySteps": 1000, "keepLast": 1}',
        "HEADWAY_SCRATCH": str(scratch),
        "HEADWAY_TERMINATION_LOG": str(folder / f"{name}-termination"),
    }


class Watch:
    """Tells our script when a new commit is in the bucket, which its public API does not."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._stop = threading.Event()
        self._store = trainer.storage.store(f"{trainer.name}/ckpt")
        self._known = self._commits()

    def _commits(self) -> set[str]:
        found = [each["path"] for chunk in self._store.list() for each in chunk]
        return {path for path in found if path.endswith("COMMIT.json")}

    def _watch(self) -> None:
        while not self._stop.wait(_WATCH_SECONDS):
            if self._commits() - self._known:
                self._trainer.tell({"durable": time.monotonic()})
                return

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Peak:
    """The most memory that a trainer had while this was entered."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._stop = threading.Event()
        self.bytes = 0

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self.bytes = max(self.bytes, self._trainer.used())

    def __enter__(self) -> Peak:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
