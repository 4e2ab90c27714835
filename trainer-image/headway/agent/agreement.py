"""Agreeing on a step at which every rank does the same thing, without a collective per step.

Two phases. The lead proposes a step beyond the furthest rank known. A rank that has not yet
finished that step promises to halt there for the decision; a rank that is past it says how far
it is. With all promises in, the lead decides; with one refusal it withdraws and proposes a
later step, further ahead each time. A rank that halts at a proposed step waits only for the
lead's answer, never for another rank, so that no deadlock with a collective is possible.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Purpose = Literal["save", "stop", "bound"]
"""`bound`: from this step on, the training goes on to another step than it was to before."""
FIRST_MARGIN = 2
"""Steps ahead of the furthest rank known; doubled at each refusal."""


@dataclass(frozen=True)
class Propose:
    """Ask every rank to halt after `step`."""

    number: int
    purpose: Purpose
    step: int
    bound: int | None = None
    """For a `bound`: the step after which all ranks pause; None for never."""


@dataclass(frozen=True)
class Decide:
    """Tell every rank whether a proposal holds."""

    proposal: Propose
    accepted: bool

    @property
    def number(self) -> int:
        """Of the proposal."""
        return self.proposal.number


Move = Propose | Decide


@dataclass
class Agreement:
    """The lead's side, for the ranks of one generation.

    Attributes:
        ranks: Number of ranks that must promise.
        step: Furthest step known of any rank.
    """

    ranks: int
    step: int = 0
    _number: int = 0
    _margin: int = FIRST_MARGIN
    _open: Propose | None = None
    _promised: set[int] = field(default_factory=set)
    _queued: tuple[Purpose, int | None] | None = None

    @property
    def open(self) -> Propose | None:
        """The proposal that is not yet decided."""
        return self._open

    def reached(self, step: int) -> None:
        """A rank has finished this step."""
        self.step = max(self.step, step)

    def propose(
        self, purpose: Purpose, every: int | None = None, bound: int | None = None
    ) -> list[Move]:
        """Start agreeing on a step; for `every`, on a multiple of it.

        While another proposal is open a save is dropped (the next one comes soon enough), and a
        stop is kept until the open one is decided.
        """
        if self._open is not None:
            if purpose == "stop":
                self._queued = (purpose, every)
            return []
        step = self.step + self._margin
        if every:
            step = -(-step // every) * every
        self._number += 1
        self._promised.clear()
        self._open = Propose(self._number, purpose, step, bound)
        self._every = every
        return [self._open]

    def promised(self, number: int, rank: int) -> list[Move]:
        """A rank promised to halt at the proposed step."""
        if self._open is None or number != self._open.number:
            return []
        self._promised.add(rank)
        if len(self._promised) < self.ranks:
            return []
        proposal, self._open, self._margin = self._open, None, FIRST_MARGIN
        return [Decide(proposal, accepted=True), *self._next()]

    def refused(self, number: int, step: int) -> list[Move]:
        """A rank is past the proposed step: withdraw, and propose one further ahead."""
        self.reached(step)
        if self._open is None or number != self._open.number:
            return []
        proposal, self._open = self._open, None
        self._margin *= 2
        return [
            Decide(proposal, accepted=False),
            *(self._next() or self.propose(proposal.purpose, self._every, proposal.bound)),
        ]

    def _next(self) -> list[Move]:
        if self._queued is None:
            return []
        (purpose, every), self._queued = self._queued, None
        return self.propose(purpose, every)

    _every: int | None = None
