"""What is to be done about one Sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headway_api.sweep import SweepStatus
from headway_operator.sweep.trial import Scalar
from headway_operator.sweep.view import RunJob
from headway_operator.trainingjob.plan import Event


@dataclass(frozen=True)
class Patch:
    """A change of a trial's TrainingJob, as a JSON merge patch; only of this very one."""

    name: str
    uid: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class New:
    """A configuration that is to be chosen and made.

    Attributes:
        index: its number.
        until: the step at which it first pauses; None for never.
    """

    index: int
    until: int | None = None


@dataclass(frozen=True)
class Plan:
    """Writes in the order in which they are safe, and when to look again.

    Trials are made one after the other in the order of their numbers, so that those that a crash
    leaves out are the last ones. Records are written before what they are of is deleted.
    """

    create: tuple[dict[str, Any], ...] = ()
    """TrainingJobs whose configuration is known."""
    patch: tuple[Patch, ...] = ()
    new: tuple[New, ...] = ()
    """Configurations to choose: the one slow thing, done outside."""
    record: tuple[RunJob, ...] = ()
    delete: tuple[RunJob, ...] = ()
    status: SweepStatus | None = None
    """The status as it should be; None where it may stay as it is."""
    urgent: bool = True
    delete_sweep: bool = False
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None
    """Seconds after which to look again, even if nothing happens."""


NOTHING = Plan()


@dataclass(frozen=True)
class Chosen:
    """A configuration, as a search algorithm has chosen it."""

    params: Mapping[str, Scalar]
    attrs: Mapping[str, Any]
