"""Trains a tiny network with Horovod and appends every loss, exactly, to $LOSSES.<rank>."""

import os
import time
from pathlib import Path

import horovod.torch as hvd
import torch
from torch import nn
from torch.utils.data import TensorDataset

import headway

torch.set_num_threads(1)
hvd.init()
run = headway.init(seed=7)
assert (hvd.rank(), hvd.size()) == (run.rank, run.world_size)
assert hvd.local_rank() == run.local_rank
assert hvd.cross_rank() == int(os.environ["GROUP_RANK"])
generator = torch.Generator().manual_seed(3)
inputs = torch.randn(120, 8, generator=generator)
loader = run.loader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), global_batch_size=12)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))
optimizer = hvd.DistributedOptimizer(
    torch.optim.AdamW(model.parameters(), lr=0.01), named_parameters=model.named_parameters()
)
if not run.checkpointing(model=model, optimizer=optimizer):
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
losses = Path(f"{os.environ['LOSSES']}.{run.rank}")
for _ in run.epochs(run.param("epochs", 12)):
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        with losses.open("a") as file:
            file.write(f"{run.step_count + 1} {loss.item().hex()}\n")
        time.sleep(run.param("delay_ms", 0) / 1000)
        run.step(loss=loss)
run.finish()
