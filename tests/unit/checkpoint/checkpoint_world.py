"""States, saves and restores that the checkpoint tests have in common."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

from headway.checkpoint import ranges, state, writer
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import Commit, PartReceipt
from headway.checkpoint.reader import Restored, restore_newest
from headway.checkpoint.state import TensorSpec
from headway.checkpoint.stores import Store

State = dict[str, tuple[TensorSpec, memoryview]]
NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

SHAPES: list[tuple[str, str, tuple[int, ...]]] = [
    ("model.weight", "F32", (7, 11)),
    ("model.bias", "BF16", (13,)),
    ("model.empty", "F16", (0, 4)),
    ("model.mask", "BOOL", (5,)),
    ("optimizer.step", "I64", ()),
    ("optimizer.exp_avg", "F64", (3, 3)),
]


def make_state(seed: int, shapes: Sequence[tuple[str, str, tuple[int, ...]]] = SHAPES) -> State:
    """Random bytes in tensors of these names, dtypes and shapes."""
    rng = random.Random(seed)
    specs = [TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in shapes]
    return {s.name: (s, memoryview(bytearray(rng.randbytes(s.nbytes)))) for s in specs}


def contents(tensors: Mapping[str, tuple[TensorSpec, memoryview]]) -> dict[str, bytes]:
    return {name: bytes(view) for name, (_, view) in tensors.items()}


def write_parts(
    store: Store, checkpoint: CheckpointId, tensors: State, world_size: int
) -> list[PartReceipt]:
    objects: Any = {"epoch": 3, "best": float("inf"), "betas": [0.9, 0.999]}
    return [
        writer.write_part(
            store,
            checkpoint,
            rank,
            world_size,
            tensors,
            {"rng": [rank, 2**70], "cursor": checkpoint.step},
            objects,
        )
        for rank in range(world_size)
    ]


def save(
    store: Store,
    checkpoint: CheckpointId,
    tensors: State,
    world_size: int = 2,
    metrics: dict[str, float] | None = None,
) -> Commit:
    receipts = write_parts(store, checkpoint, tensors, world_size)
    return writer.commit(store, checkpoint, receipts, created=NOW, metrics=metrics)


class Memory:
    """Where a restore reads tensors into."""

    def __init__(self) -> None:
        self.buffers: dict[str, bytearray] = {}

    def __call__(self, spec: TensorSpec) -> memoryview:
        self.buffers[spec.name] = bytearray(spec.nbytes)
        return memoryview(self.buffers[spec.name])

    def contents(self) -> dict[str, bytes]:
        return {name: bytes(data) for name, data in self.buffers.items()}


def restore(store: Store, rank: int = 0, **options: Any) -> tuple[Restored, dict[str, bytes]]:
    memory = Memory()
    restored = restore_newest(store, memory, rank, **options)
    assert restored is not None, "nothing was restored"
    return restored, memory.contents()


@contextmanager
def chunk_of(nbytes: int) -> Iterator[None]:
    """Cut into chunks of this many bytes, so that small states have many."""
    with (
        patch.object(state, "CHUNK", nbytes),
        patch.object(ranges, "CHUNK", nbytes),
        patch.object(writer, "CHUNK", nbytes),
    ):
        yield
