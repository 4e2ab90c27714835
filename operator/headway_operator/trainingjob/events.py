"""What a person should look at, beside the conditions."""

from __future__ import annotations

from headway_api.messages import ProgressReport
from headway_api.trainingjob import TrainingJobStatus
from headway_operator.trainingjob.conditions import reason_of, state_of
from headway_operator.trainingjob.plan import Event


def transitions(old: TrainingJobStatus, new: TrainingJobStatus) -> tuple[Event, ...]:
    """Events for what changed from one status to the next; none for a healthy life.

    Pauses are part of that: a sweep has thousands of them. So are queues, of which Kueue tells.
    """
    found = []
    before = old.restarts.total if old.restarts else 0
    restarts = new.restarts
    if new.phase == "Restarting" and restarts and restarts.last and restarts.total > before:
        said = f"{restarts.last.message} Restarting; {restarts.counted} restarts count so far."
        found.append(Event("Warning", "Restarting", said, str(restarts.total)))
    if state_of(new, "Failed") == "True":
        found.append(Event("Warning", "Failed", new.message or "", "once"))
    suspends = state_of(new, "Suspended") == "True" and state_of(old, "Suspended") != "True"
    if suspends and reason_of(new, "Suspended") != "Queued" and new.paused_at_step is None:
        found.append(Event("Normal", "Suspended", new.message or "", str(new.attempt or 0)))
    resumes = reason_of(new, "Suspended") == "Resumed" != reason_of(old, "Suspended")
    if resumes and reason_of(old, "Suspended") != "Queued" and old.paused_at_step is None:
        found.append(Event("Normal", "Resumed", "The job goes on.", str(new.attempt or 0)))
    if state_of(new, "Stalled") == "True" and state_of(old, "Stalled") != "True":
        count = f"{new.observed_generation}/{reason_of(new, 'Stalled')}"
        found.append(Event("Warning", "Stalled", new.message or "", count))
    return tuple(found)


def reported(report: ProgressReport | None) -> tuple[Event, ...]:
    """Events that the lead agent wants posted."""
    if report is None:
        return ()
    return tuple(
        Event(
            "Normal" if event.type == "Normal" else "Warning",
            event.reason,
            event.message,
            f"{report.session}/{event.id}",
        )
        for event in report.events
    )
