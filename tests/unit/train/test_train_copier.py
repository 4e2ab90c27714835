"""Copying beside the training: what is saved is the state at the boundary, bit for bit."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.shares import layout_of
from headway.checkpoint.slot import Slot
from headway.train import copier as copier_module
from headway.train import memory
from headway.train.copier import Copier, TornError
from headway.train.sharding import Wants
from headway.train.state import flatten, spec_of

ID = CheckpointId(1, 1)


@pytest.fixture
def slots() -> Iterator[list[Slot]]:
    files = [os.memfd_create(f"slot-{n}") for n in range(2)]
    made = [Slot(f"/proc/self/fd/{file}") for file in files]
    yield made
    for slot, file in zip(made, files, strict=True):
        slot.close()
        os.close(file)


def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(300), nn.Linear(300, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer)
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 300)).square().mean().backward()
    optimizer.step()


def tensors_of(**stateful: Any) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, value in stateful.items():
        flatten(value.state_dict(), name, tensors)
    return tensors


def save(
    copier: Copier, slot: Slot, tensors: dict[str, torch.Tensor], rank: int = 0, world: int = 1
) -> list[TornError | None]:
    layout = layout_of([spec_of(n, t) for n, t in tensors.items()], rank, world, world)
    ended: list[TornError | None] = []

    def then(torn: TornError | None) -> None:
        if torn is None:
            slot.seal(ID, layout, {"objects": {}, "rank_state": {"rank": rank}})
        ended.append(torn)

    slot.begin()
    pieces = [piece for share in layout.placed.values() for piece in share]
    copier.start(tensors, pieces, slot.map(layout.nbytes), then)
    return ended


def restored(*slots: Slot, rank: int = 0) -> dict[str, torch.Tensor]:
    answer = {"generation": 1, "step": 1, "slots": [slot.path for slot in slots]}
    return dict(memory.read(answer, rank, Wants({})).tensors)


def held_back(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let copies in the background begin only when the event is set."""
    go, move = threading.Event(), copier_module._move

    def wait_and_move(source: Any, start: int) -> None:
        if threading.current_thread().name == "headway-copier":
            assert go.wait(30)
        move(source, start)

    monkeypatch.setattr(copier_module, "_move", wait_and_move)
    return go


def test_the_next_step_waits_for_the_copy_and_the_copy_is_of_before_it(
    slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = model_and_optimizer()
    tensors = tensors_of(model=model, optimizer=optimizer)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    go = held_back(monkeypatch)
    copier = Copier([optimizer])
    save(copier, slots[0], tensors)
    stepped = threading.Event()

    def step() -> None:
        train(model, optimizer)  # forward changes BatchNorm's statistics, step everything else
        stepped.set()

    thread = threading.Thread(target=step)
    thread.start()
    assert not stepped.wait(0.5), "the step did not wait"
    go.set()
    thread.join(30)
    copier.wait()
    found = restored(slots[0])
    assert found.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(found[name], tensor), name
    assert not torch.equal(tensors["model.0.weight"], before["model.0.weight"])


def test_frozen_weights_of_a_trained_model_are_copied_beside_the_training_and_averages_are_not(
    slots: list[Slot], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, average = nn.Sequential(nn.Linear(300, 300), nn.Linear(300, 1)), nn.Linear(300, 300)
    model[0].requires_grad_(False)
    optimizer = torch.optim.AdamW(model[1].parameters())
    tensors = tensors_of(model=model, average=average)
    go = held_back(monkeypatch)
    copier = Copier([optimizer], [model, average])
    save(copier, slots[0], tensors)
    begun = {"average.weight": average.weight.data.clone(), "model.0.weight": model[0].weight.data}
    with torch.no_grad():
        average.weight.data.zero_()  # as some averages do, without telling torch
    go.set()
    copier.wait()
    found = restored(slots[0])
    for name, tensor in begun.items():
        assert torch.equal(found[name], tensor), name
    later = {s for s in copier._protected() if s == model[0].weight.data_ptr()}
    assert later, "the frozen weights were copied before the step returned"


def change_weights(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight.add_(1)  # type: ignore[index, union-attr, operator]


def change_state(model: nn.Module) -> None:
    model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})


@pytest.mark.parametrize("change", [change_weights, change_state])
def test_a_change_outside_the_optimizers_step_is_noticed(
    slots: list[Slot], monkeypatch: pytest.MonkeyPatch, change: Callable[[nn.Module], None]
) -> None:
    model, optimizer = model_and_optimizer()
    go = held_back(monkeypatch)
    copier = Copier([optimizer])
    ended = save(copier, slots[0], tensors_of(model=model, optimizer=optimizer))
    change(model)
    go.set()
    copier.wait()
    assert isinstance(ended[0], TornError)
    assert slots[0].read() is None


def test_without_an_optimizer_of_ours_everything_is_copied_at_once(slots: list[Slot]) -> None:
    model, _ = model_and_optimizer()
    copier = Copier([])
    tensors = tensors_of(model=model)
    before = tensors["model.0.weight"].clone()
    ended = save(copier, slots[0], tensors)
    change_weights(model)
    copier.wait()
    assert ended == [None]
    assert torch.equal(restored(slots[0])["model.0.weight"], before)


def test_scalars_are_copied_never_aliased(slots: list[Slot]) -> None:
    """AdamW's `step` lives on the CPU and is changed in place."""
    model, optimizer = model_and_optimizer()
    copier = Copier([optimizer])
    save(copier, slots[0], tensors_of(optimizer=optimizer))
    for _ in range(3):
        train(model, optimizer)
    copier.wait()
    steps = {n: t for n, t in restored(slots[0]).items() if n.endswith(".step")}
    assert steps
    assert all(tensor.item() == 1 for tensor in steps.values())


def test_two_ranks_of_a_node_restore_the_whole_state_from_both_slots(slots: list[Slot]) -> None:
    model, optimizer = model_and_optimizer()
    tensors = tensors_of(model=model, optimizer=optimizer)
    tensors["odd"] = torch.arange(12.0).reshape(3, 4).t()  # not contiguous
    tensors["empty"] = torch.empty(0, 3)
    tensors["flags"] = torch.tensor([True, False, True])
    tensors["half"] = torch.randn(7, dtype=torch.bfloat16)
    for rank in (0, 1):
        copier = Copier([optimizer])
        save(copier, slots[rank], tensors, rank, 2)
        copier.wait()
    found = restored(*slots, rank=1)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_memory_that_moved_on_is_not_taken_for_what_was_offered(slots: list[Slot]) -> None:
    model, _ = model_and_optimizer()
    copier = Copier([])
    save(copier, slots[0], tensors_of(model=model))
    copier.wait()
    slots[0].begin()
    with pytest.raises(RuntimeError, match="does not hold step 1 of generation 1 any more"):
        restored(slots[0])
