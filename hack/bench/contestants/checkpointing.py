"""`torch_checkpointing` into memory, and a process beside it that copies the folder to S3.

It writes to local file systems only (0.1.1), so that its users sync a folder themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch_checkpointing import CheckpointManager

from bench.contestants.base import Contestant, join_group


class TorchCheckpointing(Contestant):
    """Asynchronous saves, with `lock()` around the optimizer as its guide asks for."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        join_group()
        self.folder = Path(os.environ["BENCH_MEMORY"])
        self.manager = CheckpointManager(CheckpointManager.Config.with_async_save())
        self.manager.prewarm_staging(self.state())
        command = [sys.executable, "-m", "bench.contestants.folder_sync", self.bucket]
        self.sync = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._at: float | None = None

    def state(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def guard(self) -> AbstractContextManager[Any]:
        return self.manager.lock()

    def save(self, key: str) -> None:
        self._at = None
        done = self.manager.save(str(self.folder / key), self.state())
        assert done is not None
        threading.Thread(target=self._follow, args=(done, key), daemon=True).start()

    def _follow(self, done: Future[Any], key: str) -> None:
        done.result()
        assert self.sync.stdin is not None
        assert self.sync.stdout is not None
        self.sync.stdin.write(f"{self.folder / key}\t{key}\n")
        self.sync.stdin.flush()
        if self.sync.stdout.readline() != "done\n":
            raise RuntimeError("the copy to S3 failed")
        self._at = time.monotonic()
        shutil.rmtree(self.folder / key)

    def durable(self) -> float | None:
        return self._at
