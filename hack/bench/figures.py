"""What a turn of `bench-checkpoint` means. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One save in a training loop; all times in seconds on one clock.

    Attributes:
        before: Ends of the steps before the save, preceded by the begin of the first of them.
        call: Begin and end of the save's call.
        after: Ends of the steps after the call, until past `durable`.
        durable: When all of the checkpoint was in storage.
    """

    before: Sequence[float]
    call: tuple[float, float]
    after: Sequence[float]
    durable: float

    @property
    def step(self) -> float:
        """Seconds of an undisturbed step: the median of those before the save."""
        return statistics.median(later - earlier for earlier, later in pairwise(self.before))

    @property
    def stall(self) -> float:
        """Seconds lost at once: the save's call, and what the next step took too long.

        The next step is in it because a copy that overlaps with it is paid there.
        """
        return self.after[0] - self.call[0] - self.step

    @property
    def until_durable(self) -> float:
        """Seconds from the call to the checkpoint being in storage."""
        return self.durable - self.call[0]

    @property
    def steps_until_durable(self) -> float:
        """Steps done between the call and the checkpoint being in storage, with a fraction."""
        done, begin = 0.0, self.call[1]
        for end in self.after:
            if end > self.durable:
                return done + max(self.durable - begin, 0.0) / (end - begin)
            done, begin = done + 1, end
        return done

    @property
    def speed_ratio(self) -> float:
        """Training speed from the call to durable, as a share of the undisturbed speed."""
        return self.steps_until_durable * self.step / self.until_durable

    @property
    def lost(self) -> float:
        """Seconds by which the training is behind when the checkpoint is in storage."""
        return self.until_durable - self.steps_until_durable * self.step


def turn_of(message: Mapping[str, Any]) -> Turn:
    """A turn as the trainer tells it."""
    begin, end = message["call"]
    return Turn(message["before"], (begin, end), message["after"], message["durable"])
