"""Restoring from the slots of this pod: no storage, no network, nothing read twice."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.slot import HEADER, Contents, Slot
from headway.checkpoint.state import TensorSpec
from headway.train.found import Found
from headway.train.state import dtype_of, empty_for


def read(answer: Mapping[str, Any], local_rank: int) -> Found:
    """Read what the agent offers.

    Args:
        answer: Of the agent: `generation` and `step` of the checkpoint, and `slots` with the path
            of each local rank's slot.
        local_rank: This rank.

    Returns:
        The state. Its tensors show the slots' own memory where they can: copy them before the
        next checkpoint is written.

    Raises:
        RuntimeError: the slots do not hold that checkpoint.
    """
    checkpoint = CheckpointId(int(answer["generation"]), int(answer["step"]))
    slots = [Slot(path) for path in answer["slots"]]
    held = [contents for slot in slots if (contents := slot.read()) is not None]
    if [contents.id for contents in held] != [checkpoint] * len(slots):
        raise RuntimeError(f"the memory of this pod does not hold {checkpoint} any more")
    return Found(
        id=checkpoint,
        objects=held[0].state["objects"],
        rank_state=held[local_rank].state["rank_state"],
        tensors=_tensors(held),
        borrowed=True,
        source="memory",
    )


def _tensors(held: Sequence[Contents]) -> dict[str, torch.Tensor]:
    specs = held[0].layout.tensors
    maps = [_private(contents) for contents in held]
    pieces: dict[str, list[tuple[int, int, int, int]]] = {name: [] for name in specs}
    for number, contents in enumerate(held):
        for share in contents.layout.placed.values():
            for each in share:
                at = each.fragment.start * specs[each.fragment.name].item_size
                pieces[each.fragment.name].append((at, number, each.offset, each.nbytes))
    return {name: _tensor(spec, sorted(pieces[name]), maps) for name, spec in specs.items()}


def _tensor(
    spec: TensorSpec, pieces: Sequence[tuple[int, int, int, int]], maps: Sequence[mmap.mmap]
) -> torch.Tensor:
    """A tensor from (byte in the tensor, slot, byte in its data, length); shown, if in one run."""
    if not spec.count:
        return empty_for(spec)
    at, number, offset, total = pieces[0]
    for where, other, place, nbytes in pieces[1:]:
        if (other, place, where) != (number, offset + total, at + total):
            return _assembled(spec, pieces, maps)
        total += nbytes
    if total != spec.nbytes:
        raise RuntimeError(f"the memory of this pod does not hold all of {spec.name}")
    return torch.frombuffer(
        maps[number], dtype=dtype_of(spec), count=spec.count, offset=HEADER + offset
    ).reshape(spec.shape)


def _assembled(
    spec: TensorSpec, pieces: Sequence[tuple[int, int, int, int]], maps: Sequence[mmap.mmap]
) -> torch.Tensor:
    if sum(nbytes for *_, nbytes in pieces) != spec.nbytes:
        raise RuntimeError(f"the memory of this pod does not hold all of {spec.name}")
    tensor = empty_for(spec)
    for at, number, offset, nbytes in pieces:
        source = ctypes.addressof(ctypes.c_char.from_buffer(maps[number])) + HEADER + offset
        ctypes.memmove(tensor.data_ptr() + at, source, nbytes)
    return tensor


def _private(contents: Contents) -> mmap.mmap:
    # Copy on write: torch wants memory that it may write to, and must not write to the slot.
    return mmap.mmap(contents.fd, HEADER + contents.data_nbytes, access=mmap.ACCESS_COPY)
