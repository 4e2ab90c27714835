"""Trains a model that is sharded by FSDP2 or HSDP, or replicated by DDP, as `mode` says.

Appends to $TRACE.<rank>, for each step, its loss and a digest of the whole state, however that is
divided; and, for a restored one, the digest of what was restored.
"""

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

import headway


def whole(tree: Any) -> Any:
    """A state with every tensor whole, and as text."""
    if isinstance(tree, dict):
        return {str(key): whole(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value) for value in tree]
    tensor = tree.full_tensor() if isinstance(tree, DTensor) else tree
    return tensor.tolist() if isinstance(tensor, torch.Tensor) else tensor


def note(*words: object) -> None:
    states = [whole(value.state_dict()) for value in (net, optimizer, average)]
    digest = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    with Path(f"{os.environ['TRACE']}.{run.rank}").open("a") as file:
        file.write(" ".join(map(str, (*words, digest))) + "\n")


class Average:
    """A hand-written EMA of sharded weights."""

    def __init__(self) -> None:
        self.shadow = {name: value.detach().clone() for name, value in net.named_parameters()}

    def update(self) -> None:
        for name, value in net.named_parameters():
            self.shadow[name].mul_(0.9).add_(value.detach(), alpha=0.1)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow = state["shadow"]


torch.set_num_threads(1)
run = headway.init(seed=3)
generator = torch.Generator().manual_seed(3)
loader = run.loader(TensorDataset(torch.randn(96, 8, generator=generator)), 12)
# Sizes that no number of ranks divides, and one row for all of them.
net = nn.Sequential(nn.Linear(8, 7), nn.LayerNorm(7), nn.Dropout(0.2), nn.Linear(7, 300), nn.ReLU(),
                    nn.Linear(300, 1))  # fmt: skip
model: nn.Module = net
if run.param("mode", "fsdp") == "ddp":
    model = DistributedDataParallel(net)
else:
    mesh = None
    if run.param("mode", "fsdp") == "hsdp":
        mesh = init_device_mesh("cpu", (2, run.world_size // 2), mesh_dim_names=("r", "s"))
    for layer in (net[0], net[3], net):
        fully_shard(layer, mesh=mesh)
optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
average = Average()
if run.checkpointing(model=model, optimizer=optimizer, average=average):
    note("restored", run.step_count)
for _ in run.epochs(run.param("epochs", 4)):
    for (inputs,) in loader:
        loss = model(inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update()
        note("step", run.step_count + 1, loss.item().hex())
        time.sleep(run.param("delay_ms", 0) / 1000)
        run.step(loss=loss)
run.finish()
