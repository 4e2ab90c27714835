"""The order of the data: independent of the world size, and exact from any position."""

from __future__ import annotations

import random
from itertools import chain

import pytest
import torch
from torch.utils.data import TensorDataset

from headway.train.data import BatchOrder, Loader


def orders(size: int, batch: int, world: int, seed: int, **options: bool) -> list[BatchOrder]:
    return [
        BatchOrder(size, batch, rank=rank, world_size=world, seed=seed, **options)
        for rank in range(world)
    ]


def steps(group: list[BatchOrder]) -> list[list[int]]:
    """The samples of each step over all ranks, in the order of the ranks."""
    return [list(chain(*parts)) for parts in zip(*group, strict=True)]


@pytest.mark.parametrize("seed", range(20))
def test_steps_hold_the_same_samples_for_any_world_size(seed: int) -> None:
    chance = random.Random(seed)
    size, batch = chance.randint(20, 200), chance.randint(6, 20)
    alone = steps(orders(size, batch, 1, seed))
    for world in (2, 3, 6):
        together = steps(orders(size, batch, world, seed))
        assert together == alone[: len(together)]
        assert len(alone) - len(together) <= 1  # a rest too small for all ranks


def test_every_sample_exactly_once_an_epoch_over_changes_of_the_world() -> None:
    """2 → 1 → 2 ranks, in the middle of an epoch."""
    seen: list[int] = []
    state = {"epoch": 0, "samples": 0}
    for world, do in ((2, 3), (1, 4), (2, 99)):
        group = orders(100, 10, world, seed=5)
        for order in group:
            order.load_state_dict(state)
        done = steps(group)[:do]
        seen += chain(*done)
        state = {"epoch": 0, "samples": state["samples"] + 10 * len(done)}
    assert sorted(seen) == list(range(100))


def test_epochs_differ_and_seeds_differ() -> None:
    (order,) = orders(50, 10, 1, seed=1)
    first = order.order()
    order.next_epoch()
    assert order.order() != first
    assert orders(50, 10, 1, seed=2)[0].order() != first
    assert orders(50, 10, 1, seed=1, shuffle=False)[0].order() == list(range(50))


def test_all_ranks_have_the_same_number_of_steps() -> None:
    for size in range(8, 40):
        counts = {len(list(order)) for order in orders(size, 8, 4, seed=0)}
        assert counts == {orders(size, 8, 4, seed=0)[0].steps_per_epoch}


def test_a_position_inside_a_step_is_refused() -> None:
    (order,) = orders(100, 30, 1, seed=0)
    with pytest.raises(ValueError, match="keep the batch size"):
        order.load_state_dict({"epoch": 0, "samples": 50})


def test_a_batch_smaller_than_the_world_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        orders(100, 3, 4, seed=0)


def test_starting_an_epoch_leaves_torchs_generator_alone() -> None:
    """Otherwise a resumed run, which starts an epoch once more, would draw other numbers."""
    (order,) = orders(20, 5, 1, seed=0)
    loader = Loader(TensorDataset(torch.arange(20)), order)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader)
    assert torch.equal(torch.get_rng_state(), before)
