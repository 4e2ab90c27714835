"""Data in an order that depends on the seed and the epoch alone, never on the world size.

All samples of an epoch form one line. Batch after batch takes `global_batch_size` of them, and
each rank its share of those. A position in the line is therefore all that has to be saved, and
it stays right for any number of ranks (the idea of Mosaic streaming's canonical sample order).
The position is what the training loop has taken, never what was fetched ahead of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from headway.train.fetch import Batch, SeededDataset, WorkerInit, as_it_is


class BatchOrder(Sampler[Batch]):
    """Batches of one rank, from a position on.

    A last batch of fewer than half the samples is evened out with the one before it. Otherwise it
    could be too small to give each rank a sample, and would have to be left out at some world
    sizes and not at others.

    Args:
        size: Samples of the data set.
        global_batch_size: Samples of a batch over all ranks.
        rank: This rank.
        world_size: Ranks that share the samples.
        seed: Seed of the order.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a last, smaller batch is left out.

    Attributes:
        epoch: The epoch, from 0.
        first: Batch of the epoch at which this process began it: 0 if it was not restored.
        done: Batches of the epoch that the training loop has taken: the position.
        batches: Batches of a whole epoch.
    """

    def __init__(
        self,
        size: int,
        global_batch_size: int,
        *,
        rank: int,
        world_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        if global_batch_size < world_size:
            raise ValueError(
                f"global_batch_size {global_batch_size} is smaller than the world size "
                f"{world_size}: each rank needs at least one sample of each batch"
            )
        self.epoch = self.first = self.done = 0
        self._size, self._batch, self._seed = size, global_batch_size, seed
        self._rank, self._world, self._shuffle = rank, world_size, shuffle
        whole, rest = divmod(size, global_batch_size)
        evened = (global_batch_size + rest) // 2
        self._short = rest
        """Samples of the last batch, if it is not a whole one."""
        if whole and 0 < 2 * rest < global_batch_size and evened >= world_size:
            self._short = evened
        if drop_last or self._short < world_size:
            self._size, self._short = whole * global_batch_size, 0
        self.batches = whole + (self._short > 0)
        if not self.batches:
            raise ValueError(
                f"{size} samples make no batch of {global_batch_size} for {world_size} ranks: "
                "take fewer ranks or more data"
            )

    def __len__(self) -> int:
        return self.batches - self.first

    def order(self) -> torch.Tensor:
        """All indices of this epoch in their order, the same on every rank."""
        if not self._shuffle:
            return torch.arange(self._size)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        return torch.randperm(self._size, generator=generator)

    def __iter__(self) -> Iterator[Batch]:
        order, epoch = self.order(), self.epoch
        for number in range(self.done, self.batches):
            batch = order[self._start(number) : self._start(number + 1)]
            first = len(batch) * self._rank // self._world
            last = len(batch) * (self._rank + 1) // self._world
            yield Batch(epoch, batch[first:last].tolist())

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.first, self.done = self.epoch + 1, 0, 0

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"epoch": self.epoch, "samples": self._start(self.done)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises:
            ValueError: the batch size has changed so that the position lies inside a batch.
        """
        samples = min(state["samples"], self._size)
        candidates = (samples // self._batch, self.batches - 1, self.batches)
        found = [number for number in candidates if self._start(number) == samples]
        if not found:
            raise ValueError(
                f"the checkpoint was taken after {samples} samples of an epoch, where no batch "
                f"of global_batch_size {self._batch} ends: keep the batch size, and let it be at "
                "least twice the number of ranks"
            )
        self.epoch, self.first, self.done = state["epoch"], found[0], found[0]

    def _start(self, number: int) -> int:
        """The sample of the line with which a batch starts."""
        if number >= self.batches:
            return self._size
        if self._short and number == self.batches - 1:
            return self._size - self._short
        return number * self._batch


class Loader:
    """A DataLoader over `BatchOrder` that goes on where a checkpoint was taken.

    Its length is the number of batches that an iteration gives: those of a whole epoch, or those
    that are left of the epoch in which the training was resumed.

    Args:
        dataset: A map-style data set.
        order: The order of its samples.
        begins: Called before the first batch of an iteration.
        ends: Called after the last one.
        goes_on: Called before each batch.
        options: Further arguments of `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        order: BatchOrder,
        *,
        seed: int,
        begins: Callable[[], None] = lambda: None,
        ends: Callable[[], None] = lambda: None,
        goes_on: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        self.order = order
        self.taken = 0
        """Batches that the loop has taken in this process, over all epochs."""
        self._begins, self._ends, self._goes_on = begins, ends, goes_on
        # A generator of its own: starting an iterator draws a seed for the loader's worker
        # processes, and drawing it from torch's global one would spoil an exact resume.
        self._generator = torch.Generator()
        seeded = SeededDataset(dataset, options.pop("collate_fn", None), seed)
        init = WorkerInit(options.pop("worker_init_fn", None))
        self._loader = DataLoader(
            seeded,
            batch_sampler=cast("Any", order),
            collate_fn=as_it_is,
            worker_init_fn=init,
            generator=self._generator,
            **options,
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Any]:
        order = self.order
        if order.done == order.batches > order.first:
            raise RuntimeError("this epoch's data are used up: loop over run.epochs(...)")
        self._generator.manual_seed(order.epoch)
        self._begins()
        try:
            for batch in self._loader:
                self._goes_on()
                order.done += 1
                self.taken += 1
                yield batch
        finally:
            self._ends()


def size_of(dataset: Dataset[Any]) -> int:
    """Number of samples.

    Raises:
        TypeError: the data set has no length (an IterableDataset has no order to keep).
    """
    if not isinstance(dataset, Sized):
        raise TypeError("headway's loader needs a data set with a length (a map-style Dataset)")
    return len(dataset)
