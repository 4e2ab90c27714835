"""Times as Kubernetes writes them: RFC 3339 in UTC with whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(moment: datetime) -> str:
    """`moment` as text; fractions of a second are dropped."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str | None) -> datetime | None:
    """The moment that `text` names, or None."""
    return datetime.fromisoformat(text) if text else None


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    """Seconds from `start` to `end`, or None where one is unknown."""
    return None if start is None or end is None else (end - start).total_seconds()
