"""Trained objects, and checkpoints of them as a training job writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn

from headway.checkpoint import writer
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import Commit
from headway.checkpoint.stores import Store
from headway.train.state import flatten, spec_of, view_of


def trained(
    seed: int, optimizer: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> dict[str, Any]:
    """A small model, its optimizer and its scheduler after three steps."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 2))
    model[2].to(torch.bfloat16)
    optim = optimizer(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optim, 2)
    for _ in range(3):
        hidden = model[1](model[0](torch.randn(4, 5)))
        model[2](hidden.to(torch.bfloat16)).float().pow(2).sum().backward()
        optim.step()
        optim.zero_grad()
        schedule.step()
    return {"model": model, "optimizer": optim, "scheduler": schedule}


def save(
    store: Store, checkpoint: CheckpointId, objects: Mapping[str, Any], world_size: int = 2
) -> Commit:
    """Commit a checkpoint of what has a `state_dict()`, or is one."""
    tensors: dict[str, torch.Tensor] = {}
    tree: dict[str, Any] = {"names": sorted(objects), "loader": {"epoch": 1}}
    for name, value in objects.items():
        state = value.state_dict() if hasattr(value, "state_dict") else value
        tree[name] = flatten(state, name, tensors)
    parts = {n: (spec_of(n, t), view_of(t.contiguous())) for n, t in tensors.items()}
    receipts = [
        writer.write_part(store, checkpoint, rank, world_size, parts, {"rng": rank}, tree)
        for rank in range(world_size)
    ]
    now = datetime.now(UTC)
    return writer.commit(store, checkpoint, receipts, created=now, metrics={"loss": 0.5})


def same(one: Any, other: Any) -> bool:
    """Whether two state trees are equal, bit for bit and type for type."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.stride() == other.stride()
            and torch.equal(one, other)
        )
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)
