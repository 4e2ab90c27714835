"""A process that saves or restores one state, as `bench-restore` tells it."""

from __future__ import annotations

import os
import sys
import time
import zlib
from typing import Any

import torch

from bench.contestants import ENTRIES
from bench.contestants.base import Contestant, build, forward_backward
from bench.turns import Line, Message

POLL_SECONDS = 0.002


def digest(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """A checksum of every tensor of the state."""
    found = 0
    for value in (model.state_dict(), optimizer.state_dict()):
        for tensor in _tensors(value):
            found = zlib.crc32(tensor.contiguous().numpy().tobytes(), found)
    return found


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [found for key in sorted(value, key=str) for found in _tensors(value[key])]
    return []


class Script:
    """One contestant, which saves or restores once."""

    def __init__(self, line: Line, name: str, size_mb: int) -> None:
        self.line, self.make = line, ENTRIES[name].load()
        self.model, self.optimizer = build(size_mb)

    def _contestant(self) -> Contestant:
        return self.make(self.model, self.optimizer, self._told)

    def _told(self) -> float | None:
        message = self.line.receive() if self.line.waiting() else None
        return None if message is None else float(message["durable"])

    def save(self, key: str) -> Message:
        """Train a little, and save."""
        forward_backward(self.model, self.optimizer)
        self.optimizer.step()
        contestant = self._contestant()
        contestant.begin()
        contestant.prepare(1)
        forward_backward(self.model, self.optimizer)
        with contestant.guard():
            self.optimizer.step()
        contestant.save(key)
        while contestant.durable() is None:
            time.sleep(POLL_SECONDS)
        return {"digest": digest(self.model, self.optimizer)}

    def load(self, key: str) -> Message:
        """Restore into a model and an optimizer that are new; the clock runs for that only."""
        contestant = self._contestant()
        self.line.send({"ready": "to restore"})
        self.line.receive()
        cpu, begin = time.process_time(), time.monotonic()
        contestant.load(key)
        seconds = time.monotonic() - begin
        cpu = time.process_time() - cpu
        contestant.boundary()  # dying again and again without a step would be a crash loop
        return {"seconds": seconds, "cpu": cpu, "digest": digest(self.model, self.optimizer)}


def main() -> None:
    name, size_mb = sys.argv[1], int(sys.argv[2])
    line = Line.to_bench()
    script = Script(line, name, size_mb)
    line.send({"pid": os.getpid()})
    order = line.receive()
    if order is not None:
        line.send(getattr(script, order["do"])(order["key"]))
        line.receive()


if __name__ == "__main__":
    main()
