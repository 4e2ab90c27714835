"""The objects whose state is the training's: what of them is saved, and how they get it back."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from headway.train.found import Found
from headway.train.state import AsItWas, as_stored, unflatten


def checked(stateful: Mapping[str, Any], reserved: Collection[str]) -> dict[str, Any]:
    """The objects without the wrappers that change the names of a model's parameters.

    Raises:
        ValueError: a name is ours.
        TypeError: an object has no state to save, or one that can't be.
    """
    for name, value in stateful.items():
        if name in reserved:
            raise ValueError(f"{name}: this name is taken; the loader saves itself")
        if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
            raise TypeError(
                f"checkpointing({name}=…): a {type(value).__name__} has no state_dict() and "
                "load_state_dict(); name each object by itself"
            )
        if isinstance(value, torch.nn.Module) and _is_fsdp1(value):
            raise TypeError(
                f"checkpointing({name}=…) has FullyShardedDataParallel in it, whose optimizer "
                "state looks replicated and is not: use torch.distributed.fsdp.fully_shard"
            )
    return {name: _unwrapped(value) for name, value in stateful.items()}


def _is_fsdp1(model: torch.nn.Module) -> bool:
    module = sys.modules.get("torch.distributed.fsdp")
    return module is not None and any(
        isinstance(each, module.FullyShardedDataParallel) for each in model.modules()
    )


def _unwrapped(value: Any) -> Any:
    """Of DDP and `torch.compile`, in whatever order."""
    while True:
        if isinstance(value, DistributedDataParallel):
            value = value.module
        elif isinstance(value, torch.nn.Module) and "_orig_mod" in value._modules:
            value = value._orig_mod
        else:
            return value


def of_rank_zero(stateful: Mapping[str, Any], names: Iterable[str]) -> set[str]:
    """Those of the tensors that are buffers of a model, or an average of one by its name.

    Buffers (such as BatchNorm's running statistics) differ between the ranks of a DDP group.
    """
    buffers = {
        buffer
        for value in stateful.values()
        if isinstance(value, torch.nn.Module)
        for buffer, _ in value.named_buffers(remove_duplicate=False)
    }
    if not buffers:
        return set()
    return {name for name in names if any(end in buffers for end in _ends(name))}


def _ends(name: str) -> Iterator[str]:
    """`a.b.c` ends in `b.c` and `c`."""
    parts = name.split(".")
    return (".".join(parts[first:]) for first in range(1, len(parts)))


def load(name: str, value: Any, found: Found, device: torch.device) -> None:
    """Give an object its state.

    Args:
        name: Of the object.
        value: The object.
        found: The checkpoint.
        device: Where this rank computes.

    Raises:
        KeyError: the checkpoint knows no such object.
    """
    if name not in found.objects["names"]:
        names = ", ".join(found.objects["names"])
        raise KeyError(f"the checkpoint has no {name!r}; it holds {names}")
    tree = found.objects[name]
    make = as_stored if _only_copies(value) else AsItWas(device, found.borrowed)
    state = unflatten(tree, found.tensors, make)
    value.load_state_dict(state)
    if type(value).load_state_dict is torch.optim.Optimizer.load_state_dict:
        _keep_types(value, state)


def _only_copies(value: Any) -> bool:
    """Whether it copies what it loads into what it has, and keeps nothing of it."""
    plain = getattr(type(value), "load_state_dict", None) is torch.nn.Module.load_state_dict
    return plain and not any(key.endswith("_extra_state") for key in value.state_dict())


def _keep_types(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Undo what loading does to state whose type is not its parameter's.

    `Optimizer.load_state_dict` turns all floating-point state into the type of the parameter: an
    average kept in float32 for a bfloat16 parameter loses 16 bits.
    """
    numbers = (n for group in saved["param_groups"] for n in group["params"])
    params = (p for group in optimizer.param_groups for p in group["params"])
    for number, param in zip(numbers, params, strict=True):
        for key, value in saved["state"].get(number, {}).items():
            now = optimizer.state[param].get(key)
            if isinstance(now, torch.Tensor) and now.dtype != value.dtype:
                optimizer.state[param][key] = value.to(now.device)
