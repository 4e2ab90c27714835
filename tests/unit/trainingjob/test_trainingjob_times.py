"""Deadlines, start time-outs and TTLs: when, to the second."""

from datetime import datetime
from typing import Any

import pytest
from job_views import NOW, a_job, at, stamp

from headway_api.trainingjob import TrainingJobStatus
from headway_operator.trainingjob.deadline import active_seconds, deadline, start_limit
from headway_operator.trainingjob.ttl import expires_at


def status(**fields: Any) -> TrainingJobStatus:
    return TrainingJobStatus.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0),
        ({"startTime": stamp(-90)}, 90),
        ({"startTime": stamp(-90), "activeSeconds": 30}, 120),
        ({"activeSeconds": 30}, 30),
        ({"startTime": stamp(90)}, 0),  # another node's clock
    ],
)
def test_active_time_adds_up_and_suspended_time_is_free(
    fields: dict[str, Any], seconds: int
) -> None:
    assert active_seconds(status(**fields), NOW) == seconds


@pytest.mark.parametrize(
    ("limit", "fields", "due"),
    [
        (None, {"startTime": stamp()}, None),
        (100, {}, None),
        (100, {"startTime": stamp()}, at(100)),
        (100, {"startTime": stamp(), "activeSeconds": 30}, at(70)),
        (100, {"activeSeconds": 30}, None),
    ],
)
def test_the_deadline_counts_active_time(
    limit: int | None, fields: dict[str, Any], due: datetime | None
) -> None:
    assert deadline(a_job(activeDeadlineSeconds=limit).spec, status(**fields)) == due


@pytest.mark.parametrize(
    ("phase", "limited"),
    [
        ("Pending", True),
        ("Queued", True),
        ("Starting", True),
        ("Running", False),
        ("Restarting", False),
        ("Suspended", False),
    ],
)
def test_a_start_time_out_is_for_groups_that_have_not_run(phase: str, limited: bool) -> None:
    spec = a_job(scheduling={"startTimeoutSeconds": 60}).spec
    found = start_limit(spec, status(phase=phase, startTime=stamp()))
    assert found == (at(60) if limited else None)


@pytest.mark.parametrize(
    ("ttl", "completed", "due"),
    [(None, True, None), (0, True, NOW), (60, True, at(60)), (60, False, None)],
)
def test_a_finished_job_expires(ttl: int | None, completed: bool, due: datetime | None) -> None:
    ended = status(completionTime=stamp()) if completed else status()
    assert expires_at(a_job(ttlSecondsAfterFinished=ttl).spec, ended) == due
