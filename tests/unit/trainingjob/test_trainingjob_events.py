"""What a person should look at; nothing for a healthy life."""

from typing import Any

import pytest
from job_views import a_report, condition, running

from headway_api.trainingjob import TrainingJobStatus
from headway_operator.trainingjob.events import reported, transitions


def status(**fields: Any) -> TrainingJobStatus:
    return TrainingJobStatus.model_validate(running(**fields))


STARTING = {"phase": "Starting", "conditions": [condition("Running", "False", "Starting")]}
DONE = {"phase": "Succeeded", "conditions": [condition("Succeeded", "True", "Succeeded")]}
LAST = {"time": "2026-01-01T00:00:00Z", "reason": "Error", "message": "Worker 1 ended."}
RESTARTING = {"phase": "Restarting", "restarts": {"total": 3, "counted": 2, "last": LAST}}
FAILED = {"message": "m", "conditions": [condition("Failed", "True", "Error")]}
SUSPENDED = {"message": "m", "conditions": [condition("Suspended", "True", "Suspended")]}
QUEUED = {"message": "m", "conditions": [condition("Suspended", "True", "Queued")]}
SUSPENDING = {"conditions": [condition("Suspended", "False", "Suspending")]}
RESUMED = {"attempt": 2, "conditions": [condition("Suspended", "False", "Resumed")]}
STALLED = {"message": "m", "conditions": [condition("Stalled", "True", "UnknownPool")]}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"phase": None, "conditions": []}, STARTING, []),
        (STARTING, {}, []),
        ({}, DONE, []),
        ({}, RESTARTING, [("Warning", "Restarting", "3")]),
        (RESTARTING, RESTARTING, []),
        ({}, FAILED, [("Warning", "Failed", "once")]),
        ({}, SUSPENDING, []),
        (SUSPENDING, SUSPENDED, [("Normal", "Suspended", "1")]),
        (SUSPENDED, SUSPENDED, []),
        (SUSPENDED, RESUMED, [("Normal", "Resumed", "2")]),
        ({}, QUEUED, []),
        (QUEUED, RESUMED, []),
        ({}, STALLED, [("Warning", "Stalled", "1/UnknownPool")]),
        (STALLED, STALLED, []),
    ],
)
def test_each_change_that_matters_is_told_once(
    old: dict[str, Any], new: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    events = transitions(status(**old), status(**new))
    assert [(event.type, event.reason, event.count) for event in events] == expected


def test_the_leads_events_are_told_apart_by_session_and_id() -> None:
    told = {"id": "7", "type": "Odd", "reason": "CheckpointFallback", "message": "m"}
    (event,) = reported(a_report(session="s", events=[told]))
    assert (event.type, event.count) == ("Warning", "s/7")
    assert reported(None) == ()
