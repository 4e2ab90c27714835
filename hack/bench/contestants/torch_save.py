"""What most scripts do: `torch.save` to a local file, then boto3's `upload_file`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import boto3
import torch

from bench.contestants.base import Contestant


class TorchSave(Contestant):
    """The local file is in memory, which is faster than any disk."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.file = Path(os.environ["BENCH_MEMORY"]) / "checkpoint.pt"
        self.client = boto3.client("s3")
        self._at = 0.0

    def save(self, key: str) -> None:
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, self.file)
        self.client.upload_file(str(self.file), self.bucket, f"{key}/checkpoint.pt")
        self.file.unlink()
        self._at = time.monotonic()

    def durable(self) -> float | None:
        return self._at

    def load(self, key: str) -> None:
        self.client.download_file(self.bucket, f"{key}/checkpoint.pt", str(self.file))
        state = torch.load(self.file)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.file.unlink()
