"""A queue of keys: each at most once in it, each with one worker at a time, some first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Deduplicates keys, keeps one key from two workers, and wakes keys at a later time.

    Times are the event loop's, so a loop with a virtual clock drives it.
    """

    def __init__(self) -> None:
        self._first: OrderedDict[K, float] = OrderedDict()
        self._rest: OrderedDict[K, float] = OrderedDict()
        self._working: dict[K, float] = {}
        self._again: dict[K, bool] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._available = asyncio.Event()
        self._last_done = 0.0

    def __len__(self) -> int:
        return len(self._first) + len(self._rest)

    @property
    def working(self) -> int:
        """Keys in the hands of workers."""
        return len(self._working)

    def add(self, key: K, *, first: bool = False) -> None:
        """Put a key in; one that is being worked on comes back when its worker is done."""
        if key in self._working:
            self._again[key] = first or self._again.get(key, False)
            return
        if key in self._first:
            return
        since = self._rest.pop(key, None) if first else self._rest.get(key)
        since = asyncio.get_running_loop().time() if since is None else since
        (self._first if first else self._rest)[key] = since
        self._available.set()

    def add_later(self, key: K, seconds: float) -> None:
        """Put a key in after some time; a sooner wish for the same key stands."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._ring, key)

    def forget_timer(self, key: K) -> None:
        """Drop a key's later wish."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def get(self) -> K:
        """The next key, which is then being worked on; call `done` in the end."""
        while not len(self):
            self._available.clear()
            await self._available.wait()
        key, _ = (self._first or self._rest).popitem(last=False)
        self._working[key] = asyncio.get_running_loop().time()
        return key

    def done(self, key: K) -> None:
        """A worker has finished with a key."""
        del self._working[key]
        self._last_done = asyncio.get_running_loop().time()
        if key in self._again:
            self.add(key, first=self._again.pop(key))

    def stalled_seconds(self) -> float:
        """How long there has been work and none of it was finished; 0 when idle."""
        starts = [*self._working.values()]
        starts += [next(iter(line.values())) for line in (self._first, self._rest) if line]
        if not starts:
            return 0.0
        return asyncio.get_running_loop().time() - max(min(starts), self._last_done)

    def close(self) -> None:
        """Cancel all timers."""
        for key in list(self._timers):
            self.forget_timer(key)

    def _ring(self, key: K) -> None:
        del self._timers[key]
        self.add(key)
