"""Data in an order that depends on the seed and the epoch alone, never on the world size.

All samples of an epoch form one line. Step after step takes `global_batch_size` of them, and
each rank its share of those. A position in the line is therefore all that has to be saved, and
it stays right for any number of ranks (the idea of Mosaic streaming's canonical sample order).
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class BatchOrder(Sampler[list[int]]):
    """Batches of one rank, from a position on.

    Args:
        size: Samples of the data set.
        global_batch_size: Samples of a step over all ranks.
        rank: This rank.
        world_size: Ranks that share the samples.
        seed: Seed of the order.
        shuffle: Whether each epoch has an order of its own.
        drop_last: Whether a last, smaller step is left out.
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
                f"{world_size}: each rank needs at least one sample of each step"
            )
        self.epoch = 0
        self.steps_done = 0
        """Steps of this epoch that are finished: the position."""
        self._size, self._batch, self._seed = size, global_batch_size, seed
        self._rank, self._world = rank, world_size
        self._shuffle, self._drop_last = shuffle, drop_last

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        whole, rest = divmod(self._size, self._batch)
        # A rest too small to give each rank a sample is left out: a rank without a batch would
        # leave the others alone in the collective.
        return whole + (1 if rest >= self._world and not self._drop_last else 0)

    def __len__(self) -> int:
        return self.steps_per_epoch - self.steps_done

    def order(self) -> list[int]:
        """All indices of this epoch in their order, the same on every rank."""
        if not self._shuffle:
            return list(range(self._size))
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        return torch.randperm(self._size, generator=generator).tolist()

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order()
        for step in range(self.steps_done, self.steps_per_epoch):
            batch = order[step * self._batch : (step + 1) * self._batch]
            first = len(batch) * self._rank // self._world
            last = len(batch) * (self._rank + 1) // self._world
            yield batch[first:last]

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.steps_done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"epoch": self.epoch, "samples": self.steps_done * self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        Raises:
            ValueError: the batch size has changed so that the position lies inside a step.
        """
        steps, rest = divmod(state["samples"], self._batch)
        if rest:
            raise ValueError(
                f"the checkpoint was taken after {state['samples']} samples of an epoch, which is "
                f"not a multiple of global_batch_size {self._batch}: keep the batch size"
            )
        self.epoch, self.steps_done = state["epoch"], steps


class Loader:
    """A DataLoader over `BatchOrder` that goes on where a checkpoint was taken."""

    def __init__(self, dataset: Dataset[Any], order: BatchOrder, **options: Any) -> None:
        self.order = order
        # A generator of its own: starting an iterator draws a seed for the loader's worker
        # processes, and drawing it from torch's global one would spoil an exact resume.
        self._generator = torch.Generator()
        self._loader = DataLoader(
            dataset, batch_sampler=order, generator=self._generator, **options
        )

    def __len__(self) -> int:
        return self.order.steps_per_epoch

    def __iter__(self) -> Iterator[Any]:
        self._generator.manual_seed(self.order.epoch)
        return iter(self._loader)


def size_of(dataset: Dataset[Any]) -> int:
    """Number of samples.

    Raises:
        TypeError: the data set has no length (an IterableDataset has no order to keep).
    """
    if not isinstance(dataset, Sized):
        raise TypeError("headway's loader needs a data set with a length (a map-style Dataset)")
    return len(dataset)
