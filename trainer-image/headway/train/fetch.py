"""Fetching samples: their random numbers depend on the seed, the epoch and the sample alone.

So augmentation is the same with any number of loader processes and of ranks, and wherever the
training was resumed; and fetching in the training process leaves its generators as they were.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset, Subset, TensorDataset, default_collate, get_worker_info

from headway.train import rng


class Batch(NamedTuple):
    """What is to be fetched.

    Attributes:
        epoch: For which epoch; loader processes may outlive one.
        indices: The samples, at least one.
    """

    epoch: int
    indices: list[int]


class SeededDataset(Dataset[Any]):
    """Fetches whole batches of a data set, each sample with generators of its own.

    A data set that fetches many samples at once (`__getitems__`) gets one seed for all of them,
    that of the first: its random numbers then depend on the world size, too.

    Args:
        dataset: A map-style data set.
        collate: Makes a batch of samples; torch's default if None. Its own random numbers follow
            those of the last sample.
        seed: Of the run.
    """

    def __init__(
        self, dataset: Dataset[Any], collate: Callable[[Any], Any] | None, seed: int
    ) -> None:
        self.dataset, self._seed = dataset, seed
        self._collate = collate or default_collate
        self._at_once = _fetches_at_once(dataset)
        self._tensors = _tensors(dataset) if collate is None else None

    def __getitems__(self, batch: Batch) -> Any:
        """The batch of these samples."""
        if self._tensors is not None:
            # What torch would collate of the samples, in a fifth of the time. Nothing is drawn.
            chosen = torch.tensor(batch.indices)
            return [tensor.index_select(0, chosen) for tensor in self._tensors]
        with rng.preserved():
            return self._collate(self._samples(*batch))

    def _samples(self, epoch: int, indices: Sequence[int]) -> Any:
        dataset: Any = self.dataset
        if self._at_once:
            rng.seed_for(self._seed, epoch, indices[0])
            return dataset.__getitems__(indices)
        samples = []
        for index in indices:
            rng.seed_for(self._seed, epoch, index)
            samples.append(dataset[index])
        return samples


def _tensors(dataset: Dataset[Any]) -> tuple[torch.Tensor, ...] | None:
    """Of a data set that is nothing but tensors; None of any other."""
    if type(dataset) is not TensorDataset:
        return None
    plain = all(type(t) is torch.Tensor and t.layout is torch.strided for t in dataset.tensors)
    return dataset.tensors if plain else None


def _fetches_at_once(dataset: Any) -> bool:
    if isinstance(dataset, Subset):  # has the method, and passes on what it can
        return _fetches_at_once(dataset.dataset)
    return callable(getattr(dataset, "__getitems__", None))


def as_it_is(batch: Any) -> Any:
    """Collates what is a batch already."""
    return batch


@dataclass(frozen=True)
class WorkerInit:
    """Prepares a process of the loader.

    Attributes:
        users: The user's own `worker_init_fn`.
    """

    users: Callable[[int], None] | None

    def __call__(self, worker_id: int) -> None:
        """Called in the process, before it fetches anything."""
        _obey_nobody_but(multiprocessing.parent_process())
        info: Any = get_worker_info()
        # What the user finds there is the data set that the user gave.
        object.__setattr__(info, "dataset", info.dataset.dataset)
        if self.users is not None:
            self.users(worker_id)


def _obey_nobody_but(trainer: Any) -> None:
    """Let SIGTERM end this process only if it comes from `trainer`.

    Whoever ends a pod may signal each of its processes. A loader that goes before the checkpoint
    is saved takes the training with it (KempnerForge#177, olmoearth_pretrain#604).
    """
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        return  # spawned, not forked: another thread could get the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def listen() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != trainer.pid:
            pass
        os._exit(0)

    threading.Thread(target=listen, name="headway-sigterm", daemon=True).start()
