"""A loop without `run.loader`: 30 steps, each noted before it is finished."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import headway

torch.set_num_threads(1)
run = headway.init()
model = DistributedDataParallel(nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
run.checkpointing(model=model, optimizer=optimizer)
while run.step_count < 30:
    loss = model(torch.ones(4, 1)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run.step(loss=loss)
    with (Path(os.environ["FOLDER"]) / f"steps.{run.rank}").open("a") as file:
        file.write(f"{run.step_count} {loss.item().hex()}\n")
run.finish()
