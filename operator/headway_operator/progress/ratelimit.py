"""How many requests one pod may make: a token bucket for each."""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

_SWEEP: Final = 1024
"""Buckets above which, each time their number has doubled, the full ones are dropped."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """Token buckets by key; a key that has been quiet costs no memory for long.

    Args:
        per_second: requests that may be made for ever.
        burst: requests that may be made at once after a rest.
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(
        self, per_second: float, burst: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._buckets: dict[Hashable, _Bucket] = {}
        self._sweep_at = _SWEEP

    def allow(self, key: Hashable) -> bool:
        """Whether this request may go on; takes a token if so."""
        now = self._monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            self._sweep(now)
            bucket = self._buckets[key] = _Bucket(self._burst, now)
        bucket.tokens, bucket.at = self._filled(bucket, now), now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _filled(self, bucket: _Bucket, now: float) -> float:
        return min(self._burst, bucket.tokens + (now - bucket.at) * self._per_second)

    def _sweep(self, now: float) -> None:
        if len(self._buckets) < self._sweep_at:
            return
        self._buckets = {
            key: bucket
            for key, bucket in self._buckets.items()
            if self._filled(bucket, now) < self._burst
        }
        self._sweep_at = max(_SWEEP, 2 * len(self._buckets))

    @property
    def size(self) -> int:
        """Keys that are remembered."""
        return len(self._buckets)
