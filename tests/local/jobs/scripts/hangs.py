"""Trains; in the first generation rank 1 stops for ever in the middle."""

import os
import time

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import headway

run = headway.init()
model = DistributedDataParallel(nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
run.checkpointing(model=model, optimizer=optimizer)


def wait_for_something_that_never_comes() -> None:
    while True:
        time.sleep(1)


while run.step_count < 60:
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    run.step()
    time.sleep(0.02)
    if os.environ["HEADWAY_GENERATION"] == "1" and run.rank == 1 and run.step_count == 30:
        wait_for_something_that_never_comes()
run.finish()
