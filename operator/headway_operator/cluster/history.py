"""What changed, in order: the window of events that watches of one kind read from."""

import asyncio
from bisect import bisect_right
from dataclasses import dataclass

from .client import EventType, Object, WatchEvent, api_error
from .selectors import matches


@dataclass(frozen=True, slots=True)
class Change:
    """One write: before, after (`None`: did not exist, or was removed) and its version."""

    version: int
    namespace: str | None
    old: Object | None
    new: Object | None


class History:
    """The newest changes of one kind, and who waits for the next one."""

    def __init__(self, window: int, start: int) -> None:
        self._window = window
        self._changes: list[Change] = []
        self._forgotten = start
        self._waiting: list[asyncio.Future[None]] = []

    def append(self, change: Change) -> None:
        """Record a change and wake everybody who waits for one."""
        self._changes.append(change)
        if len(self._changes) > 2 * self._window:
            self.compact(self._changes[-self._window - 1].version)
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    def compact(self, version: int) -> None:
        """Forget everything up to a version."""
        self._changes = self._changes[self._position(version) :]
        self._forgotten = max(self._forgotten, version)

    def after(self, version: int) -> list[Change]:
        """All changes since a version.

        Raises:
            Gone: some of them are forgotten.
        """
        if version < self._forgotten:
            raise api_error(
                410, "Expired", f"too old resource version: {version} ({self._forgotten})"
            )
        return self._changes[self._position(version) :]

    async def changed(self, timeout: float | None) -> bool:
        """Wait for the next change; false when the time, in the loop's seconds, runs out."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            return False
        finally:
            if future in self._waiting:
                self._waiting.remove(future)
        return True

    def _position(self, version: int) -> int:
        return bisect_right(self._changes, version, key=lambda change: change.version)


def event_of(change: Change, namespace: str | None, selector: str | None) -> WatchEvent | None:
    """What a watch with this scope sees of a change."""
    if namespace is not None and change.namespace != namespace:
        return None
    before = change.old is not None and matches(selector, change.old)
    after = change.new is not None and matches(selector, change.new)
    if not before and not after:
        return None
    kind: EventType = "DELETED" if not after else "MODIFIED" if before else "ADDED"
    seen = change.new if after else _last_state(change)
    return WatchEvent(kind, seen)  # type: ignore[arg-type]


def _last_state(change: Change) -> Object:
    """The object as it was, under the version that took it away."""
    old = change.old or {}
    return {**old, "metadata": {**old["metadata"], "resourceVersion": str(change.version)}}
