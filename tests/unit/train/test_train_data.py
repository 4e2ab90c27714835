"""The order of the data: independent of the world size, and exact from any position."""

from __future__ import annotations

import random
from itertools import chain
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from headway.train.data import BatchOrder, Loader


def orders(size: int, batch: int, world: int, seed: int, **options: bool) -> list[BatchOrder]:
    return [
        BatchOrder(size, batch, rank=rank, world_size=world, seed=seed, **options)
        for rank in range(world)
    ]


def batches(group: list[BatchOrder]) -> list[list[int]]:
    """The samples of each batch over all ranks, in the order of the ranks."""
    return [list(chain(*(part.indices for part in parts))) for parts in zip(*group, strict=True)]


def loader_of(order: BatchOrder, **options: Any) -> Loader:
    return Loader(TensorDataset(torch.arange(200)), order, seed=0, **options)


@pytest.mark.parametrize("seed", range(50))
def test_batches_hold_the_same_samples_for_any_world_size(seed: int) -> None:
    chance = random.Random(seed)
    size, batch = chance.randint(20, 200), chance.randint(12, 20)
    alone = batches(orders(size, batch, 1, seed))
    assert sorted(chain(*alone)) == list(range(size))
    assert max(map(len, alone)) <= batch
    for world in (2, 3, 6):
        assert batches(orders(size, batch, world, seed)) == alone


@pytest.mark.parametrize(("size", "sizes"), [
    (20, [10, 10]), (25, [10, 10, 5]), (24, [10, 7, 7]), (21, [10, 6, 5]), (7, [7]),
])  # fmt: skip
def test_a_small_last_batch_is_evened_out(size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in batches(orders(size, 10, 2, 0))] == sizes
    whole = [10] * (size // 10)
    if whole:
        assert [len(b) for b in batches(orders(size, 10, 2, 0, drop_last=True))] == whole


@pytest.mark.parametrize("worlds", [(2, 1, 2), (1, 3, 2), (3, 2, 1)])
@pytest.mark.parametrize("size", [100, 104, 109])
def test_every_sample_exactly_once_an_epoch_over_changes_of_the_world(
    worlds: tuple[int, ...], size: int
) -> None:
    seen: list[list[int]] = []
    state = {"epoch": 0, "samples": 0}
    for world, do in zip(worlds, (3, 4, 99), strict=True):
        group = orders(size, 10, world, seed=5)
        for order in group:
            order.load_state_dict(state)
        done = batches(group)[:do]
        seen += done
        for order in group:
            order.done += len(done)
        state = group[0].state_dict()
    assert seen == batches(orders(size, 10, 1, seed=5))
    assert sorted(chain(*seen)) == list(range(size))


@pytest.mark.parametrize("size", [20, 21, 24, 25, 100])
def test_any_position_is_found_again(size: int) -> None:
    (order,) = orders(size, 10, 1, seed=0)
    for done in range(order.batches + 1):
        order.done = done
        (again,) = orders(size, 10, 1, seed=0)
        again.load_state_dict(order.state_dict())
        assert again.done == order.done
        assert len(again) == order.batches - order.done


def test_epochs_differ_and_seeds_differ() -> None:
    (order,) = orders(50, 10, 1, seed=1)
    first = order.order().tolist()
    order.next_epoch()
    assert order.order().tolist() != first
    assert orders(50, 10, 1, seed=2)[0].order().tolist() != first
    assert orders(50, 10, 1, seed=1, shuffle=False)[0].order().tolist() == list(range(50))


def test_all_ranks_have_the_same_number_of_batches() -> None:
    for size in range(8, 40):
        counts = {len(list(order)) for order in orders(size, 8, 4, seed=0)}
        assert counts == {orders(size, 8, 4, seed=0)[0].batches}


def test_a_position_inside_a_batch_is_refused() -> None:
    (order,) = orders(100, 30, 1, seed=0)
    with pytest.raises(ValueError, match="keep the batch size"):
        order.load_state_dict({"epoch": 0, "samples": 50})


def test_ranks_without_a_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        orders(100, 3, 4, seed=0)
    with pytest.raises(ValueError, match="3 samples make no batch"):
        orders(3, 8, 4, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_position_is_what_the_loop_took_not_what_was_fetched_ahead(workers: int) -> None:
    (order,) = orders(100, 10, 1, seed=0)
    loader = loader_of(order, num_workers=workers)
    batches = iter(loader)
    taken = [next(batches) for _ in range(4)]
    assert order.state_dict() == {"epoch": 0, "samples": 40}
    (again,) = orders(100, 10, 1, seed=0)
    again.load_state_dict(order.state_dict())
    rest = list(loader_of(again))
    assert len(loader_of(again)) == len(rest) == 6
    seen = chain(*(batch[0].tolist() for batch in taken + rest))
    assert sorted(seen) == list(range(100))


def test_persistent_worker_processes_go_through_all_epochs() -> None:
    (order,) = orders(40, 10, 1, seed=0)
    loader = loader_of(order, num_workers=1, persistent_workers=True)
    for _ in range(3):
        assert [b[0].tolist() for b in loader] == [b.indices for b in orders_at(order.epoch)]
        order.next_epoch()


def orders_at(epoch: int) -> BatchOrder:
    (order,) = orders(40, 10, 1, seed=0)
    order.epoch = epoch
    return order


def test_an_epoch_that_is_used_up_is_not_silently_empty() -> None:
    (order,) = orders(20, 10, 1, seed=0)
    loader = loader_of(order)
    assert len(list(loader)) == 2
    with pytest.raises(RuntimeError, match="epoch's data are used up"):
        list(loader)


def test_an_epoch_whose_last_step_was_restored_is_empty() -> None:
    (order,) = orders(20, 10, 1, seed=0)
    order.load_state_dict({"epoch": 3, "samples": 20})
    assert list(loader_of(order)) == []
    order.next_epoch()
    assert len(list(loader_of(order))) == 2


def test_a_loop_that_is_left_early_still_tells_that_it_ended() -> None:
    said: list[str] = []
    (order,) = orders(20, 10, 1, seed=0)
    loader = loader_of(
        order, begins=lambda: said.append("begins"), ends=lambda: said.append("ends")
    )
    for _ in loader:
        break
    assert said == ["begins", "ends"]
