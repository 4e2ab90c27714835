"""When a request to the API server is worth repeating, and after how long."""

from typing import Final

from .client import ApiError, TooManyRequests, Unavailable

ATTEMPTS: Final = 6
"""Tries of one request in all: about 3 s where the server names no time to wait."""
FIRST_DELAY: Final = 0.1
LONGEST_WAIT: Final = 10.0
"""Seconds; a server that asks for more gets its answer from the caller's own queue."""


def retry_delay(error: ApiError, *, attempt: int, idempotent: bool, jitter: float) -> float | None:
    """Seconds to wait before trying again, or `None` to give up.

    A request refused with 429 was not carried out, so any may be repeated; after a 5xx or a lost
    connection nobody knows, so only an idempotent one may.

    Args:
        error: what came back.
        attempt: tries made so far, from 1.
        idempotent: whether doing it twice does what doing it once does.
        jitter: from 0 to 1; spreads clients that failed together.
    """
    repeatable = isinstance(error, TooManyRequests) or (
        idempotent and isinstance(error, Unavailable)
    )
    if not repeatable or attempt >= ATTEMPTS:
        return None
    backoff = FIRST_DELAY * 2.0 ** (attempt - 1)
    wait = (error.retry_after or backoff) * (1 + jitter / 4)
    return wait if wait <= LONGEST_WAIT else None
