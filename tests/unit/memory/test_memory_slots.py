"""Checkpoints in shared memory: whole or not there, whoever is killed and whenever."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.agent.memory import Copy, Memory, NoRoomError
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.shares import layout_of
from headway.checkpoint.slot import HEADER, Layout, Slot
from headway.checkpoint.state import TensorSpec, partition

SPECS = [
    TensorSpec(name="model.weight", dtype="F32", shape=(7, 11)),
    TensorSpec(name="model.bias", dtype="BF16", shape=(13,)),
    TensorSpec(name="model.mean", dtype="F64", shape=(3,)),
    TensorSpec(name="model.empty", dtype="F32", shape=(0, 4)),
    TensorSpec(name="optimizer.step", dtype="F32", shape=()),
]


@pytest.fixture
def slot() -> Iterator[Slot]:
    file = os.memfd_create("slot")
    one = Slot(f"/proc/self/fd/{file}")
    yield one
    one.close()
    os.close(file)


def fill(slot: Slot, layout: Layout, seed: int) -> bytes:
    data = random.Random(seed).randbytes(layout.nbytes)
    slot.map(layout.nbytes)[HEADER : HEADER + layout.nbytes] = data
    return data


def test_what_was_sealed_is_read_back_through_another_handle(slot: Slot) -> None:
    layout = layout_of(SPECS, 0, 2, 1, {"model.mean"})
    data = fill(slot, layout, 1)
    slot.seal(CheckpointId(3, 70), layout, {"objects": {"lr": float("inf")}, "rank": 0})
    other = Slot(slot.path)
    contents = other.read()
    assert contents is not None
    assert contents.id == CheckpointId(3, 70)
    assert contents.layout == layout
    assert contents.state["objects"] == {"lr": float("inf")}
    assert bytes(contents.data) == data
    other.close()


def test_a_fresh_slot_and_one_being_written_hold_nothing(slot: Slot) -> None:
    assert slot.read() is None
    layout = layout_of(SPECS, 0, 1, 1)
    fill(slot, layout, 1)
    slot.seal(CheckpointId(1, 1), layout, {})
    slot.begin()
    assert slot.read() is None
    assert slot.age == (-1, -1)


def test_the_next_state_may_be_longer_or_shorter(slot: Slot) -> None:
    layout = layout_of(SPECS, 0, 1, 1)
    for step, text in enumerate(["x" * 10_000, "y", "z" * 300]):
        slot.begin()
        data = fill(slot, layout, step)
        slot.seal(CheckpointId(1, step), layout, {"objects": text})
        contents = slot.read()
        assert contents is not None
        assert (contents.state["objects"], bytes(contents.data)) == (text, data)


@given(
    world=st.integers(1, 8),
    local=st.integers(1, 4),
    shapes=st.lists(st.integers(0, 5000), min_size=1, max_size=6),
    zero=st.sets(st.integers(0, 5)),
)
@settings(max_examples=60)
def test_every_node_holds_every_byte_and_each_rank_its_own_part(
    world: int, local: int, shapes: list[int], zero: set[int]
) -> None:
    world *= local
    specs = [TensorSpec(name=f"t{i}", dtype="F32", shape=(n,)) for i, n in enumerate(shapes)]
    rank_zero = {f"t{i}" for i in zero}
    parts = partition(specs, world, rank_zero)
    layouts = [layout_of(specs, rank, world, local, rank_zero) for rank in range(world)]
    for rank, layout in enumerate(layouts):
        assert set(layout.shares[rank]) == set(parts[rank])
        assert layout.replicated
        places = [p for share in layout.placed.values() for p in share]
        ends = sorted((p.offset, p.offset + p.nbytes) for p in places)
        assert all(a[1] <= b[0] for a, b in pairwise(ends)), "overlap"
    for node in range(world // local):
        here = layouts[node * local : (node + 1) * local]
        held = sum(f.count for layout in here for share in layout.shares.values() for f in share)
        assert held == sum(spec.count for spec in specs)


def sealed(memory: Memory, local_rank: int, number: int, checkpoint: CheckpointId) -> Slot:
    layout = layout_of(SPECS, local_rank, 2, 2)
    slot = Slot(memory.ensure(local_rank, layout.nbytes)[number])
    fill(slot, layout, checkpoint.step)
    slot.seal(checkpoint, layout, {"rank": local_rank})
    return slot


def test_a_checkpoint_is_whole_when_every_worker_of_the_pod_has_sealed_it() -> None:
    memory = Memory(2)
    assert memory.copies() == []
    one, two = CheckpointId(1, 10), CheckpointId(1, 20)
    for rank in (0, 1):
        sealed(memory, rank, 0, one)
    sealed(memory, 0, 1, two)
    assert memory.copies() == [Copy(one, True, (0, 1), 2)]
    assert memory.find(two) is None
    sealed(memory, 1, 1, two).begin()  # the worker goes on to write over it
    assert memory.copies() == [Copy(one, True, (0, 1), 2)]
    sealed(memory, 1, 1, two)
    assert [copy.id for copy in memory.copies()] == [two, one]
    assert memory.offer(two)["slots"] == [memory.paths(0)[1], memory.paths(1)[1]]


def test_memory_stays_when_a_worker_asks_again_for_no_more() -> None:
    memory = Memory(1)
    slot = Slot(memory.ensure(0, 1000)[0])
    slot.map(1000)[HEADER : HEADER + 4] = b"here"
    again = Slot(memory.ensure(0, 900)[0])
    assert os.pread(again._fd, 4, HEADER) == b"here"


def test_too_little_memory_is_refused_with_what_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headway.agent.memory.available", lambda: 300 * 2**20)
    with pytest.raises(NoRoomError, match=r"200 MiB.*300 MiB left: raise spec.workers.resources"):
        Memory(1).ensure(0, 100 * 2**20)


def test_pages_are_real_before_the_first_copy(slot: Slot) -> None:
    mapped = slot.map(64 * mmap.PAGESIZE)
    assert os.fstat(slot._fd).st_blocks * 512 >= len(mapped)
