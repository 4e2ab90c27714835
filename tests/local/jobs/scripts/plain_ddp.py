"""Knows nothing of Headway: what torchrun's users have."""

import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
torch.manual_seed(0)
model = DistributedDataParallel(nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(5):
    optimizer.zero_grad()
    model(torch.ones(2, 4) * (dist.get_rank() + 1)).sum().backward()
    optimizer.step()
total = torch.tensor([float(dist.get_rank())])
dist.all_reduce(total)
assert os.environ["LOCAL_RANK"] == "0"
print(f"rank {dist.get_rank()} of {dist.get_world_size()}: sum of ranks {total.item():g}")
dist.destroy_process_group()
