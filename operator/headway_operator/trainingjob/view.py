"""What is known of one TrainingJob: the whole input of `reconcile`, typed and small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from headway_api import contract
from headway_api.messages import ProgressReport, TerminationReport
from headway_api.runtime import TrainingRuntimeSpec
from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.settings import Settings
from headway_operator.trainingjob.times import parsed
from headway_operator.trainingjob.workload import Flavor, Workload

OPERATOR_NAME = "headway.dev/operator"
"""The value of `spec.managedBy` that means us."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A worker pod, as far as anybody here needs to know it."""

    name: str
    uid: str
    version: int
    """Its resourceVersion."""
    owner: str
    """UID of its controller; empty without one."""
    index: int
    attempt: int
    spec_hash: str
    phase: str
    """`Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`."""
    created: datetime
    ready: bool = False
    node: str = ""
    address: str = ""
    """Where its agent is reached: its IP, or what local mode uses instead."""
    started: datetime | None = None
    finished: datetime | None = None
    exit_code: int | None = None
    terminated_reason: str = ""
    """The container's own, such as `OOMKilled`."""
    status_reason: str = ""
    """The pod's own, such as `Evicted`."""
    message: str = ""
    report: TerminationReport | None = None
    """The agent's last words, where it could say them."""
    disruption: str = ""
    """Reason of a `DisruptionTarget` condition that is True."""
    waiting: str = ""
    """Why it does not run yet, in a sentence."""
    gated: bool = False
    """Whether a scheduling gate holds it."""
    deleting: datetime | None = None
    """Its deletion timestamp: when its node should have ended it."""
    grace: int | None = None
    """Its termination grace period in seconds."""
    avoids: tuple[str, ...] = ()
    """Nodes that it was made to keep away from."""
    removal: Literal["", "asked", "forced"] = ""
    """What we asked the API server for and have not seen the effect of yet."""

    @property
    def ended(self) -> bool:
        """Whether its container will never run again."""
        return self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True)
class Job:
    """A TrainingJob with its spec and status parsed."""

    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    spec: TrainingJobSpec
    status: TrainingJobStatus


@dataclass(frozen=True)
class Obstacle:
    """Why the API server did not make a child.

    `Refused` is for the user to mend, and nothing is tried until something changes. `Forbidden`
    (a quota, a policy) may pass: it is tried again, ever more slowly.
    """

    kind: Literal["Refused", "Forbidden"]
    message: str


@dataclass(frozen=True)
class View:
    """All that a decision about one job may depend on, except the time."""

    job: Job
    pods: tuple[Pod, ...] = ()
    """The job's own pods, by index."""
    namesakes: tuple[Pod, ...] = ()
    """Pods that an earlier job of this name has left: garbage collection takes them away."""
    runtime: TrainingRuntimeSpec | None = None
    """The runtime that the job refers to, as it is now."""
    progress: ProgressReport | None = None
    """The latest report of the lead agent."""
    lost_nodes: frozenset[str] = frozenset()
    """Those of all these pods' nodes whose kubelet is silent."""
    silent: frozenset[str] = frozenset()
    """UIDs of pods that their peers no longer hear, and that say nothing to the endpoint."""
    workload: Workload | None = None
    """What the job has asked Kueue for."""
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    """Kueue's ResourceFlavors."""
    obstacle: Obstacle | None = None
    settings: Settings = field(default_factory=Settings)


def parse_job(item: Mapping[str, Any]) -> Job:
    """A TrainingJob from its JSON.

    Raises:
        pydantic.ValidationError: it breaks the schema, which the API server keeps out.
    """
    metadata = item["metadata"]
    return Job(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        resource_version=metadata["resourceVersion"],
        deleting="deletionTimestamp" in metadata,
        spec=TrainingJobSpec.model_validate(item.get("spec") or {}),
        status=TrainingJobStatus.model_validate(item.get("status") or {}),
    )


def parse_pod(item: Mapping[str, Any]) -> Pod:
    """A pod from its JSON; what is missing or odd in it is left empty."""
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    state = _container(status).get("state") or {}
    ended = state.get("terminated") or {}
    phase = status.get("phase") or "Pending"
    said = ended.get("message") or status.get("message") or ""
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        owner=controller_uid(item),
        index=_number(labels.get(contract.LABEL_INDEX), -1),
        attempt=_number(labels.get(contract.LABEL_ATTEMPT), 0),
        spec_hash=annotations.get(contract.ANNOTATION_SPEC_HASH, ""),
        phase=phase,
        created=datetime.fromisoformat(metadata["creationTimestamp"]),
        ready=phase == "Running" and _true(conditions, "Ready"),
        node=spec.get("nodeName") or "",
        address=annotations.get(contract.ANNOTATION_AGENT_ADDRESS) or status.get("podIP") or "",
        started=parsed(ended.get("startedAt") or (state.get("running") or {}).get("startedAt")),
        finished=parsed(ended.get("finishedAt")),
        exit_code=ended.get("exitCode"),
        terminated_reason=ended.get("reason") or "",
        status_reason=status.get("reason") or "",
        message=said[:4096],
        report=_last_words(said),
        disruption=_reason(conditions, "DisruptionTarget"),
        waiting=_why_waiting(conditions, state),
        gated=(conditions.get("PodScheduled") or {}).get("reason") == "SchedulingGated",
        deleting=parsed(metadata.get("deletionTimestamp")),
        grace=spec.get("terminationGracePeriodSeconds"),
        avoids=tuple(filter(None, annotations.get(contract.ANNOTATION_AVOIDS, "").split(","))),
    )


def final_report(item: Mapping[str, Any]) -> ProgressReport | None:
    """What the lead reported last, from the JSON of its pod; None for any other pod."""
    if (item["metadata"].get("labels") or {}).get(contract.LABEL_INDEX) != "0":
        return None
    ended = (_container(item.get("status") or {}).get("state") or {}).get("terminated") or {}
    words = _last_words(ended.get("message") or "")
    return None if words is None else words.progress


def controller_uid(item: Mapping[str, Any]) -> str:
    """UID of the object that controls this one; empty without one."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return str(owner["uid"])
    return ""


def _container(status: Mapping[str, Any]) -> Mapping[str, Any]:
    for container in status.get("containerStatuses") or ():
        if container.get("name") == contract.CONTAINER:
            found: Mapping[str, Any] = container
            return found
    return {}


def _last_words(text: str) -> TerminationReport | None:
    """The agent's report, or None for anything else: a log's tail, half a report, nothing."""
    if not text.startswith("{"):
        return None
    try:
        return TerminationReport.model_validate_json(text)
    except ValidationError:
        return None


def _why_waiting(conditions: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        return f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"[:1024]
    held = state.get("waiting") or {}
    if held.get("reason") in {None, "ContainerCreating", "PodInitializing"}:
        return ""
    return f"{held['reason']}: {held.get('message', '')}"[:1024]


def _true(conditions: Mapping[str, Any], name: str) -> bool:
    return bool((conditions.get(name) or {}).get("status") == "True")


def _reason(conditions: Mapping[str, Any], name: str) -> str:
    return str(conditions[name].get("reason") or "") if _true(conditions, name) else ""


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
