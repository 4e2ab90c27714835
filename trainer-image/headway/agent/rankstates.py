"""What only one rank knows (random generators, position in the data), kept for its successor.

Tensors of a lost pod are had from any other one; these are not. Each rank gives its own to the
lead with every checkpoint, and the lead gives those of its own pod to worker 1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from headway.agent.wire import Message
from headway.checkpoint.layout import CheckpointId

_KEPT = 3
"""Checkpoints: those in both slots, and one that is being sealed."""


class RankStates:
    """The states of all ranks at the latest checkpoints."""

    def __init__(self) -> None:
        self._states: dict[CheckpointId, dict[int, Any]] = {}

    def add(self, checkpoint: CheckpointId, rank: int, state: Any) -> None:
        """Keep a rank's state."""
        self._states.setdefault(checkpoint, {})[rank] = state
        for old in sorted(self._states)[:-_KEPT]:
            del self._states[old]

    def add_all(self, message: Message) -> None:
        """Keep what `of` made."""
        checkpoint = CheckpointId.named_in(message)
        for rank, state in message["states"].items():
            self.add(checkpoint, int(rank), state)

    def of(self, checkpoint: CheckpointId, ranks: Collection[int]) -> Message:
        """The states of these ranks, as a message."""
        known = self._states.get(checkpoint, {})
        states = {str(rank): known[rank] for rank in ranks if rank in known}
        return {**checkpoint.names, "states": states}

    def knows(self, checkpoint: CheckpointId, ranks: Collection[int]) -> bool:
        """Whether all of these ranks have a state here."""
        return len(self.of(checkpoint, ranks)["states"]) == len(ranks)
