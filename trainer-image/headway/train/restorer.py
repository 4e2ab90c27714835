"""Restoring from storage: every rank reads and verifies, and all agree on which checkpoint."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from headway.checkpoint import reader
from headway.checkpoint.errors import StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.location import others
from headway.checkpoint.reader import Restored
from headway.checkpoint.state import TensorSpec
from headway.checkpoint.stores import Store
from headway.train.found import Found
from headway.train.sharding import Wants
from headway.train.state import view_of

log = logging.getLogger("headway")
T = TypeVar("T")
_PAUSE_SECONDS = 1.0


def patiently(work: Callable[[], T]) -> T:
    """Do `work` as soon as storage answers: a restart would only wait for the same thing."""
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            log.warning("storage does not answer; waiting for it: %s", error)
            time.sleep(_PAUSE_SECONDS)


def newest(store: Store, rank: int, wants: Wants, only: CheckpointId | None = None) -> Found | None:
    """Read the newest checkpoint that is valid for every rank.

    Args:
        store: The job's root, or that of the job to start from.
        rank: This rank.
        wants: What it wants of the tensors.
        only: The one checkpoint to take, if it must be that one.

    Returns:
        What was restored; None when there is none.

    Raises:
        NoValidCheckpoint: checkpoints exist, and none is valid.
    """
    skip = patiently(lambda: others(store, only))
    while True:
        tensors: dict[str, torch.Tensor] = {}

        def into(spec: TensorSpec) -> memoryview:
            tensors[spec.name] = wants.empty(spec)  # noqa: B023 (called before the next round)
            return view_of(tensors[spec.name])  # noqa: B023

        restored = patiently(
            partial(reader.restore_newest, store, into, rank, skip=skip, within=wants.within)
        )
        found = _all_found(restored)
        if len(set(found)) == 1:
            return None if restored is None else _as_found(restored, tensors, wants)
        # A zombie's late commit, or a range that only one rank could not read: the oldest that
        # anybody found is the newest that everybody has.
        oldest = min(found)
        listed = patiently(lambda: reader.list_commits(store))
        skip |= {each for each in listed if (each.generation, each.step) > oldest}


def _as_found(restored: Restored, tensors: dict[str, torch.Tensor], wants: Wants) -> Found:
    specs = {spec.name: spec for spec in restored.commit.tensors}
    return Found(
        id=restored.commit.id,
        objects=restored.commit.objects,
        rank_state=restored.rank_state,
        # Not what only a newer checkpoint has, which was begun and turned out to be damaged.
        tensors={name: wants.tensor(spec, tensors[name]) for name, spec in specs.items()},
        source="storage",
        fallbacks=[f"{each.id}: {each.reason}" for each in restored.fallbacks],
    )


def _all_found(restored: Restored | None) -> list[tuple[int, int]]:
    mine = (restored.commit.generation, restored.commit.step) if restored else (-1, -1)
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, mine)
    return found
