"""What the ranks of the recovery benches' scripts write about their steps."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Generation:
    """The steps of one generation, over all ranks.

    Attributes:
        count: Steps finished.
        ranks: When each rank finished its first, on the monotonic clock.
        first_step: Its number.
        last_step: The highest number of a step that was trained.
    """

    count: int = 0
    ranks: dict[int, float] = field(default_factory=dict)
    first_step: int = 0
    last_step: int = 0

    @property
    def first(self) -> float:
        """When the first step was finished, on the monotonic clock."""
        return min(self.ranks.values(), default=math.inf)


@dataclass
class Steps:
    """The files of the ranks, read as they grow.

    Attributes:
        folder: Where they are.
        ranks: How many.
        pids: Process of each rank, by its latest start.
        newest: The latest generation that has finished a step.
    """

    folder: Path
    ranks: int
    pids: dict[int, int] = field(default_factory=dict)
    newest: int = -1
    _generations: dict[int, Generation] = field(default_factory=dict)
    _read: dict[int, int] = field(default_factory=dict)

    def update(self) -> None:
        """Read what is new."""
        for rank in range(self.ranks):
            with contextlib.suppress(FileNotFoundError):
                data = (self.folder / f"steps.{rank}").read_bytes()
                whole = data.rfind(b"\n") + 1
                for line in data[self._read.get(rank, 0) : whole].decode().splitlines():
                    kind, generation, *values = line.split()
                    self._note(rank, kind, int(generation), values)
                self._read[rank] = whole

    def of(self, generation: int) -> Generation:
        """What is known of a generation."""
        return self._generations.setdefault(generation, Generation())

    @property
    def count(self) -> int:
        """Steps finished in the newest generation."""
        return self.of(self.newest).count

    @property
    def whole_at(self) -> float | None:
        """When every rank had finished a step of the newest generation; None if not yet."""
        ranks = self.of(self.newest).ranks
        return max(ranks.values()) if len(ranks) == self.ranks else None

    def lost_since(self, generation: int) -> int:
        """Steps of `generation` that the newest one had to do once more."""
        return max(self.of(generation).last_step - (self.of(self.newest).first_step - 1), 0)

    def _note(self, rank: int, kind: str, generation: int, values: list[str]) -> None:
        if kind == "start":
            self.pids[rank] = int(values[0])
            return
        known, step = self.of(generation), int(values[0])
        known.last_step = max(known.last_step, step)
        if kind == "step":
            self.newest = max(self.newest, generation)
            known.first_step = known.first_step or step
            known.count += 1
            known.ranks.setdefault(rank, float(values[1]))
