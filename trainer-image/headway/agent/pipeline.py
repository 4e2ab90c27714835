"""How far each checkpoint is: agreed on, sealed in memory, on its way to storage, committed.

Pure; the lead's view of a whole group. Saving in memory and sending to storage go on beside each
other: while one slot of each worker is being sent, the other one takes the next checkpoints. So
storage that is slow, or away for minutes, delays no checkpoint in memory and stops no training;
what comes up meanwhile is superseded by the newest, which is sent next.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from headway.checkpoint.layout import CheckpointId


@dataclass(frozen=True)
class Upload:
    """Every node is to send its parts of this checkpoint, instead of any other."""

    id: CheckpointId


@dataclass
class Pipeline:
    """The checkpoints of a group.

    Attributes:
        ranks: All ranks of the group.
        copying: Agreed on, but not yet sealed by every rank.
        newest: The newest that every rank has sealed.
        uploading: On its way to storage.
        committed: The newest that is in storage.
        settled: The newest that is committed, or given up.
        superseded: How many were sealed by every rank, and never sent because a newer one was.
    """

    ranks: Set[int]
    copying: CheckpointId | None = None
    newest: CheckpointId | None = None
    uploading: CheckpointId | None = None
    committed: CheckpointId | None = None
    settled: CheckpointId | None = None
    superseded: int = 0
    last_step: int | None = None
    """The step at which the run ends, once a rank has got there."""
    _sealed: dict[CheckpointId, set[int]] = field(default_factory=dict)
    _urgent: bool = False

    def agreed(self, checkpoint: CheckpointId, *, urgent: bool = False) -> None:
        """All ranks are going to save this; what is urgent does not wait for an upload."""
        if self.last_step is None or checkpoint.step <= self.last_step:
            self.copying, self._urgent = checkpoint, urgent

    def ends_at(self, step: int) -> list[Upload]:
        """A rank has come to the end of the run: what was agreed on for later will never be.

        If storage has refused the checkpoint of this very step before, it is tried once more: the
        rank is going to wait for it.
        """
        self.last_step = step
        if self.copying is not None and self.copying.step > step:
            self.copying = None
        last = self.newest
        if last is not None and last.step == step and last not in (self.uploading, self.committed):
            self.uploading = None
            return self._send(last)
        return self._next()

    def sealed(self, checkpoint: CheckpointId, rank: int) -> list[Upload]:
        """A rank has all of it in memory."""
        ranks = self._sealed.setdefault(checkpoint, set())
        ranks.add(rank)
        if ranks < self.ranks:
            return []
        self._sealed = {each: r for each, r in self._sealed.items() if each > checkpoint}
        if self.newest is not None and self.newest not in (self.uploading, self.settled):
            self.superseded += 1
        self.newest = checkpoint
        if self.copying == checkpoint:
            self.copying = None
            if self._urgent:
                self.uploading = None
        return self._next()

    def failed(self, checkpoint: CheckpointId) -> list[Upload]:
        """It is given up: a rank could not save it, or storage refused it."""
        if self.copying == checkpoint:
            self.copying = None
        return self._settle(checkpoint)

    def stored(self, checkpoint: CheckpointId) -> list[Upload]:
        """It is committed."""
        if self.committed is None or checkpoint > self.committed:
            self.committed = checkpoint
        return self._settle(checkpoint)

    def _settle(self, checkpoint: CheckpointId) -> list[Upload]:
        if self.uploading == checkpoint:
            self.uploading = None
        if self.settled is None or checkpoint > self.settled:
            self.settled = checkpoint
        return self._next()

    def began(self, restored: CheckpointId | None) -> list[Upload]:
        """A new generation has begun, from `restored` in memory, or from storage (None).

        What was being sent goes on if every node still has it, which is known of `restored` only.
        What storage has refused before is tried once more.
        """
        self.copying, self._urgent, self.last_step = None, False, None
        self._sealed.clear()
        self.newest = restored
        unsent = restored is not None and (self.committed is None or restored > self.committed)
        self.uploading = restored if unsent else None
        # Ordered again: a node may be new, and one that is at it already goes on.
        return [Upload(restored)] if restored is not None and unsent else []

    @property
    def unsent(self) -> CheckpointId | None:
        """What is whole in memory, and not yet in storage."""
        newest = self.newest
        if newest is None or (self.settled is not None and newest <= self.settled):
            return None
        return newest

    def _next(self) -> list[Upload]:
        # Only in a quiet moment: ranks that are saving may be writing to the very slot.
        if self.uploading is not None or self.copying is not None or self.unsent is None:
            return []
        return self._send(self.unsent)

    def _send(self, checkpoint: CheckpointId) -> list[Upload]:
        self.uploading = checkpoint
        return [Upload(checkpoint)]
