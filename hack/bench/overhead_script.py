"""The job whose steps `bench-overhead` times: the same DDP loop under Headway and torchrun.

Rank 0 takes turns as the bench tells it (see `turns`), and answers with the seconds of each
step; the other rank waits in a collective until it is their turn.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from bench.turns import Line

WARM_STEPS = 20
KINDS = ("short", "long")
Boundary = Callable[[torch.Tensor], None]


@dataclass
class Kind:
    """Steps of some length."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    batch: torch.Tensor

    @classmethod
    def make(cls, width: int, depth: int, samples: int) -> Kind:
        layers: list[torch.nn.Module] = []
        for _ in range(depth):
            layers += [torch.nn.Linear(width, width), torch.nn.ReLU()]
        model = DistributedDataParallel(torch.nn.Sequential(*layers))
        return cls(model, torch.optim.AdamW(model.parameters()), torch.randn(samples, width))

    def train(self) -> torch.Tensor:
        loss: torch.Tensor = self.model(self.batch).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def timed(kind: Kind, count: int, boundary: Boundary) -> list[float]:
    """Seconds of `count` steps."""
    found = []
    begin = time.perf_counter()
    for _ in range(count):
        boundary(kind.train())
        end = time.perf_counter()
        found.append(end - begin)
        begin = end
    return found


def take_turns(kinds: dict[str, Kind], boundary: Boundary) -> None:
    """Time steps as long as the bench asks for it."""
    for each in kinds.values():
        timed(each, WARM_STEPS, boundary)
    line = Line.to_bench() if dist.get_rank() == 0 else None
    if line:
        line.send({"pid": os.getpid()})
    while True:
        order = torch.zeros(2, dtype=torch.int64)
        message = line.receive() if line else None
        if message is not None:
            order = torch.tensor([KINDS.index(message["kind"]), message["count"]])
        dist.broadcast(order, src=0)
        number, count = order.tolist()
        if not count:
            return
        cpu = time.process_time()
        seconds = timed(kinds[KINDS[number]], count, boundary)
        if line:
            line.send({"seconds": seconds, "cpu": (time.process_time() - cpu) / count})


def make_kinds() -> dict[str, Kind]:
    return {"short": Kind.make(256, 2, 64), "long": Kind.make(1024, 4, 64)}


def main() -> None:
    torch.set_num_threads(1)
    if sys.argv[1] == "headway":
        import headway  # noqa: PLC0415 (torchrun does without)

        with headway.init() as run:
            kinds = make_kinds()
            long = kinds["long"]
            run.checkpointing(model=long.model, optimizer=long.optimizer)
            take_turns(kinds, lambda loss: run.step(loss=loss))
    else:
        dist.init_process_group("gloo")
        take_turns(make_kinds(), lambda _: None)
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
