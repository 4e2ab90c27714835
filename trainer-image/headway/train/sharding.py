"""Tensors that are divided among the ranks: DTensors, as `fully_shard` (FSDP2) makes them.

A checkpoint holds the whole tensor, under torch's own name for it, whoever had which part of it.
So each rank writes the run of elements that it has, and reads the run that it needs: any number
of ranks restores what any other has saved, and one without shards as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
import torch.distributed as dist
from torch.optim import Optimizer

from headway.checkpoint.shares import Shard
from headway.checkpoint.state import TensorSpec
from headway.train.state import dtype_of, flatten

_DTENSOR = "torch.distributed.tensor"


def is_divided(tensor: Any) -> TypeGuard[Any]:
    """Whether it is a DTensor. The module is not imported for those who use none."""
    module = sys.modules.get(_DTENSOR)
    return module is not None and isinstance(tensor, module.DTensor)


@dataclass(frozen=True)
class Part:
    """What this rank has of a DTensor.

    Attributes:
        shard: Where that lies in the whole tensor, and who saves it.
        shape: Its shape.
    """

    shard: Shard
    shape: tuple[int, ...]


def part_of(name: str, tensor: Any) -> Part:
    """What this rank has of a DTensor.

    Of several ranks that have the same (on a mesh with a replicated dimension, as in HSDP) the
    first one saves it.

    Raises:
        TypeError: it is divided in a way that checkpoints don't know.
    """
    import torch.distributed.tensor as dtensor  # noqa: PLC0415 (slow, and there already)

    mesh, placements = tensor.device_mesh, tensor.placements
    divided = [n for n, each in enumerate(placements) if not each.is_replicate()]
    # By the very type, since a subclass of Shard divides in another order.
    known = all(type(placements[n]) is dtensor.Shard and placements[n].dim == 0 for n in divided)
    if not known or len(divided) > 1 or mesh.size() != dist.get_world_size():
        raise TypeError(
            f"{name} is placed as {placements} on {mesh}, which checkpoints don't know: they know "
            "tensors that are sharded along their first dimension over one dimension of a mesh "
            "of all ranks, and replicated over the others (FSDP2, HSDP)"
        )
    at = mesh.get_coordinate()
    rows = tensor.shape[0] if tensor.ndim else 1
    first, last = 0, rows
    if divided:  # as torch.chunk does it: the last ranks may get less, or nothing
        chunk = -(-rows // mesh.size(divided[0]))
        first = min(at[divided[0]] * chunk, rows)
        last = min(first + chunk, rows)
    shape = (last - first, *tensor.shape[1:]) if tensor.ndim else ()
    if local_of(tensor).shape != shape:
        raise TypeError(f"{name} is not divided evenly: this rank has {local_of(tensor).shape}")
    owner = mesh.mesh[tuple(at[n] if n in divided else 0 for n in range(mesh.ndim))]
    inner = math.prod(tensor.shape[1:])
    return Part(Shard(int(owner), first * inner, (last - first) * inner), shape)


def local_of(tensor: Any) -> torch.Tensor:
    """The memory of a tensor that is in this process."""
    local: torch.Tensor = tensor._local_tensor if is_divided(tensor) else tensor
    return local


def shards_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Shard]:
    """What this rank has of those that are divided."""
    return {name: part_of(name, t).shard for name, t in tensors.items() if is_divided(t)}


class Wants:
    """What this rank wants of the tensors of a checkpoint, by the objects that it restores.

    Args:
        objects: As named in `checkpointing`.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._like: dict[str, Any] = {}
        self._parameters: dict[str, Any] = {}
        if _DTENSOR not in sys.modules:
            return
        for name, value in objects.items():
            if isinstance(value, Optimizer):
                # It has no state yet; what it will have looks like the parameters.
                params = (p for group in value.param_groups for p in group["params"])
                numbered = ((f"{name}.state.{n}", p) for n, p in enumerate(params))
                self._parameters |= {key: p for key, p in numbered if is_divided(p)}
            else:
                found: dict[str, torch.Tensor] = {}
                flatten(value.state_dict(), name, found)
                self._like |= {key: t for key, t in found.items() if is_divided(t)}

    def within(self, spec: TensorSpec) -> tuple[int, int]:
        """The elements that this rank wants: the first one, and how many."""
        like = self._like_of(spec)
        if like is None:
            return 0, spec.count
        shard = part_of(spec.name, like).shard
        return shard.start, shard.count

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """The shape of these elements."""
        like = self._like_of(spec)
        return spec.shape if like is None else part_of(spec.name, like).shape

    def empty(self, spec: TensorSpec) -> torch.Tensor:
        """Memory for these elements."""
        return torch.empty(self.shape(spec), dtype=dtype_of(spec))

    def tensor(self, spec: TensorSpec, local: torch.Tensor) -> torch.Tensor:
        """The tensor of which this rank has `local`."""
        like = self._like_of(spec)
        if like is None:
            return local
        made: torch.Tensor = type(like).from_local(
            local,
            like.device_mesh,
            like.placements,
            run_check=False,
            shape=like.shape,
            stride=like.stride(),
        )
        return made

    def _like_of(self, spec: TensorSpec) -> Any:
        like = self._like.get(spec.name)
        if like is None and self._parameters:
            like = self._parameters.get(spec.name.rpartition(".")[0])
        return like if like is not None and tuple(like.shape) == spec.shape else None
