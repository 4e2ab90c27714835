"""Which checkpoints exist: the lead writes COMMIT once every part is there, and retires old ones.

Storage that does not answer never stops training: receipts of a checkpoint whose commit failed
are kept, and the commit is tried again until it succeeds or a newer generation takes over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from headway.agent.wire import Message
from headway.checkpoint import fence, retention, writer
from headway.checkpoint.errors import CheckpointError, Fenced, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import PartReceipt
from headway.checkpoint.stores import Store
from headway_api.trainingjob import Checkpoint

log = logging.getLogger(__name__)
T = TypeVar("T")
Tell = Callable[[str, str], None]
"""Posts an Event: reason and message."""


@dataclass(frozen=True)
class BestSoFar:
    """The best checkpoint by `keepBest`."""

    step: int
    uri: str
    metric: str
    value: float


@dataclass(frozen=True)
class Committed:
    """A checkpoint that exists now."""

    step: int
    generation: int
    uri: str
    time: str
    metrics: dict[str, float]
    best: BestSoFar | None


@dataclass(frozen=True)
class Abandoned:
    """A checkpoint that will never exist."""

    step: int
    message: str


@dataclass
class _Gathering:
    receipts: dict[int, PartReceipt] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    resumed_from: CheckpointId | None = None


class Committer:
    """Gathers receipts per checkpoint; without a store it has nothing to do."""

    def __init__(self, store: Store | None, policy: Checkpoint, holder: str, tell: Tell) -> None:
        self._store = store
        self._policy = policy
        self._holder = holder
        self._tell = tell
        self._gathering: dict[CheckpointId, _Gathering] = {}
        self._generation = 0
        self._best_so_far: BestSoFar | None = None
        self._retiring = asyncio.Lock()
        self._committing = asyncio.Lock()

    @property
    def idle(self) -> bool:
        """Whether no checkpoint is on its way, so that another may be taken."""
        return self._store is not None and not self._gathering

    async def claim(self, known: int) -> int:
        """Claim the next generation: larger than `known` and than any in storage.

        Raises:
            Fenced: somebody else has claimed a generation newer than `known` in the meantime,
                which only the group of a newer pod can have done.
        """
        generation = known + 1
        self._gathering.clear()
        if self._store is not None:
            store, first = self._store, self._generation == 0
            marker = await self._patiently(lambda: fence.current(store))
            if marker is not None and marker.generation >= generation:
                if not first and marker.holder != self._holder:
                    raise Fenced(marker.generation, marker.holder)
                generation = marker.generation + 1
            chosen = generation
            await self._patiently(lambda: fence.claim(store, chosen, self._holder))
            if first:
                await self._remember_best(store)
        self._generation = generation
        return generation

    async def receipt(self, message: Message, world_size: int) -> Committed | Abandoned | None:
        """Take a rank's receipt; with the last one the checkpoint is committed.

        Raises:
            Fenced: this group is over.
        """
        receipt = PartReceipt.model_validate(message["receipt"])
        if self._store is None or receipt.id.generation != self._generation:
            return None
        gathering = self._gathering.setdefault(receipt.id, _Gathering())
        gathering.receipts[receipt.rank] = receipt
        if receipt.rank == 0:
            gathering.metrics = message.get("metrics", {})
            resumed = message.get("resumed_from")
            gathering.resumed_from = CheckpointId(**resumed) if resumed else None
        if len(gathering.receipts) < world_size:
            return None
        async with self._committing:
            return await self._commit(self._store, receipt.id, gathering)

    def abandon(self, checkpoint: CheckpointId, why: str) -> Abandoned:
        """Give up a checkpoint that can't be completed; the next one is tried as usual."""
        self._gathering.pop(checkpoint, None)
        message = f"the checkpoint of step {checkpoint.step} could not be saved: {why}"
        self._tell("CheckpointFailed", message)
        return Abandoned(checkpoint.step, message)

    async def settle(self) -> None:
        """Wait for the work in hand, at the end of a group."""
        async with self._committing, self._retiring:
            return

    async def _commit(
        self, store: Store, checkpoint: CheckpointId, gathering: _Gathering
    ) -> Committed | Abandoned:
        receipts = [gathering.receipts[rank] for rank in sorted(gathering.receipts)]
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            await self._patiently(
                lambda: writer.commit(
                    store,
                    checkpoint,
                    receipts,
                    created=now,
                    metrics=gathering.metrics,
                    resumed_from=gathering.resumed_from,
                )
            )
        except Fenced:
            raise
        except CheckpointError as error:
            return self.abandon(checkpoint, str(error))
        self._gathering.pop(checkpoint, None)
        uri = f"{store.uri}/{checkpoint.directory}"
        self._note_best(checkpoint.step, uri, gathering.metrics)
        log.info("checkpoint of step %d is committed", checkpoint.step)
        return Committed(
            step=checkpoint.step,
            generation=checkpoint.generation,
            uri=uri,
            time=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            metrics=dict(gathering.metrics),
            best=self._best_so_far,
        )

    def _note_best(self, step: int, uri: str, metrics: Mapping[str, float]) -> None:
        best = self._keep_best()
        if best is None or best.metric not in metrics:
            return
        value, known = metrics[best.metric], self._best_so_far
        sign = 1 if best.mode == "min" else -1
        if known is None or sign * value <= sign * known.value:
            self._best_so_far = BestSoFar(step, uri, best.metric, value)

    async def _remember_best(self, store: Store) -> None:
        """An earlier lead may have committed a better one than this ever will."""
        best = self._keep_best()
        if best is None:
            return
        info = await self._patiently(lambda: retention.best_commit(store, best))
        if info is not None:
            uri = f"{store.uri}/{info.id.directory}"
            self._note_best(info.id.step, uri, info.metrics)

    def _keep_best(self) -> retention.Best | None:
        keep = self._policy.keep_best
        return retention.Best(keep.metric, keep.mode, keep.count) if keep else None

    async def retire(self) -> None:
        """Delete what the retention policy no longer keeps; a failure only delays it."""
        store, generation, keep = self._store, self._generation, self._policy.keep_last
        if store is None or self._retiring.locked():
            return
        async with self._retiring:
            try:
                await asyncio.to_thread(
                    retention.prune,
                    store,
                    generation=generation,
                    keep_last=keep,
                    best=self._keep_best(),
                )
            except CheckpointError as error:
                log.warning("old checkpoints could not be deleted yet: %s", error)

    async def _patiently(self, work: Callable[[], T]) -> T:
        told = False
        while True:
            try:
                return await asyncio.to_thread(work)
            except StoreUnavailable as error:
                if not told:
                    self._tell("StorageUnavailable", f"storage does not answer: {error}")
                    log.warning("storage does not answer; trying on: %s", error)
                told = True
            await asyncio.sleep(1.0)
