"""Divided tensors: what any ranks have saved, any others read, and no byte more than they need."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard
from train_ranks import as_rank

from headway.checkpoint import reader, writer
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.shares import layout_of
from headway.checkpoint.slot import Slot
from headway.checkpoint.state import TensorSpec
from headway.checkpoint.stores import Store, open_store
from headway.train import memory
from headway.train.place import Place
from headway.train.saver import Saver, Snapshot
from headway.train.sharding import Wants, is_divided, part_of
from headway.train.state import spec_of, view_of

ID = CheckpointId(1, 7)
SHAPES = {"a": (7, 5), "b": (1, 40), "c": (12,), "none": (0, 3)}


def values(name: str, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + ord(name[0]))
    return torch.randn(SHAPES[name], generator=generator)


def divided(whole: torch.Tensor, replicas: int = 1) -> Any:
    """A tensor as `fully_shard` divides it among the ranks, or groups of them."""
    world = dist.get_world_size() // replicas
    shape = (world,) if replicas == 1 else (replicas, world)
    # torch keeps the first mesh of those that are equal, and with it the rank that it was for.
    names = tuple(f"rank{dist.get_rank()}-{n}" for n in range(len(shape)))
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    placements: list[Placement] = [Shard(0)] if replicas == 1 else [Replicate(), Shard(0)]
    chunks = whole.chunk(world)
    number = dist.get_rank() % world
    local = chunks[number] if number < len(chunks) else whole[:0]
    return DTensor.from_local(
        local.clone(), mesh, placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


class Model:
    """Holds tensors, divided or not."""

    def __init__(self, seed: int, replicas: int | None) -> None:
        wholes = {name: values(name, seed) for name in SHAPES}
        self.tensors = (
            wholes if replicas is None else {n: divided(t, replicas) for n, t in wholes.items()}
        )

    def state_dict(self) -> Mapping[str, Any]:
        return self.tensors

    def load_state_dict(self, _: Any) -> None:
        raise AssertionError


class Link:
    """An agent that has two slots for a rank."""

    def __init__(self) -> None:
        self.files = [os.memfd_create(f"slot-{n}") for n in range(2)]
        self.held = None

    def ask(self, _: Any) -> dict[str, Any]:
        return {"paths": [f"/proc/self/fd/{file}" for file in self.files]}

    def send(self, message: Mapping[str, Any]) -> None:
        assert message["type"] == "sealed", message


def saved(world: int, replicas: int | None, local_world: int | None = None) -> list[Slot]:
    """What each rank has in memory of a checkpoint."""
    slots = []
    for rank in range(world):
        with as_rank(rank, world):
            link, place = Link(), Place(rank, world, rank, local_world or world)
            saver = Saver(link, place, [])  # type: ignore[arg-type]
            tensors = {f"model.{n}": t for n, t in Model(0, replicas).tensors.items()}
            tensors["model.step"] = torch.tensor(9)
            saver.save(Snapshot(ID.step, tensors, set(), {"names": []}, {"rank": rank}, {}))
            saver.wait()
            slots += [s for s in (Slot(path) for path in link.ask(None)["paths"]) if s.read()]
    assert len(slots) == world
    return slots


def in_storage(folder: Path, slots: list[Slot]) -> Store:
    """What the uploaders and the lead make of it."""
    store = open_store(str(folder))
    receipts = []
    for rank, slot in enumerate(slots):
        contents = slot.read()
        assert contents is not None
        pieces = [(p.fragment, contents.data[p.offset : p.offset + p.nbytes])
                  for p in contents.layout.placed[rank]]  # fmt: skip
        receipts.append(
            writer.send_part(
                store, ID, rank, len(slots), specs=contents.layout.tensors, pieces=pieces,
                rank_state={}, objects={"names": []},
            )
        )  # fmt: skip
    writer.commit(store, ID, receipts, created=datetime.now(UTC))
    return store


def check(found: Mapping[str, torch.Tensor], replicas: int | None) -> None:
    """Each tensor is there as this rank is to have it, with the values that were saved."""
    for name, expected in Model(0, replicas).tensors.items():
        tensor = found[f"model.{name}"]
        assert is_divided(tensor) == (replicas is not None)
        if is_divided(tensor):
            assert tensor.placements == expected.placements
            assert tensor.shape == expected.shape
            assert torch.equal(tensor.to_local(), expected.to_local()), name
        else:
            assert torch.equal(tensor, expected), name
    assert found["model.step"].item() == 9


DIVISIONS = [(2, None), (1, 1), (2, 1), (3, 1), (4, 1), (4, 2), (6, 3)]
"""Ranks, and in how many groups each of which has everything; None if each rank has."""


@pytest.mark.parametrize("before", DIVISIONS)
@pytest.mark.parametrize("after", DIVISIONS)
def test_any_division_restores_any_other_from_storage(
    tmp_path: Path, before: tuple[int, int | None], after: tuple[int, int | None]
) -> None:
    store = in_storage(tmp_path, saved(*before))
    for rank in range(after[0]):
        with as_rank(rank, after[0]):
            wants, found = Wants({"model": Model(1, after[1])}), {}

            def into(spec: TensorSpec) -> memoryview:
                found[spec.name] = wants.empty(spec)  # noqa: B023
                return view_of(found[spec.name])  # noqa: B023

            restored = reader.restore_newest(store, into, rank, within=wants.within)
            assert restored is not None
            specs = {spec.name: spec for spec in restored.commit.tensors}
            check({n: wants.tensor(specs[n], t) for n, t in found.items()}, after[1])


@pytest.mark.parametrize(("world", "replicas"), DIVISIONS)
def test_each_rank_restores_its_own_from_memory(world: int, replicas: int | None) -> None:
    slots = saved(world, replicas)
    offer = {"generation": ID.generation, "step": ID.step, "slots": [s.path for s in slots]}
    for rank in range(world):
        with as_rank(rank, world):
            found = memory.read(offer, rank, Wants({"model": Model(1, replicas)}))
            assert found.rank_state == {"rank": rank}
            check(found.tensors, replicas)


def test_a_rank_that_shards_restores_from_a_memory_that_does_not() -> None:
    slots = saved(2, None)
    offer = {"generation": ID.generation, "step": ID.step, "slots": [s.path for s in slots]}
    for rank in range(2):
        with as_rank(rank, 2):
            check(memory.read(offer, rank, Wants({"model": Model(1, 1)})).tensors, 1)


def test_a_pod_has_in_memory_what_its_own_ranks_need() -> None:
    """Two pods of two ranks; each group of FSDP is spread over both."""
    slots = saved(4, 2, local_world=2)
    for first in (0, 2):
        here = slots[first : first + 2]
        offer = {"generation": ID.generation, "step": ID.step, "slots": [s.path for s in here]}
        for local in range(2):
            with as_rank(first + local, 4):
                check(memory.read(offer, local, Wants({"model": Model(1, 2)})).tensors, 2)


def test_memory_that_lacks_a_part_is_no_checkpoint() -> None:
    slots = saved(2, 1)
    offer = {"generation": ID.generation, "step": ID.step, "slots": [slots[0].path]}
    with as_rank(1, 2), pytest.raises(RuntimeError, match="does not hold all of model"):
        memory.read(offer, 0, Wants({"model": Model(1, 1)}))


def test_nothing_is_saved_twice_and_only_whole_states_help_another_pod() -> None:
    for world, replicas in DIVISIONS:
        contents = [slot.read() for slot in saved(world, replicas)]
        layouts = [each.layout for each in contents if each is not None]
        written = sum(f.count for rank, each in enumerate(layouts) for f in each.shares[rank])
        assert written == sum(spec.count for spec in layouts[0].tensors.values())
        assert all(each.replicated == (replicas is None) for each in layouts)


def test_a_rank_reads_no_more_than_its_part(tmp_path: Path) -> None:
    with as_rank(0, 1):
        big = torch.randn(8 * 2**20)  # two chunks of 16 MiB
        spec = spec_of("model.big", big)
        layout = layout_of([spec], 0, 1, 1)
        pieces = [(f, view_of(big)[f.start * 4 : (f.start + f.count) * 4])
                  for f in layout.shares[0]]  # fmt: skip
        store = open_store(str(tmp_path))
        receipt = writer.send_part(store, ID, 0, 1, specs={spec.name: spec}, pieces=pieces,
                                   rank_state={})  # fmt: skip
        record = writer.commit(store, ID, [receipt], created=datetime.now(UTC))
    read: list[int] = []

    class Counted:
        def get_range(self, key: str, start: int, length: int) -> Any:
            read.append(length)
            return store.get_range(key, start, length)

    out = torch.empty(10)
    first = big.numel() - 10
    reader.read_tensors(
        Counted(),  # type: ignore[arg-type]
        record,
        lambda _: view_of(out),
        within=lambda _: (first, 10),
    )
    assert torch.equal(out, big[first:])
    assert sum(read) < 17 * 2**20


def test_an_optimizer_without_state_wants_it_like_its_parameters() -> None:
    with as_rank(1, 2):
        net = nn.Linear(5, 7)
        net.weight = nn.Parameter(divided(net.weight.detach()))
        frozen = nn.Parameter(torch.zeros(7, 5))
        optimizer = torch.optim.AdamW([frozen, *net.parameters()])
        wants = Wants({"optimizer": optimizer})
        for number, expected in ((0, (0, 35)), (1, (20, 15)), (2, (0, 35))):
            spec = TensorSpec(name=f"optimizer.state.{number}.exp_avg", dtype="F32", shape=(7, 5))
            assert wants.within(spec) == expected
        step = TensorSpec(name="optimizer.state.1.step", dtype="F32", shape=())
        assert wants.within(step) == (0, 1)


def test_what_is_divided_otherwise_is_refused_by_name() -> None:
    with as_rank(0, 4):
        line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
        for mesh, placements in (
            (line, [Shard(1)]),
            (square, [Shard(0), Shard(0)]),
            (init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))["a"], [Shard(0)]),
        ):
            tensor = DTensor.from_local(torch.ones(2, 2), mesh, placements, run_check=False)
            with pytest.raises(TypeError, match="weight is placed as"):
                part_of("weight", tensor)
        uneven = DTensor.from_local(
            torch.ones(3, 2), line, [Shard(0)], run_check=False, shape=(4, 2), stride=(2, 1)
        )
        with pytest.raises(TypeError, match="weight is not divided evenly"):
            part_of("weight", uneven)


def test_who_uses_none_imports_nothing_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.distributed.tensor")
    assert not is_divided(torch.ones(1))
    assert "torch.distributed.tensor" not in sys.modules
