"""Random numbers of a sample: the same wherever, and in whatever company, it is fetched."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset, get_worker_info

from headway.train.data import BatchOrder, Loader

Sample = tuple[int, float, float, float]


class Augmented(Dataset[Sample]):
    """Each sample with a random number of each kind."""

    name = "augmented"

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Sample:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


class AtOnce(Augmented):
    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        return [self[index] for index in indices]


def as_list(samples: list[Sample]) -> list[Sample]:
    return samples


def with_noise(samples: list[Sample]) -> list[Any]:
    return [*samples, random.random()]


def batches(
    dataset: Dataset[Any],
    world: int = 1,
    start: int = 0,
    epochs: int = 1,
    collate_fn: Callable[[list[Sample]], Any] | None = as_list,
    **options: Any,
) -> list[list[Any]]:
    """What each rank gets, rank after rank, batch after batch."""
    got = []
    for rank in range(world):
        order = BatchOrder(48, 12, rank=rank, world_size=world, seed=3)
        order.load_state_dict({"epoch": 0, "samples": start})
        loader = Loader(dataset, order, seed=3, collate_fn=collate_fn, **options)
        for _ in range(epochs):
            got += list(loader)
            order.next_epoch()
    return got


def by_sample(got: list[list[Sample]]) -> dict[int, Sample]:
    return {sample[0]: sample for batch in got for sample in batch}


def test_samples_are_augmented_alike_at_any_world_size() -> None:
    alone = by_sample(batches(Augmented()))
    assert len({sample[1:] for sample in alone.values()}) == 48
    for world in (2, 3):
        assert by_sample(batches(Augmented(), world)) == alone


@pytest.mark.parametrize("dataset", [Augmented(), AtOnce(), Subset(Augmented(), range(48))])
@pytest.mark.parametrize("collate_fn", [as_list, with_noise])
def test_samples_are_augmented_alike_in_loader_processes_and_after_a_resume(
    dataset: Dataset[Any], collate_fn: Callable[[list[Sample]], Any]
) -> None:
    whole = batches(dataset, collate_fn=collate_fn)
    random.random()  # where the training's own generators are does not matter
    assert batches(dataset, collate_fn=collate_fn, num_workers=2, prefetch_factor=1) == whole
    assert batches(dataset, start=24, collate_fn=collate_fn, num_workers=1) == whole[2:]


def test_a_subset_augments_each_sample_by_itself() -> None:
    assert batches(Subset(Augmented(), range(48))) == batches(Augmented())


def test_each_epoch_augments_anew() -> None:
    got = batches(Augmented(), epochs=2, num_workers=1, persistent_workers=True)
    first, second = by_sample(got[:4]), by_sample(got[4:])
    assert all(first[index][1:] != second[index][1:] for index in first)
    assert batches(Augmented(), epochs=2) == got


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_a_tensor_dataset_are_what_torch_collates(workers: int) -> None:
    data = TensorDataset(torch.randn(48, 3, 4).transpose(1, 2), torch.arange(48))
    own, torchs = (
        batches(each, collate_fn=None, num_workers=workers)
        for each in (data, Subset(data, range(48)))
    )
    for ours, theirs in zip(own, torchs, strict=True):
        assert type(ours) is type(theirs) is list
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert [a.stride() for a in ours] == [b.stride() for b in theirs]


def test_collating_a_tensor_dataset_may_draw_too() -> None:
    data = TensorDataset(torch.arange(48))
    noise = [batch[-1] for batch in batches(data, collate_fn=with_noise)]
    assert len(set(noise)) == len(noise)
    assert [batch[-1] for batch in batches(data, collate_fn=with_noise, num_workers=1)] == noise


def test_fetching_leaves_the_trainings_generators_alone() -> None:
    """Otherwise a resumed run, which starts an epoch once more, would draw other numbers."""
    before = (random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state())
    for workers in (0, 1):
        batches(Augmented(), num_workers=workers)
    assert random.getstate() == before[0]
    assert repr(np.random.get_state(legacy=False)) == repr(before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def check_worker(worker_id: int) -> None:
    info = get_worker_info()
    assert info is not None
    assert info.dataset.name == "augmented"  # type: ignore[union-attr]
    info.dataset.name = "opened"  # type: ignore[union-attr]


class Opened(Augmented):
    def __getitem__(self, index: int) -> Sample:
        assert self.name == "opened"
        return super().__getitem__(index)


def test_a_worker_init_fn_finds_its_data_set() -> None:
    assert batches(Opened(), num_workers=1, worker_init_fn=check_worker) == batches(Augmented())


def test_loader_processes_obey_only_their_trainer() -> None:
    """Else SIGTERM to every process of a pod ends the training before its checkpoint is saved."""
    order = BatchOrder(48, 12, rank=0, world_size=1, seed=3)
    loader = Loader(
        Augmented(), order, seed=3, collate_fn=as_list, num_workers=1, prefetch_factor=1
    )  # fmt: skip
    got = iter(loader)
    first = next(got)
    (worker,) = multiprocessing.active_children()
    killer = multiprocessing.get_context("fork").Process(
        target=os.kill, args=(worker.pid, signal.SIGTERM)
    )
    killer.start()
    killer.join(30)
    assert killer.exitcode == 0
    assert [first, *got] == batches(Augmented())
    del got


def test_loader_processes_end_when_their_trainer_ends_them() -> None:
    """As `multiprocessing` does at the end of a process, and then waits for them."""
    order = BatchOrder(48, 12, rank=0, world_size=1, seed=3)
    loader = Loader(Augmented(), order, seed=3, num_workers=1)
    got = iter(loader)
    next(got)
    (worker,) = multiprocessing.active_children()
    began = time.monotonic()
    worker.terminate()
    worker.join(30)
    code = worker.exitcode
    worker.kill()
    assert code == 0
    assert time.monotonic() - began < 5
    got.close()  # type: ignore[attr-defined]
