"""Which rank runs where in a generation: pure.

Usually the pods in the order of their index, with as many ranks each. It differs from the index
where a group has shrunk (a pod in the middle is missing), and where processes go on from one
generation to the next (Horovod's elastic scripts, whose rank 0 tells the others its state).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Placement:
    """The processes of a generation, in the order of their ranks.

    Attributes:
        processes: Index of the pod and local rank of each; the position is the global rank.
    """

    processes: tuple[tuple[int, int], ...]

    @property
    def world_size(self) -> int:
        """Ranks in the group."""
        return len(self.processes)

    @property
    def pods(self) -> tuple[int, ...]:
        """Indices of the pods, in the order of their cross ranks."""
        return tuple(index for index, local in self.processes if local == 0)

    def rank(self, index: int, local_rank: int) -> int:
        """Global rank of a process."""
        return self.processes.index((index, local_rank))

    def ranks(self, index: int) -> list[int]:
        """Global ranks of a pod, in the order of their local ranks."""
        of_pod = [(local, rank) for rank, (i, local) in enumerate(self.processes) if i == index]
        return [rank for _, rank in sorted(of_pod)]

    def local_rank(self, rank: int) -> int:
        """Local rank of a global one."""
        return self.processes[rank][1]

    @property
    def message(self) -> list[Any]:
        """As part of a message."""
        return [list(process) for process in self.processes]

    @classmethod
    def told(cls, message: Sequence[Sequence[int]]) -> Self:
        """What `message` made."""
        return cls(tuple((int(index), int(local)) for index, local in message))


def place(
    pods: Collection[int], processes: int, survivors: Mapping[int, Collection[int]] | None = None
) -> Placement:
    """Give each process its rank.

    Args:
        pods: Indices of the pods that take part.
        processes: Worker processes of each.
        survivors: For each pod the local ranks whose process goes on with its state. One of them
            is rank 0 then: `state.sync()` of Horovod sends that of rank 0 to all.
    """
    going_on = survivors or {}
    # Local ranks stay as they are, since a process has chosen its GPU by it.
    order = sorted(pods, key=lambda index: (0 not in going_on.get(index, ()), index))
    ranks = [(index, local) for index in order for local in range(processes)]
    first = next((p for p in ranks if p[1] in going_on.get(p[0], ())), ranks[0])
    at = ranks.index(first)
    ranks[0], ranks[at] = ranks[at], ranks[0]
    return Placement(tuple(ranks))
