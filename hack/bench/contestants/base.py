"""What a contestant has to do, and the state that all of them save."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

WIDTH = 1024
BATCH = 32
BYTES_PER_LAYER = 3 * 4 * (WIDTH + 1) * WIDTH
"""A layer's weights and its two moments in AdamW, in float32."""


def build(size_mb: int) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A perceptron and its AdamW, whose states are together as large as asked."""
    count = max(round(size_mb * 1e6 / BYTES_PER_LAYER), 1)
    layers: list[torch.nn.Module] = []
    for _ in range(count):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4)


def forward_backward(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The part of a step that leaves the state alone."""
    optimizer.zero_grad()
    loss: torch.Tensor = model(torch.randn(BATCH, WIDTH)).square().mean()
    loss.backward()  # type: ignore[no-untyped-call]


class Contestant:
    """One way of saving and restoring.

    Args:
        model: The model that is trained.
        optimizer: Its optimizer, with its state already there.
        told: Whether the bench has seen the checkpoint complete in storage, for those who can't
            know it themselves; None if not yet, else seconds on the monotonic clock.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        told: Callable[[], float | None],
    ) -> None:
        self.model, self.optimizer, self.told = model, optimizer, told
        self.bucket = os.environ["BENCH_BUCKET"]

    def begin(self) -> None:
        """Training begins: the state is there."""

    def guard(self) -> AbstractContextManager[Any]:
        """Put around `optimizer.step()`."""
        return contextlib.nullcontext()

    def prepare(self, steps: int) -> None:
        """The save comes after so many more steps."""

    def boundary(self) -> None:
        """The end of a step without a save."""

    def save(self, key: str) -> None:
        """The end of a step with a save, below this key of the bucket."""
        raise NotImplementedError

    def durable(self) -> float | None:
        """When all of the last save was in the bucket; None if it is not yet."""
        raise NotImplementedError

    def load(self, key: str) -> None:
        """Restore model and optimizer, which is new and has no state."""
        raise NotImplementedError

    def uri(self, key: str) -> str:
        """A key of the bucket as a URI."""
        return f"s3://{self.bucket}/{key}"


def join_group() -> None:
    """A process group of one rank: `torch.distributed.checkpoint` works with a group."""
    import torch.distributed as dist  # noqa: PLC0415 (not every contestant needs it)

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
