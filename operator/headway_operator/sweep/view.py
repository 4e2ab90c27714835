"""What is known of one Sweep: the whole input of `reconcile`, typed and small."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from headway_api import contract
from headway_api.sweep import SweepSpec, SweepStatus
from headway_operator.settings import Settings
from headway_operator.sweep.trial import Scalar
from headway_operator.sweep.value import Observed, observed
from headway_operator.trainingjob.times import parsed
from headway_operator.trainingjob.view import Obstacle, controller_uid

_SAID = 512
"""Characters of a failure's message that are kept."""


@dataclass(frozen=True)
class Sweep:
    """A Sweep with its spec and status parsed."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    spec: SweepSpec
    status: SweepStatus

    @property
    def seed(self) -> str:
        """What all that is random in this sweep is drawn from."""
        return self.uid if self.spec.seed is None else str(self.spec.seed)


@dataclass(frozen=True, slots=True)
class RunJob:
    """A run's TrainingJob, as far as a sweep needs to know it."""

    name: str
    uid: str
    version: int
    """Its resourceVersion."""
    owner: str
    """UID of its controller; empty without one."""
    index: int
    number: int
    """Which of its configuration's repeats."""
    params: Mapping[str, Scalar]
    attrs: Mapping[str, Any]
    phase: str = "Pending"
    reason: str = ""
    """Why it is in that phase."""
    stopped: str = ""
    """The rule that stopped it, if one did."""
    suspend: bool = False
    pause_at: int | None = None
    """`spec.pauseAtStep`."""
    step: int = 0
    active_since: datetime | None = None
    active_seconds: int = 0
    observed: Mapping[str, Observed] = field(default_factory=dict)
    checkpoint: str = ""
    """Where its newest checkpoint is."""
    made: str = ""
    """When its TrainingJob was created."""
    ended: str = ""
    """When it ended, or came to rest; empty while it is under way."""
    message: str = ""
    """Why it has failed, in a sentence."""
    deleting: bool = False


@dataclass(frozen=True)
class View:
    """All that a decision about one sweep may depend on, except the time."""

    sweep: Sweep
    jobs: tuple[RunJob, ...] = ()
    """The sweep's own, by index and run."""
    records: tuple[RunJob, ...] = ()
    """Ended runs whose TrainingJob may be gone; as they were."""
    exhausted: bool = False
    """Whether the search algorithm has said that there is nothing left to try."""
    obstacle: Obstacle | None = None
    settings: Settings = field(default_factory=Settings)


def parse_sweep(item: Mapping[str, Any]) -> Sweep:
    """A Sweep from its JSON.

    Raises:
        pydantic.ValidationError: it breaks the schema, which the API server keeps out.
    """
    metadata = item["metadata"]
    return Sweep(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        spec=SweepSpec.model_validate(item.get("spec") or {}),
        status=SweepStatus.model_validate(item.get("status") or {}),
    )


def parse_run(item: Mapping[str, Any]) -> RunJob | None:
    """A run from its TrainingJob's JSON; None for a job that has only a run's label."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        index, number = int(labels[contract.LABEL_TRIAL]), int(labels[contract.LABEL_RUN])
        told = json.loads(notes[contract.ANNOTATION_TRIAL])
        params, attrs = dict(told["params"]), dict(told.get("attrs") or {})
    except (KeyError, ValueError, TypeError):
        return None
    return RunJob(
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=controller_uid(item),
        index=index,
        number=number,
        params=params,
        attrs=attrs,
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        stopped=notes.get(contract.ANNOTATION_STOPPED, ""),
        suspend=bool(spec.get("suspend")),
        pause_at=spec.get("pauseAtStep"),
        step=(status.get("progress") or {}).get("step") or 0,
        active_since=parsed(status.get("startTime")),
        active_seconds=status.get("activeSeconds") or 0,
        observed=observed(status.get("observations") or ()),
        checkpoint=(status.get("checkpoint") or {}).get("uri") or "",
        made=metadata.get("creationTimestamp") or "",
        ended=_ended(status),
        message=(status.get("message") or "")[:_SAID] if status.get("phase") == "Failed" else "",
        deleting="deletionTimestamp" in metadata,
    )


def _ended(status: Mapping[str, Any]) -> str:
    if status.get("completionTime"):
        return str(status["completionTime"])
    rests = (
        str(condition.get("lastTransitionTime"))
        for condition in status.get("conditions") or ()
        if condition.get("type") == "Suspended" and condition.get("status") == "True"
    )
    return next(rests, "")


def unmade(name: str, index: int, params: Mapping[str, Scalar], attrs: Mapping[str, Any]) -> RunJob:
    """A run that can't be made of its parameters: it has failed before it began."""
    return RunJob(name, "", 0, "", index, 0, params, attrs, phase="Failed", reason="Refused")
