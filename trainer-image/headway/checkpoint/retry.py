"""When to try again after a store failed, and when to give up."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .errors import StoreUnavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, up to a deadline.

    Method: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    The time starts with the operation. In a transfer that went well for long and then broke, it
    starts with the request that failed, so that one lost connection after ten minutes does not
    end an upload. An attempt that has started is not cut short: an operation that keeps failing
    ends at most two `request_timeout` after `deadline` (the library below may repeat a request).

    Attributes:
        deadline: seconds after which no new attempt starts.
        request_timeout: seconds that one request (at most 16 MiB of data) may take.
        first_backoff: upper limit in seconds of the first pause; doubles each time.
        max_backoff: upper limit in seconds of every pause.
        clock: seconds that never run backwards; replaced in tests.
        sleep: pauses for some seconds; replaced in tests.
        jitter: a number in [0, 1); replaced in tests.
    """

    deadline: float = 120.0
    request_timeout: float = 30.0
    first_backoff: float = 0.2
    max_backoff: float = 5.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random

    def run(self, operation: Callable[[], T]) -> T:
        """Call `operation` until it does not raise `StoreUnavailable`.

        Raises:
            StoreUnavailable: the last one, once the deadline is near.
        """
        start = self.clock()
        failing_since: float | None = None
        attempt = 0
        while True:
            try:
                return operation()
            except StoreUnavailable:
                now = self.clock()
                if failing_since is None:
                    failing_since = max(start, now - self.request_timeout)
                pause = self._pause(attempt)
                if now + pause >= failing_since + self.deadline:
                    raise
            self.sleep(pause)
            attempt += 1

    def _pause(self, attempt: int) -> float:
        limit: float = min(self.max_backoff, self.first_backoff * 2 ** min(attempt, 32))
        return limit * self.jitter()
