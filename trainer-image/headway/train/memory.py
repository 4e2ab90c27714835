"""Restoring from the slots of this pod: no storage, no network, nothing read twice."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.slot import HEADER, Contents, Slot
from headway.checkpoint.state import TensorSpec
from headway.train.found import Found
from headway.train.sharding import Wants
from headway.train.state import dtype_of


def read(answer: Mapping[str, Any], local_rank: int, wants: Wants) -> Found:
    """Read what the agent offers.

    Args:
        answer: Of the agent: `generation` and `step` of the checkpoint, and `slots` with the path
            of each local rank's slot; `rank_state` if it is not the slot's.
        local_rank: This rank.
        wants: What it wants of the tensors.

    Returns:
        The state. Its tensors show the slots' own memory where they can: copy them before the
        next checkpoint is written.

    Raises:
        RuntimeError: the slots do not hold that checkpoint.
    """
    checkpoint = CheckpointId.named_in(answer)
    slots = [Slot(path) for path in answer["slots"]]
    held = [contents for slot in slots if (contents := slot.read()) is not None]
    if [contents.id for contents in held] != [checkpoint] * len(slots):
        raise RuntimeError(f"the memory of this pod does not hold {checkpoint} any more")
    return Found(
        id=checkpoint,
        objects=held[0].state["objects"],
        rank_state=answer.get("rank_state", held[local_rank].state["rank_state"]),
        tensors=_tensors(held, wants),
        borrowed=True,
        source="memory",
    )


class _Run(NamedTuple):
    """Bytes of a tensor as they lie in a slot."""

    start: int
    """Byte of the tensor at which they begin."""
    slot: int
    offset: int
    nbytes: int


def _tensors(held: Sequence[Contents], wants: Wants) -> dict[str, torch.Tensor]:
    specs = held[0].layout.tensors
    maps = [_private(contents) for contents in held]
    runs: dict[str, list[_Run]] = {name: [] for name in specs}
    for number, contents in enumerate(held):
        for share in contents.layout.placed.values():
            for each in share:
                at = each.fragment.start * specs[each.fragment.name].item_size
                runs[each.fragment.name].append(_Run(at, number, each.offset, each.nbytes))
    found = {}
    for name, spec in specs.items():
        first, count = (n * spec.item_size for n in wants.within(spec))
        needed = list(_needed(spec, sorted(runs[name]), first, first + count))
        found[name] = wants.tensor(spec, _local(spec, needed, maps, wants))
    return found


def _needed(spec: TensorSpec, runs: Iterable[_Run], start: int, stop: int) -> Iterator[_Run]:
    """What makes up the bytes from `start` to before `stop`; several slots may have the same."""
    for run in runs:
        skipped = start - run.start
        end = min(run.start + run.nbytes, stop)
        if skipped < 0 or start >= stop:
            break
        if end > start:
            yield _Run(start, run.slot, run.offset + skipped, end - start)
            start = end
    if start < stop:
        raise RuntimeError(f"the memory of this pod does not hold all of {spec.name}")


def _local(
    spec: TensorSpec, runs: Sequence[_Run], maps: Sequence[mmap.mmap], wants: Wants
) -> torch.Tensor:
    """The bytes as a tensor; shown, if they lie in one run."""
    if not runs:
        return wants.empty(spec)
    total, first = sum(run.nbytes for run in runs), runs[0]
    together = all(a.slot == b.slot and a.offset + a.nbytes == b.offset for a, b in pairwise(runs))
    if together:
        count, at = total // spec.item_size, HEADER + first.offset
        flat = torch.frombuffer(maps[first.slot], dtype=dtype_of(spec), count=count, offset=at)
        return flat.reshape(wants.shape(spec))
    tensor = wants.empty(spec)
    for run in runs:
        source = ctypes.addressof(ctypes.c_char.from_buffer(maps[run.slot])) + HEADER + run.offset
        ctypes.memmove(tensor.data_ptr() + run.start - first.start, source, run.nbytes)
    return tensor


def _private(contents: Contents) -> mmap.mmap:
    # Copy on write: torch wants memory that it may write to, and must not write to the slot.
    return mmap.mmap(contents.fd, HEADER + contents.data_nbytes, access=mmap.ACCESS_COPY)
