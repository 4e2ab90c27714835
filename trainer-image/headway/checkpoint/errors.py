"""What can go wrong with a checkpoint or its store, each with what to do next."""

from __future__ import annotations

# These are states that callers tell apart, and read better without a suffix.
# ruff: noqa: N818


class CheckpointError(Exception):
    """Base of every error of this package."""


class StoreError(CheckpointError):
    """A store did not do what was asked."""


class StoreUnavailable(StoreError):
    """The store could not be reached or failed (time-out, 5xx, 429) until the deadline."""


class StoreDenied(StoreError):
    """The store answered and refused: wrong credentials, missing permission, wrong region."""


class BucketMissing(StoreError):
    """The bucket (or container) of the URI does not exist."""


class ObjectMissing(StoreError):
    """There is no object under this key."""


class CorruptCheckpoint(CheckpointError):
    """A checkpoint is not what was committed.

    Args:
        reason: which object or tensor is wrong, and how.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NoValidCheckpoint(CheckpointError):
    """Checkpoints were committed, but not one of them can be restored.

    Raised instead of starting over: the tensors may hold bytes of a bad checkpoint by now, and
    losing a run's progress is a decision for its owner.
    """


class CommitRefused(CheckpointError):
    """The receipts do not add up to a complete checkpoint; nothing was committed."""


class Fenced(CheckpointError):
    """A newer generation, or another holder of this one, has claimed the job.

    Args:
        newer: the generation that holds the job now.
        holder: who claimed it.
    """

    def __init__(self, newer: int, holder: str) -> None:
        super().__init__(
            f"generation {newer} ({holder}) has claimed this job: "
            "stop writing, this process belongs to a group that is over"
        )
        self.newer = newer
        self.holder = holder
