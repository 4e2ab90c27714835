"""The checkpoints that this pod holds in memory, for its workers of this and later generations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.slot import HEADER, Contents, Slot

SLOTS = 2
"""One is written while the other one is whole: a checkpoint costs twice its size in memory."""
_MIB = 2**20
_LEFT_FREE = 128 * _MIB


class NoRoomError(Exception):
    """The slots do not fit into this pod's memory."""


@dataclass(frozen=True)
class Copy:
    """A checkpoint that all workers of a pod have sealed.

    Attributes:
        id: Which one.
        replicated: Whether every byte of the state is here, so that another pod can have it.
        ranks: Whose states are here, by local rank.
        world_size: Of the group that made it.
    """

    id: CheckpointId
    replicated: bool
    ranks: tuple[int, ...] = ()
    world_size: int = 0

    @property
    def message(self) -> dict[str, Any]:
        """As part of a message."""
        told = {"replicated": self.replicated, "ranks": self.ranks, "world_size": self.world_size}
        return {**self.id.names, **told}

    @classmethod
    def told(cls, message: Mapping[str, Any]) -> Self:
        """What `message` made."""
        ranks = tuple(int(rank) for rank in message["ranks"])
        replicated, world_size = bool(message["replicated"]), int(message["world_size"])
        return cls(CheckpointId.named_in(message), replicated, ranks, world_size)


class Memory:
    """Two slots for each worker process of the pod.

    Args:
        processes: Worker processes of the pod.
    """

    def __init__(self, processes: int) -> None:
        self._slots: list[list[Slot]] = [[] for _ in range(processes)]
        self._files: list[list[int]] = [[] for _ in range(processes)]
        self._nbytes = [0] * processes

    def ensure(self, local_rank: int, nbytes: int) -> list[str]:
        """Make room for `nbytes` of data in each slot; returns the slots' paths.

        Blocks while the kernel finds the pages.

        Raises:
            NoRoomError: there is not enough memory.
        """
        more = SLOTS * (nbytes - self._nbytes[local_rank])
        if more > 0:
            _check_room(more, SLOTS * nbytes)
            files = self._files[local_rank]
            while len(files) < SLOTS:
                files.append(os.memfd_create(f"headway-slot-{local_rank}-{len(files)}"))
            for file in files:
                os.posix_fallocate(file, 0, HEADER + nbytes)
            for slot in self._slots[local_rank]:
                slot.close()
            self._slots[local_rank] = [Slot(path) for path in self.paths(local_rank)]
            self._nbytes[local_rank] = nbytes
        return self.paths(local_rank)

    def paths(self, local_rank: int) -> list[str]:
        """Where the slots of a worker are, for any process of this pod."""
        return [f"/proc/{os.getpid()}/fd/{file}" for file in self._files[local_rank]]

    def spare(self, local_rank: int) -> Slot:
        """The slot of a worker that holds the oldest checkpoint, or none."""
        return min(self._slots[local_rank], key=lambda slot: slot.age)

    def find(self, checkpoint: CheckpointId) -> list[int] | None:
        """The number of each worker's slot with this checkpoint; None if one has none."""
        numbers = [self._number(slots, checkpoint) for slots in self._slots]
        return [n for n in numbers if n is not None] if None not in numbers else None

    def contents(self, checkpoint: CheckpointId) -> list[Contents] | None:
        """The checkpoint as it lies in the workers' slots."""
        found = self.find(checkpoint)
        if found is None:
            return None
        read = [self._slots[rank][number].read() for rank, number in enumerate(found)]
        return [each for each in read if each is not None and each.id == checkpoint] or None

    def copies(self) -> list[Copy]:
        """What is whole here, newest first."""
        sealed = [[c for slot in slots if (c := slot.read()) is not None] for slots in self._slots]
        found = [{c.id: c for c in each} for each in sealed]
        common = set.intersection(*(set(each) for each in found))
        return [_copy([each[one] for each in found]) for one in sorted(common, reverse=True)]

    def offer(self, checkpoint: CheckpointId) -> dict[str, Any]:
        """What a worker is told to restore from; empty if it is not here."""
        found = self.find(checkpoint)
        if found is None:
            return {}
        return {
            **checkpoint.names,
            "slots": [self.paths(rank)[number] for rank, number in enumerate(found)],
        }

    @staticmethod
    def _number(slots: Sequence[Slot], checkpoint: CheckpointId) -> int | None:
        for number, slot in enumerate(slots):
            contents = slot.read()
            if contents is not None and contents.id == checkpoint:
                return number
        return None


def _copy(contents: Sequence[Contents]) -> Copy:
    first = contents[0]
    ranks = tuple(int(each.state["rank"]) for each in contents)
    return Copy(first.id, first.layout.replicated, ranks, first.layout.world_size)


def _check_room(more: int, wanted: int) -> None:
    free = available()
    if more + _LEFT_FREE > free:
        raise NoRoomError(
            f"checkpoints are kept in memory twice, which takes {wanted // _MIB} MiB for each "
            f"worker process, and this pod has {free // _MIB} MiB left: raise "
            "spec.workers.resources.limits.memory"
        )


def available() -> int:
    """Bytes that this container can still use."""
    limits = [_from_meminfo(), _from_cgroup()]
    return min(limit for limit in limits if limit is not None)


def _from_meminfo() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def _from_cgroup() -> int | None:
    """What the cgroup's limit leaves; page cache that can be dropped counts as free."""
    root = Path("/sys/fs/cgroup")
    for limit, used, stat in (
        (root / "memory.max", root / "memory.current", root / "memory.stat"),
        (
            root / "memory/memory.limit_in_bytes",
            root / "memory/memory.usage_in_bytes",
            root / "memory/memory.stat",
        ),
    ):
        try:
            most, now = limit.read_text().strip(), int(used.read_text())
            entries = dict(line.split() for line in stat.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            return int(most) - now + int(entries.get("inactive_file", 0))
    return None
