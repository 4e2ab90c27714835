"""The job that `bench-horovod` kills: a small model, with Headway's checkpoints or Horovod's own.

Each rank appends to ``$BENCH_STEPS/steps.<rank>``: ``start <generation> <pid>`` when it begins,
``trained <generation> <step>`` after the optimizer's step, and, when all that belongs to the step
is done, ``step <generation> <step> <seconds on the monotonic clock>``. A generation's number is
the time at which rank 0 began it: processes of an elastic job live through several.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from torch import nn

FOLDER = Path(os.environ["BENCH_STEPS"])
EVERY_STEPS = 25


class Stamps:
    """What this rank writes in a generation. All ranks make it at once."""

    def __init__(self) -> None:
        self._generation = hvd.broadcast_object(time.monotonic_ns())
        self._file = (FOLDER / f"steps.{hvd.rank()}").open("a", buffering=1)
        self._file.write(f"start {self._generation} {os.getpid()}\n")

    def __call__(self, kind: str, step: int) -> None:
        """Tell a step."""
        self._file.write(f"{kind} {self._generation} {step} {time.monotonic()}\n")


def make() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    return model, hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    optimizer.zero_grad()
    loss: torch.Tensor = model(torch.randn(32, 256)).square().mean()
    loss.backward()
    optimizer.step()
    time.sleep(0.01)  # a machine of its own for each rank would not be so busy
    return loss.detach()


def with_headway() -> None:
    import headway  # noqa: PLC0415 (the others do without)

    run = headway.init()
    model, optimizer = make()
    if not run.checkpointing(model=model, optimizer=optimizer):
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    stamp = Stamps()
    while True:
        loss = train(model, optimizer)
        stamp("trained", run.step_count + 1)
        run.step(loss=loss)
        stamp("step", run.step_count)


def plain() -> None:
    model, optimizer = make()
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    stamp, step = Stamps(), 0
    while True:
        train(model, optimizer)
        step += 1
        stamp("trained", step)
        stamp("step", step)


@hvd.elastic.run
def elastic(state: hvd.elastic.TorchState) -> None:
    stamp = Stamps()
    while True:
        train(state.model, state.optimizer)
        state.step += 1
        stamp("trained", state.step)
        if state.step % EVERY_STEPS == 0:
            state.commit()
        stamp("step", state.step)


def main() -> None:
    torch.set_num_threads(1)
    hvd.init()
    if sys.argv[1] == "headway":
        with_headway()
    elif sys.argv[1] == "plain":
        plain()
    else:
        model, optimizer = make()
        elastic(hvd.elastic.TorchState(model, optimizer, step=0))


if __name__ == "__main__":
    main()
