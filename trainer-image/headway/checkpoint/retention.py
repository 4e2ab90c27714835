"""Which checkpoints to keep, and how to delete the others so that no crash leaves a half one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .errors import CorruptCheckpoint
from .layout import CheckpointId
from .reader import load_commit, scan
from .stores import Store


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What retention needs to know of a commit."""

    id: CheckpointId
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Best:
    """Keep the best checkpoints too.

    Attributes:
        metric: by which; commits without it do not take part.
        mode: whether small or large values are good.
        count: how many to keep; 1 or more.
    """

    metric: str
    mode: Literal["min", "max"] = "min"
    count: int = 1


def expired(
    commits: Sequence[CommitInfo], keep_last: int, best: Best | None = None
) -> list[CheckpointId]:
    """Choose the checkpoints that nothing asks to keep, oldest first.

    Args:
        commits: all commits, in any order.
        keep_last: how many of the newest to keep. The newest is kept whatever this says.
        best: which others to keep. Among equals the newer counts as better.
    """
    newest_first = sorted((info.id for info in commits), reverse=True)
    kept = {*newest_first[: max(1, keep_last)], *_best(commits, best)}
    return [old for old in reversed(newest_first) if old not in kept]


def abandoned(
    incomplete: Iterable[CheckpointId], commits: Collection[CheckpointId], generation: int
) -> list[CheckpointId]:
    """Choose the saves that were begun and will never be committed, oldest first.

    These are all of older generations, and those of the current one that a newer commit has
    overtaken. Anything else may still be on its way.

    Args:
        incomplete: checkpoints that have objects but no COMMIT.json.
        commits: checkpoints that have one.
        generation: the one that may commit now.
    """
    steps = [commit.step for commit in commits if commit.generation == generation]
    newest_step = max(steps, default=-1)
    return sorted(
        begun
        for begun in incomplete
        if begun.generation < generation
        or (begun.generation == generation and begun.step < newest_step)
    )


def delete_checkpoint(store: Store, checkpoint: CheckpointId) -> None:
    """Delete a checkpoint: COMMIT.json first, so that what is left is never taken for one.

    Deleting again what an earlier call left is harmless.

    Raises:
        StoreError: the store refused or failed.
    """
    store.delete(checkpoint.commit_key)
    for key in store.list(checkpoint.directory):
        store.delete(key)


def prune(
    store: Store, *, generation: int, keep_last: int, best: Best | None = None
) -> list[CheckpointId]:
    """Delete what need not be kept; call it after a commit.

    A commit that cannot be read is neither counted nor deleted: it may be of a newer version.

    Args:
        store: the job's root.
        generation: the caller's own, which must be the current one.
        keep_last: see `expired`.
        best: see `expired`.

    Returns:
        What was deleted.

    Raises:
        StoreError: the store refused or failed.
    """
    listing = scan(store)
    infos = [info for found in listing.committed if (info := _info(store, found)) is not None]
    doomed = expired(infos, keep_last, best)
    doomed += abandoned(listing.incomplete, [info.id for info in infos], generation)
    for checkpoint in doomed:
        delete_checkpoint(store, checkpoint)
    return doomed


def best_commit(store: Store, best: Best) -> CommitInfo | None:
    """The best checkpoint in storage; None where no commit has the metric.

    Raises:
        StoreError: the store refused or failed.
    """
    found = (_info(store, each) for each in scan(store).committed)
    infos = {info.id: info for info in found if info is not None}
    ranked = _best(list(infos.values()), best)
    return infos[ranked[0]] if ranked else None


def _best(commits: Sequence[CommitInfo], best: Best | None) -> list[CheckpointId]:
    if best is None:
        return []
    sign = 1 if best.mode == "max" else -1
    ranked = sorted(
        (info for info in commits if best.metric in info.metrics),
        key=lambda info: (sign * info.metrics[best.metric], info.id),
        reverse=True,
    )
    return [info.id for info in ranked[: best.count]]


def _info(store: Store, checkpoint: CheckpointId) -> CommitInfo | None:
    try:
        return CommitInfo(checkpoint, load_commit(store, checkpoint).metrics)
    except CorruptCheckpoint:
        return None
