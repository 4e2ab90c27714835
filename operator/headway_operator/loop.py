"""The loop of a kind of ours: keys in, each reconciled by one worker at a time, with backoff."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from headway_operator.apply import Blocked, retry_after
from headway_operator.cluster.client import ApiError, Conflict
from headway_operator.metrics import Metrics
from headway_operator.settings import Settings
from headway_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, str]
"""Namespace and name."""
CONFLICTS = 5
"""Fresh reads in a row, before an object that others keep writing waits its turn."""
SOONEST_SECONDS = 0.05
"""Least time until a look that no event asked for: a mistake in a policy must not spin."""


class Reconcile(Protocol):
    """Brings one object nearer to what it should be."""

    def __call__(self, key: Key, /) -> Awaitable[float | None]:
        """Reconcile; seconds until the next look, None when the object is gone.

        Raises:
            ApiError: it is tried again, ever more slowly.
            Blocked: the same.
        """


class Loop:
    """Has objects reconciled when they are woken, and again after a failure.

    Args:
        reconcile: see `Reconcile`.
        settings: of the operator.
        metrics: where to count.
        rng: spreads retries and resyncs.
        depth: told how many objects wait.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        settings: Settings,
        metrics: Metrics,
        rng: random.Random,
        depth: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._reconcile = reconcile
        self._settings = settings
        self._metrics = metrics
        self._rng = rng
        self._depth = depth
        self._queue: WorkQueue[Key] = WorkQueue()
        self._failures: dict[Key, int] = {}

    def wake(self, key: Key, *, first: bool = False) -> None:
        """Have an object looked at, maybe ahead of others."""
        self._queue.add(key, first=first)
        self._depth(len(self._queue))

    def wake_later(self, key: Key, seconds: float) -> None:
        """Have an object looked at after some time; a sooner wish stands."""
        self._queue.add_later(key, seconds)

    def forget(self, key: Key) -> None:
        """Drop what is known of an object that is gone."""
        self._failures.pop(key, None)

    def resync(self) -> float:
        """Seconds until an object is looked at again, whatever was missed."""
        return self._settings.resync_seconds * self._rng.uniform(0.9, 1.1)

    def stalled_seconds(self) -> float:
        """How long there has been work and none of it was finished."""
        return self._queue.stalled_seconds()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is being worked on; later wishes aside."""
        return not len(self._queue) and not self._queue.working

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        finally:
            self._queue.close()

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            self._depth(len(self._queue))
            try:
                await self._attempt(key)
            finally:
                self._queue.done(key)

    async def _attempt(self, key: Key) -> None:
        """Reconcile one object and decide when to look again."""
        loop = asyncio.get_running_loop()
        began, outcome = loop.time(), "done"
        self._queue.forget_timer(key)
        try:
            wait = await self._reconcile(key)
            self._failures.pop(key, None)
        except (ApiError, Blocked) as error:
            outcome = "blocked" if isinstance(error, Blocked) else type(error).__name__
            wait = self._backoff(key, retry_after(error))
            logger.info("%s/%s: %s; next try in %.1f s", *key, error, wait)
        except Exception:  # a bug met by one object must not stop the others
            outcome = "bug"
            wait = self._backoff(key, None)
            logger.exception("%s/%s: reconcile failed; next try in %.1f s", *key, wait)
        if wait is not None:
            self._queue.add_later(key, wait)
        self._metrics.reconcile_seconds.labels(outcome).observe(loop.time() - began)

    def _backoff(self, key: Key, asked: float | None) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        longest = self._settings.backoff_limit_seconds
        wait = min(self._settings.backoff_seconds * 2.0 ** min(failures, 16), longest)
        return max(asked or 0.0, wait * self._rng.uniform(0.5, 1.0))


def keeps_changing() -> Conflict:
    """The error of an object that was never at rest for `CONFLICTS` reads."""
    return Conflict(409, "Conflict", "somebody else keeps writing this object")
