"""What is to be done about one TrainingJob."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from headway_api.trainingjob import TrainingJobStatus


@dataclass(frozen=True)
class Deletion:
    """A pod to delete: only this very one, and with this grace (None: its own)."""

    name: str
    uid: str
    grace_seconds: int | None = None


@dataclass(frozen=True)
class Event:
    """Something that a person should look at."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    count: str
    """Which one of this reason: the same happening has the same count, so it is posted once."""


@dataclass(frozen=True)
class QueueStep:
    """A write to the job's Workload: to make it, delete it, or patch its status."""

    verb: Literal["make", "drop", "tell"]
    name: str
    uid: str = ""
    body: dict[str, Any] | None = None


@dataclass(frozen=True)
class Plan:
    """Writes in the order in which they are safe, and when to look again.

    With `status_first`, what was decided is remembered before it is acted upon: status, deletions,
    creations. Otherwise creations come first, so that pods exist soon: making one twice is
    harmless, as its name is taken.
    """

    create: tuple[dict[str, Any], ...] = ()
    delete: tuple[Deletion, ...] = ()
    queue: QueueStep | None = None
    """What to write to Kueue: a new Workload first of all, anything else last."""
    status: TrainingJobStatus | None = None
    """The status as it should be; None where it may stay as it is."""
    urgent: bool = True
    """Whether the status is written now. Otherwise it may wait, and ride along with the next."""
    status_first: bool = False
    delete_job: bool = False
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, even if nothing happens."""


NOTHING = Plan()
