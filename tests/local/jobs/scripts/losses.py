"""Trains a tiny network and appends every loss, as exact hexadecimal, to $LOSSES.<rank>."""

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

import headway

torch.set_num_threads(1)
run = headway.init(seed=7)
generator = torch.Generator().manual_seed(3)
data = TensorDataset(torch.randn(120, 8, generator=generator), torch.randn(120, 1))
data = TensorDataset(data.tensors[0], data.tensors[0].sum(1, keepdim=True))
loader = run.loader(data, global_batch_size=run.param("batch_size", 12))
net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.3), nn.Linear(16, 1))
ballast = torch.zeros(run.param("ballast_mb", 0), 250_000)
net.register_parameter("ballast", nn.Parameter(ballast, requires_grad=False))
model = DistributedDataParallel(net.to(run.device))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
run.checkpointing(model=model, optimizer=optimizer, schedule=schedule)
losses = Path(f"{os.environ['LOSSES']}.{run.rank}")
for _ in run.epochs(run.param("epochs", 12)):
    for inputs, targets in loader:
        loss = nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with losses.open("a") as file:
            file.write(f"{run.step_count + 1} {loss.item().hex()}\n")
        time.sleep(run.param("delay_ms", 0) / 1000)
        run.step(loss=loss)
    schedule.step()
run.finish()
