"""The job that `bench-recovery` kills: a small DDP model, the same under Headway and torchrun.

Each rank appends to ``$BENCH_STEPS/steps.<rank>``: ``start <generation> <pid>`` when it begins,
``trained <generation> <step>`` after the optimizer's step, and, when all that belongs to the step
is done, ``step <generation> <step> <seconds on the monotonic clock>``.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

FOLDER = Path(os.environ["BENCH_STEPS"])
RANK = int(os.environ["RANK"])
GENERATION = int(
    os.environ.get("HEADWAY_GENERATION") or os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0
)
EVERY_STEPS = 25
EPOCH_STEPS = 200
Stamp = Callable[[str, int], None]


class Model(torch.nn.Module):
    """A small perceptron, with frozen weights beside it that make the state as large as asked."""

    def __init__(self, state_mb: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
        )
        ballast = torch.zeros(max(state_mb, 1) * 250_000)
        self.ballast = torch.nn.Parameter(ballast, requires_grad=False)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(batch)
        return logits


def train(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: torch.Tensor
) -> torch.Tensor:
    loss: torch.Tensor = model(batch).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    time.sleep(0.01)  # a machine of its own for each rank would not be so busy
    return loss.detach()


def under_headway(state_mb: int, loader_workers: int, stamp: Stamp) -> None:
    import headway  # noqa: PLC0415 (torchrun does without)

    run = headway.init()
    loader = None
    if loader_workers:
        data = TensorDataset(torch.zeros(EPOCH_STEPS * 64, 256))
        loader = run.loader(data, global_batch_size=64, num_workers=loader_workers)
    model = DistributedDataParallel(Model(state_mb))
    optimizer = torch.optim.AdamW(model.parameters())
    run.checkpointing(model=model, optimizer=optimizer)

    def batches() -> Iterator[torch.Tensor]:
        if loader is None:
            while True:
                yield torch.randn(32, 256)
        for _ in run.epochs(10**9):
            yield from (batch for (batch,) in loader)

    for batch in batches():
        loss = train(model, optimizer, batch)
        stamp("trained", run.step_count + 1)
        run.step(loss=loss)
        stamp("step", run.step_count)


def under_torchrun(state_mb: int, _: int, stamp: Stamp) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    model = DistributedDataParallel(Model(state_mb))
    optimizer = torch.optim.AdamW(model.parameters())
    path, step = FOLDER / "checkpoint.pt", 0
    if path.exists():
        state = torch.load(path)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    while True:
        train(model, optimizer, torch.randn(32, 256))
        step += 1
        stamp("trained", step)
        if RANK == 0 and step % EVERY_STEPS == 0:
            new = path.with_suffix(".new")
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step}, new)
            new.replace(path)
        stamp("step", step)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("launcher", choices=["headway", "torchrun"])
    options.add_argument("--state-mb", type=int, default=1)
    options.add_argument("--loader-workers", type=int, default=0)
    given = options.parse_args()
    with (FOLDER / f"steps.{RANK}").open("a", buffering=1) as out:
        out.write(f"start {GENERATION} {os.getpid()}\n")

        def stamp(kind: str, step: int) -> None:
            out.write(f"{kind} {GENERATION} {step} {time.monotonic()}\n")

        run = under_headway if given.launcher == "headway" else under_torchrun
        run(given.state_mb, given.loader_workers, stamp)


if __name__ == "__main__":
    main()
