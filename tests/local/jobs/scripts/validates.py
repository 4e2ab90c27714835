"""Trains epochs of ten steps; after each, rank 0 validates. Halts after step `linger_at`."""

import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

import headway

torch.set_num_threads(1)
run = headway.init(seed=3)
loader = run.loader(TensorDataset(torch.arange(40.0).reshape(40, 1)), global_batch_size=4)
model = DistributedDataParallel(nn.Linear(1, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
run.checkpointing(model=model, optimizer=optimizer)
folder = Path(os.environ["FOLDER"])
for _ in run.epochs(run.param("epochs", 3)):
    for (inputs,) in loader:
        loss = nn.functional.mse_loss(model(inputs), 2 * inputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with (folder / f"steps.{run.rank}").open("a") as file:
            file.write(f"{run.step_count + 1}\n")
        run.step(loss=loss)
        if run.step_count == run.param("linger_at", 0):
            (folder / f"lingers.{run.rank}").touch()
            while not (folder / "go").exists():
                time.sleep(0.05)
    if run.rank == 0:
        run.log(val=100.0 + run.step_count)
run.finish()
