"""Which checkpoints exist: the lead writes COMMIT once every part is there, and retires old ones.

Storage that does not answer never stops training: receipts of a checkpoint whose commit failed
are kept, and the commit is tried again until it succeeds or a newer generation takes over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from headway.agent.wire import Message
from headway.checkpoint import fence, reader, retention, writer
from headway.checkpoint.errors import CheckpointError, Fenced, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.leftovers import abort_stale_uploads
from headway.checkpoint.manifest import PartReceipt
from headway.checkpoint.stores import Store
from headway_api.trainingjob import Checkpoint

log = logging.getLogger(__name__)
T = TypeVar("T")
_STALE_UPLOAD = timedelta(days=1)
"""Age from which on nobody can still be at work on an upload."""
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

    id: CheckpointId
    uri: str
    time: str
    metrics: dict[str, float]
    best: BestSoFar | None
    seconds: float = 0.0
    """How long it took to send and to commit."""

    @property
    def step(self) -> int:
        """Its step."""
        return self.id.step


@dataclass(frozen=True)
class Abandoned:
    """A checkpoint that will never exist."""

    id: CheckpointId
    message: str

    @property
    def step(self) -> int:
        """Its step."""
        return self.id.step


@dataclass
class _Gathering:
    receipts: dict[int, PartReceipt] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    resumed_from: CheckpointId | None = None
    seconds: float = 0.0
    complete: bool = False


class Committer:
    """Gathers receipts per checkpoint; without a store it has nothing to do."""

    def __init__(self, store: Store | None, policy: Checkpoint, holder: str, tell: Tell) -> None:
        self._store = store
        self._policy = policy
        self._holder = holder
        self._tell = tell
        self._gathering: dict[CheckpointId, _Gathering] = {}
        self._generation = self._tidied = 0
        self._expected: CheckpointId | None = None
        self._best_so_far: BestSoFar | None = None
        self._retiring = asyncio.Lock()
        self._committing = asyncio.Lock()
        self._claiming: asyncio.Task[None] | None = None

    @property
    def stores(self) -> bool:
        """Whether there is a storage to commit to."""
        return self._store is not None

    async def claim(self, known: int) -> int:
        """Claim the next generation: larger than `known` and than any in storage.

        Only the first claim of a lead waits for storage. Later ones are written in the
        background, so that a restart in place does not wait for storage at all; a commit does
        wait for them.

        Raises:
            Fenced: somebody else has claimed a generation newer than `known` in the meantime,
                which only the group of a newer pod can have done.
        """
        generation, first = known + 1, self._generation == 0
        if self._store is not None and first:
            store = self._store
            marker = await self._patiently(lambda: fence.current(store))
            if marker is not None and marker.generation >= generation:
                generation = marker.generation + 1
            await self._mark(store, generation)
            await self._remember_best(store)
        elif self._store is not None:
            self._claiming = asyncio.create_task(
                self._mark_after(self._claiming, self._store, generation)
            )
        self._generation = generation
        return generation

    async def newest(self) -> CheckpointId | None:
        """The newest checkpoint in storage."""
        if self._store is None:
            return None
        store = self._store
        found = await self._patiently(lambda: reader.list_commits(store))
        return found[0] if found else None

    async def _mark(self, store: Store, generation: int) -> None:
        await self._patiently(lambda: fence.claim(store, generation, self._holder))

    async def _mark_after(
        self, before: asyncio.Task[None] | None, store: Store, generation: int
    ) -> None:
        if before is not None:
            await before
        await self._mark(store, generation)

    async def _claimed(self) -> None:
        """Wait for a claim in the background.

        Raises:
            Fenced: it was refused.
        """
        if self._claiming is not None:
            await asyncio.shield(self._claiming)

    async def receipt(self, message: Message, world_size: int) -> Committed | Abandoned | None:
        """Take a rank's receipt; with the last one the checkpoint is committed.

        Raises:
            Fenced: this group is over.
        """
        receipt = PartReceipt.model_validate(message["receipt"])
        if self._store is None or receipt.id != self._expected:
            return None
        gathering = self._gathering.setdefault(receipt.id, _Gathering())
        gathering.receipts[receipt.rank] = receipt
        if receipt.rank == 0:
            gathering.metrics = message.get("metrics", {})
            resumed = message.get("resumed_from")
            gathering.resumed_from = CheckpointId(**resumed) if resumed else None
        gathering.seconds = max(gathering.seconds, float(message.get("seconds", 0.0)))
        if len(gathering.receipts) < world_size or gathering.complete:
            return None
        gathering.complete = True
        async with self._committing:
            await self._claimed()
            return await self._commit(self._store, receipt.id, gathering)

    def expect(self, checkpoint: CheckpointId) -> None:
        """Only receipts of this checkpoint count from now on: it is being sent."""
        self._expected = checkpoint
        gathering = self._gathering.get(checkpoint)
        self._gathering = {checkpoint: gathering} if gathering else {}

    def abandon(self, checkpoint: CheckpointId, why: str) -> Abandoned:
        """Give up a checkpoint that can't be completed; the next one is tried as usual."""
        self._gathering.pop(checkpoint, None)
        message = f"the checkpoint of step {checkpoint.step} could not be saved: {why}"
        self._tell("CheckpointFailed", message)
        return Abandoned(checkpoint, message)

    async def settle(self) -> None:
        """Wait for the work in hand, at the end of a group."""
        async with self._committing, self._retiring:
            return

    async def _commit(
        self, store: Store, checkpoint: CheckpointId, gathering: _Gathering
    ) -> Committed | Abandoned:
        receipts = [gathering.receipts[rank] for rank in sorted(gathering.receipts)]
        began = time.monotonic()
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            await self._patiently(
                lambda: writer.commit(
                    store,
                    checkpoint,
                    receipts,
                    created=now,
                    claimed=self._generation,
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
            id=checkpoint,
            uri=uri,
            time=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            metrics=dict(gathering.metrics),
            best=self._best_so_far,
            seconds=gathering.seconds + time.monotonic() - began,
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
                if self._tidied != generation:  # once is enough: it lists all uploads
                    self._tidied = generation
                    await asyncio.to_thread(
                        abort_stale_uploads,
                        store,
                        generation,
                        now=datetime.now(UTC),
                        older_than=_STALE_UPLOAD,
                    )
            except CheckpointError as error:
                log.warning("what is not needed any more could not be deleted yet: %s", error)

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
