"""An elastic script as Horovod's documentation has it; appends a line for each batch to $STEPS.

A line: batch, size of the group, process of rank 0, sum of the parameters. The sum is the same
whatever happens: each rank has the same gradient, and nothing may be done twice or left out.
"""

import os
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from torch import nn

BATCHES = int(os.environ.get("BATCHES", "200"))
hvd.init()
torch.manual_seed(hvd.rank())  # only a broadcast makes the parameters of all ranks the same
torch.set_num_threads(1)
model = nn.Linear(4, 1)
optimizer = hvd.DistributedOptimizer(
    torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.5),
    named_parameters=model.named_parameters(),
)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.fill_(1.0 if hvd.rank() == 0 else 99.0)


@hvd.elastic.run
def train(state: hvd.elastic.TorchState) -> None:
    while state.batch < BATCHES:
        optimizer.zero_grad()
        model(torch.full((2, 4), state.batch / BATCHES)).sum().backward()
        optimizer.step()
        state.batch += 1
        if hvd.rank() == 0:
            total = sum(p.double().sum() for p in model.parameters()).item()
            with Path(os.environ["STEPS"]).open("a") as file:
                file.write(f"{state.batch} {hvd.size()} {os.getpid()} {total.hex()}\n")
        time.sleep(float(os.environ.get("DELAY", "0.02")))
        if state.batch % 5 == 0:
            state.commit()


train(hvd.elastic.TorchState(model=model, optimizer=optimizer, batch=0))
print(f"rank {hvd.rank()} of {hvd.size()} is through")
