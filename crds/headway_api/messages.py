"""Messages between a pod's agent and the operator, as JSON.

Three ways lead from a pod to the operator: `join` and `peers` (addresses), `progress` (the
lead's reports) and the termination log (an agent's last words, which reach the operator in
the pod's status even when its endpoint was unreachable).
"""

from __future__ import annotations

from pydantic import Field

from headway_api.base import StatusModel
from headway_api.observations import Observation
from headway_api.trainingjob import FailurePolicy


class Peer(StatusModel):
    """Where the agent of one worker pod can be reached."""

    index: int
    """Stable node rank."""
    uid: str
    """UID of the pod."""
    address: str
    """IP address of the pod."""


class PeersResponse(StatusModel):
    """All pods of the job that have an address now."""

    version: str
    """Changes when anything below changes; sent back as `?after=` to wait for the next."""
    replicas: int
    """Pods that the group should have."""
    peers: list[Peer] = Field(default_factory=list)
    """Those with an address."""


class Directions(StatusModel):
    """What the job wants of its lead, and may want otherwise while it runs."""

    pause_at_step: int | None = None
    """Step after which all ranks save and the pods end."""
    observe: list[str] = Field(default_factory=list)
    """Metrics whose course is reported."""


class JoinResponse(PeersResponse):
    """Answer to an agent that starts."""

    job_key: str
    """Hex key of the job, with which agents authenticate to each other. Never logged."""
    generation: int
    """Highest generation known to the operator; the next one must be larger."""
    restarts_counted: int
    """Restarts that already count against the budget."""
    failure_policy: FailurePolicy
    """The job's failure policy, so that the lead decides by the same rules."""
    directions: Directions = Field(default_factory=Directions)
    """As of now; later ones come with the answers to progress reports."""
    min_replicas: int | None = None
    """Fewest pods with which the group goes on; None if its size is fixed."""
    certificate: str = Field("", repr=False)
    """PEM of private key and certificate with which worker 0 serves the other agents, for the
    name `contract.lead_hostname`; empty for other workers."""


class RestartReport(StatusModel):
    """A restart in place, with its first real culprit."""

    time: str
    """RFC 3339."""
    reason: str
    """`Error`, `OOMKilled`, `Signal`, `Hung`, `PeerLost`, …"""
    worker: int | None = None
    """Index of the worker pod."""
    rank: int | None = None
    """Global rank of the process."""
    exit_code: int | None = None
    """Its exit code (128 + signal number for a signal)."""
    message: str = ""
    """What happened, with the last lines of its log."""
    rule: str | None = None
    """Failure rule that decided."""


class CheckpointReport(StatusModel):
    """The newest committed checkpoint."""

    step: int
    uri: str
    time: str
    seconds: float | None = None
    """What it took, from the step's end until it was committed."""
    metrics: dict[str, str] = Field(default_factory=dict)
    best_step: int | None = None
    best_uri: str | None = None
    best_metric: str | None = None
    best_value: str | None = None


class SilentPeer(StatusModel):
    """A pod from which the lead heard nothing for so long that it gave the connection up."""

    index: int
    """Stable node rank."""
    uid: str
    """UID of the pod."""
    since: str
    """RFC 3339, by the lead's clock: for people."""


class EventReport(StatusModel):
    """Something that a person would want to read in `kubectl describe`."""

    id: str
    """Unique in the session: the operator posts each once."""
    type: str = "Warning"
    reason: str
    message: str


class ProgressReport(StatusModel):
    """What the lead agent reports; every report is complete in itself."""

    session: str
    """Identity of the lead agent's process."""
    number: int = 0
    """Counts a session's reports: they may arrive in another order."""
    attempt: int
    generation: int
    state: str = "Starting"
    """`Waiting` (for peers), `Starting`, `Training`, `Restarting`, `Stopping`, `Done`."""
    message: str = ""
    """Why it waits, for people."""
    step: int | None = None
    total_steps: int | None = None
    epoch: int | None = None
    eta_seconds: int | None = None
    metrics: dict[str, str] = Field(default_factory=dict)
    updated_at: str | None = None
    observations: list[Observation] = Field(default_factory=list)
    """Course of each observed metric in this session."""
    checkpoint: CheckpointReport | None = None
    saves_skipped: int = 0
    """Saves of this session that were due and found no free slot."""
    resumed_from_step: int | None = None
    restored_from: str | None = None
    """Where that state came from: `Memory`, `Peer` or `Storage`."""
    fallback: str | None = None
    """Why newer checkpoints were passed over in that restore; None for a clean one."""
    silent: list[SilentPeer] = Field(default_factory=list)
    """Peers that are silent now. Said again every second for as long as it lasts: each report is
    evidence of its own, and the operator may have been started anew."""
    restarts_total: int = 0
    """Restarts in place of this session."""
    restarts_counted: int = 0
    """Those that count against the budget."""
    last_restart: RestartReport | None = None
    events: list[EventReport] = Field(default_factory=list)
    """The latest few; repeated in every report, posted once by `id`."""


class TerminationReport(StatusModel):
    """Last words of an agent, at most 4096 bytes of JSON in the termination log."""

    reason: str
    """`Done`, `Paused`, `Error`, `OOMKilled`, `Signal`, `Preempted`, `Config`, `Budget`, …"""
    exit_code: int
    """Exit code of the pod."""
    message: str = ""
    culprit: RestartReport | None = None
    """First real culprit, where a worker was to blame."""
    progress: ProgressReport | None = None
    """The lead's final report (without events)."""


class ReportResponse(StatusModel):
    """Answer to a progress report."""

    suspend: bool = False
    """The job is being suspended; pods are about to get SIGTERM."""
    directions: Directions = Field(default_factory=Directions)
    """What the job wants of its lead now."""
