"""When a finished job is deleted."""

from __future__ import annotations

from datetime import datetime, timedelta

from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.trainingjob.times import parsed


def expires_at(spec: TrainingJobSpec, status: TrainingJobStatus) -> datetime | None:
    """When a finished job has been kept for long enough; None for never."""
    finished = parsed(status.completion_time)
    if spec.ttl_seconds_after_finished is None or finished is None:
        return None
    return finished + timedelta(seconds=spec.ttl_seconds_after_finished)
