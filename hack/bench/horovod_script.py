"""The job that `bench-horovod` times: allreduce and epochs of examples/horovod/train.py.

`plain` is what a user of horovodrun has, and knows nothing of Headway; `headway` is the example
as it stands. Rank 0 takes turns as the bench tells it (see `turns`), and answers with the seconds
of each operation; the other rank waits in a collective until it is their turn.
"""

from __future__ import annotations

import itertools
import os
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from bench.turns import Line

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "horovod" / "train.py"
BATCH = 96
SIZES = {"allreduce_1kb": 1 << 10, "allreduce_1mb": 1 << 20, "allreduce_16mb": 1 << 24}
WARM = {"allreduce_1kb": 50, "allreduce_1mb": 20, "allreduce_16mb": 5, "epoch": 3}
Work = Iterator[None]
"""Does one operation at each `next`."""


def allreduces(name: str, size: int) -> Work:
    """Averages a tensor of so many bytes over the ranks."""
    tensor = torch.ones(size // 4)
    while True:
        hvd.allreduce_(tensor, name=name)
        yield


def made(example: dict[str, Any]) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = example["network"]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    return model, hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss


def plain_epochs(example: dict[str, Any]) -> Work:
    """The example's epochs as a script for horovodrun has them."""
    data, validation = example["digits"]()
    sampler: DistributedSampler[Any] = DistributedSampler(data, hvd.size(), hvd.rank(), seed=1)
    loader = DataLoader(data, BATCH // hvd.size(), sampler=sampler)
    model, optimizer = made(example)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    for epoch in itertools.count():
        sampler.set_epoch(epoch)
        for images, labels in loader:
            train(model, optimizer, images, labels)
        example["accuracy"](model, validation, torch.device("cpu"))
        yield


def headway_epochs(example: dict[str, Any]) -> Work:
    """The example's epochs as it has them."""
    import headway  # noqa: PLC0415 (the plain script does without)

    run = headway.init(seed=1)
    data, validation = example["digits"]()
    loader = run.loader(data, global_batch_size=BATCH)
    model, optimizer = made(example)
    if not run.checkpointing(model=model, optimizer=optimizer):
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    for _ in run.epochs(10**9):
        for images, labels in loader:
            run.step(loss=train(model, optimizer, images, labels))
        run.log(val_accuracy=example["accuracy"](model, validation, run.device))
        yield


def timed(work: Work, count: int) -> list[float]:
    """Seconds of each of `count` operations."""
    found = []
    begin = time.perf_counter()
    for _ in range(count):
        next(work)
        end = time.perf_counter()
        found.append(end - begin)
        begin = end
    return found


def take_turns(works: dict[str, Work]) -> None:
    """Work as long as the bench asks for it."""
    for kind, work in works.items():
        timed(work, WARM[kind])
    pids = hvd.allgather_object(os.getpid())
    line = Line.to_bench() if hvd.rank() == 0 else None
    if line:
        line.send({"pids": pids})
    while True:
        order = hvd.broadcast_object(line.receive() if line else None, name="order")
        if order is None:
            return
        seconds = timed(works[order["kind"]], order["count"])
        if line:
            line.send({"seconds": seconds})


def main() -> None:
    torch.set_num_threads(1)
    hvd.init()
    example = runpy.run_path(str(EXAMPLE))
    epochs = headway_epochs if sys.argv[1] == "headway" else plain_epochs
    works = {name: allreduces(name, size) for name, size in SIZES.items()}
    take_turns({"epoch": epochs(example), **works})


if __name__ == "__main__":
    main()
