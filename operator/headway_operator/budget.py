"""How often a status is written that tells of progress only."""

from __future__ import annotations

from collections.abc import Hashable


class ProgressBudget:
    """A least interval for each key, and a token bucket for all of them.

    Times are monotonic seconds.
    """

    def __init__(self, interval: float, per_second: float) -> None:
        self._interval = interval
        self._per_second = per_second
        self._last: dict[Hashable, float] = {}
        self._tokens = per_second
        self._counted = 0.0

    def take(self, key: Hashable, now: float) -> float:
        """Seconds to wait before asking again; 0 grants a write and counts it."""
        left = self._last.get(key, float("-inf")) + self._interval - now
        if left > 0:
            return left
        earned = (now - self._counted) * self._per_second
        # Never more than one second's worth: an idle night must not buy a burst.
        self._tokens = min(self._tokens + earned, max(self._per_second, 1.0))
        self._counted = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second
        self._tokens -= 1
        self._last[key] = now
        return 0.0

    def left(self, key: Hashable, now: float) -> float:
        """Seconds until the key's own interval is over."""
        return max(0.0, self._last.get(key, float("-inf")) + self._interval - now)

    def wrote(self, key: Hashable, now: float) -> None:
        """Progress rode along with a write that had to be made anyway."""
        self._last[key] = now

    def forget(self, key: Hashable) -> None:
        """Drop a key that is gone."""
        self._last.pop(key, None)
