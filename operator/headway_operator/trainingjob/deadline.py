"""How long a job may be active, and how long it may take to start."""

from __future__ import annotations

from datetime import datetime, timedelta

from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.trainingjob.times import parsed


def active_seconds(status: TrainingJobStatus, now: datetime) -> int:
    """Seconds that a job has been active; the time that it was suspended is free."""
    started = parsed(status.start_time)
    running = max(0.0, (now - started).total_seconds()) if started else 0.0
    return (status.active_seconds or 0) + int(running)


def deadline(spec: TrainingJobSpec, status: TrainingJobStatus) -> datetime | None:
    """When a job has been active for too long; None without a limit or while it is not active."""
    started = parsed(status.start_time)
    if spec.active_deadline_seconds is None or started is None:
        return None
    return started + timedelta(seconds=spec.active_deadline_seconds - (status.active_seconds or 0))


def start_limit(spec: TrainingJobSpec, status: TrainingJobStatus) -> datetime | None:
    """When a group that has not run yet has had its time to start; None where that is no matter."""
    seconds = spec.scheduling.start_timeout_seconds if spec.scheduling else None
    started = parsed(status.start_time)
    if seconds is None or started is None or status.phase not in {"Starting", "Queued", "Pending"}:
        return None
    return started + timedelta(seconds=seconds)
