"""TrainingJob: a group of worker pods that train one model together."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from headway_api.base import (
    ApiModel,
    Condition,
    Decimal,
    Immutable,
    ListType,
    Name,
    PreserveUnknown,
    Rule,
    ShortText,
    StatusModel,
    SubdomainName,
    Text,
    Timestamp,
)
from headway_api.horovod import Horovod
from headway_api.observations import Metric, Observation
from headway_api.pod import LocalObjectReference, PodOptions, Resources

Framework = Literal["PyTorch", "Horovod"]
Phase = Literal[
    "Pending", "Queued", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"
]
Command = Annotated[
    list[Annotated[str, Field(max_length=32768)]],
    ListType("atomic"),
    Field(min_length=1, max_length=256),
]
Modules = Annotated[
    list[
        Annotated[
            str,
            Field(max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"),
        ]
    ],
    ListType("atomic"),
    Field(min_length=1, max_length=64),
]
Parameters = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=128)]
Uri = Annotated[
    str,
    Field(max_length=1024, pattern=r"^((s3|gs|az|abfs|file)://.+|/.*)$"),
]


class RuntimeReference(ApiModel):
    """Which base a job is merged over."""

    name: SubdomainName
    """Name of the runtime."""
    kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = "ClusterTrainingRuntime"
    """`TrainingRuntime` (in the job's namespace) or `ClusterTrainingRuntime`."""


class Elastic(ApiModel):
    """Between which sizes the group may grow and shrink."""

    min_replicas: Annotated[int, Field(ge=1, le=4096)]
    """Fewest pods with which training goes on."""
    max_replicas: Annotated[int, Field(ge=1, le=4096)]
    """Most pods that the group grows to."""

    cel: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be larger than maxReplicas",
            ".minReplicas",
        ),
    )


class Workers(ApiModel):
    """The group of worker pods."""

    replicas: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of pods (nodes, in torchrun's words)."""
    processes_per_worker: Annotated[int, Field(ge=1, le=64)] = 1
    """Worker processes (ranks) in each pod: usually one per GPU."""
    elastic: Elastic | None = None
    """Lets the group grow and shrink while it runs."""
    resources: Resources | None = None
    """What each pod asks for, without GPUs (those come from `gpu`)."""

    cel: ClassVar = (
        Rule(
            "!has(self.elastic) || (self.replicas >= self.elastic.minReplicas"
            " && self.replicas <= self.elastic.maxReplicas)",
            "replicas must lie between elastic.minReplicas and elastic.maxReplicas",
            ".replicas",
        ),
    )


class Gpu(ApiModel):
    """Which GPUs each pod gets."""

    pools: Annotated[list[Name], ListType("atomic"), Field(min_length=1, max_length=16)]
    """GPU pools by preference. Pools are the operator's configuration (Helm values `pools`)."""
    per_worker: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs for each pod."""


class Storage(ApiModel):
    """Where checkpoints and history are kept."""

    uri: Uri
    """`s3://bucket/prefix`, `gs://…`, `az://…`, or a path that all pods share."""
    endpoint: Annotated[str, Field(max_length=512, pattern=r"^https?://.+$")] | None = None
    """URL of an S3-compatible server; empty for the provider's own."""
    region: Annotated[str, Field(max_length=64)] | None = None
    """Region of the bucket."""
    secret_ref: LocalObjectReference | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the provider's own names)."""


class KeepBest(ApiModel):
    """Checkpoints kept for their metric, beside the last ones."""

    metric: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of a reported metric, e.g. `val_loss`."""
    mode: Literal["min", "max"] = "min"
    """Whether small or large values are good."""
    count: Annotated[int, Field(ge=1, le=100)] = 1
    """How many are kept."""


class Checkpoint(ApiModel):
    """When checkpoints are taken, and which are kept."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    """Take a checkpoint each time this many steps are done."""
    every_seconds: Annotated[int, Field(ge=1)] | None = None
    """Take a checkpoint when this many seconds have passed since the last (default 300);
    `everySteps` goes before it."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many of the newest checkpoints are kept."""
    keep_best: KeepBest | None = None
    """Keeps the best checkpoints by a metric too."""
    resume_from: Uri | None = None
    """A job's folder in storage, or one checkpoint in it, to start from."""


class FailureRule(ApiModel):
    """What to do about one kind of failure."""

    name: Name
    """Name of the rule; it appears in status and Events."""
    action: Literal["Fail", "Restart", "RestartWithoutCounting"]
    """`Fail` ends the job; `Restart` restarts the group; `RestartWithoutCounting` does so
    without using up `maxRestarts`."""
    on_exit_codes: (
        Annotated[
            list[Annotated[int, Field(ge=1, le=255)]],
            ListType("set"),
            Field(min_length=1, max_length=64),
        ]
        | None
    ) = None
    """Exit codes of a worker process or pod (128 + signal number for a signal)."""
    on_reasons: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=64)]],
            ListType("set"),
            Field(min_length=1, max_length=16),
        ]
        | None
    ) = None
    """Reasons such as `OOMKilled`, `Evicted`, `NodeLost`, `PodDeleted`, `Hung`, `Error`."""

    cel: ClassVar = (
        Rule(
            "has(self.onExitCodes) || has(self.onReasons)",
            "a failure rule needs onExitCodes or onReasons to match on",
        ),
    )


class FailurePolicy(ApiModel):
    """How often, and after what, the group is restarted."""

    max_restarts: Annotated[int, Field(ge=0, le=10000)] = 10
    """Restarts that count before the job fails. The count is kept in the job's status."""
    progress_deadline_seconds: Annotated[int, Field(ge=10, le=31536000)] = 1800
    """Workers of a script that reports steps, and makes none for so many seconds, are taken for
    hung: their stacks go to the log and the group restarts, with reason `Hung`. Longer than the
    longest pause between two steps: an evaluation, a compilation."""
    rules: Annotated[list[FailureRule], ListType("map", ("name",)), Field(max_length=32)] | None = (
        None
    )
    """Rules in order: the first that matches decides."""


class Scheduling(ApiModel):
    """How the group gets its nodes."""

    gang: Literal["Auto", "None"] = "Auto"
    """Whether pods are scheduled all together or not at all, where the cluster can."""
    queue_name: Name | None = None
    """Local queue of Kueue."""
    priority_class_name: SubdomainName | None = None
    """Priority class of the pods."""
    start_timeout_seconds: Annotated[int, Field(ge=1, le=604800)] | None = None
    """Fails the job when the group is not running after this many seconds."""


class ModelOutput(ApiModel):
    """The model version that a succeeded job registers."""

    name: Name
    """Name of the Model."""
    from_: Literal["Best", "Last"] = Field(default="Last", alias="from")
    """Which checkpoint becomes the version."""


class Network(ApiModel):
    """Networking of the group."""

    service: bool = False
    """Makes a headless Service, for scripts that want host names."""


class Observe(ApiModel):
    """Metrics whose whole course matters."""

    metrics: Annotated[list[Metric], ListType("set"), Field(min_length=1, max_length=8)]
    """Names of reported metrics, e.g. `val_loss`: their course is in `status.observations`."""


class RuntimeSpec(ApiModel):
    """What a runtime may give, and a job may override."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Container image with Headway's runtime in it."""
    command: Command | None = None
    """Command of each worker process, e.g. `[python, train.py]`; `${params.x}` is replaced."""
    parameters: Parameters | None = None
    """Parameters of the run: HEADWAY_PARAM_<NAME> in the environment, `${params.<name>}` in
    the command."""
    preload: Modules | None = None
    """Modules that the pod imports once, before worker processes are forked from it, so that
    restarts don't import them again, e.g. `[transformers]`. For a script that uses torch, torch is
    among them anyway."""
    gpu: Gpu | None = None
    """GPUs of each pod; none when unset."""
    pod: PodOptions | None = None
    """Further settings of the pods."""
    storage: Storage | None = None
    """Where checkpoints and history go. Without it nothing is kept."""
    checkpoint: Checkpoint | None = None
    """When checkpoints are taken and which are kept."""
    failure_policy: FailurePolicy | None = None
    """How failures are met."""
    scheduling: Scheduling | None = None
    """How the group gets its nodes."""
    network: Network | None = None
    """Networking of the group."""
    horovod: Horovod | None = None
    """Settings of Horovod, for `framework: Horovod`. What is unset is Horovod's own default;
    variables of `pod.env` go before them."""


class TrainingJobSpec(RuntimeSpec):
    """What should run."""

    framework: Annotated[Framework, Immutable("framework can't change")] = "PyTorch"
    """`PyTorch` (DDP, FSDP or any torch.distributed script) or `Horovod`."""
    runtime_ref: (
        Annotated[RuntimeReference, Immutable("runtimeRef can't change: it is read once")] | None
    ) = None
    """A reusable base; this job's own fields win over it. Read once, at the first reconcile."""
    workers: Workers = Workers()
    """The group of worker pods."""
    model: ModelOutput | None = None
    """Registers a ModelVersion when the job succeeds."""
    suspend: bool = False
    """Takes a checkpoint and gives up all pods while true."""
    pause_at_step: Annotated[int, Field(ge=1)] | None = None
    """Takes a checkpoint after this optimizer step and gives up all pods; raise it or remove it to
    go on."""
    observe: Observe | None = None
    """Metrics whose best, last and course are kept in the status."""
    active_deadline_seconds: Annotated[int, Field(ge=1)] | None = None
    """Fails the job when it has been active for this long, in seconds; suspended time is free."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Deletes the job this many seconds after it has finished."""
    managed_by: (
        Annotated[
            str,
            Field(min_length=1, max_length=63),
            Immutable("managedBy can't change"),
        ]
        | None
    ) = None
    """Another controller that takes care of this job; Headway then leaves it alone."""

    cel: ClassVar = (
        Rule(
            "has(self.image) || has(self.runtimeRef)",
            "set image, or runtimeRef to a runtime that gives one",
            ".image",
        ),
        Rule(
            "has(self.command) || has(self.runtimeRef)",
            "set command, e.g. [python, train.py], or runtimeRef to a runtime that gives one",
            ".command",
        ),
        Rule(
            "has(self.runtimeRef) || !has(self.checkpoint) || has(self.storage)",
            "checkpoint needs storage.uri: where are the checkpoints to be kept?",
            ".storage.uri",
        ),
        Rule(
            "has(self.runtimeRef) || !has(self.model) || has(self.storage)",
            "model needs storage.uri: a version is made from a checkpoint",
            ".storage.uri",
        ),
        Rule(
            "has(self.runtimeRef) || !has(self.pauseAtStep) || has(self.storage)",
            "pauseAtStep needs storage.uri: where is the checkpoint to be kept?",
            ".storage.uri",
        ),
        Rule(
            "!has(self.horovod) || self.framework == 'Horovod'",
            "horovod is for framework: Horovod: set that, or remove horovod",
            ".horovod",
        ),
        Rule(
            "has(self.runtimeRef) || has(self.storage) || !has(self.horovod)"
            " || !((has(self.horovod.timeline) && self.horovod.timeline.enabled)"
            " || (has(self.horovod.autotune) && self.horovod.autotune.enabled"
            " && self.horovod.autotune.log))",
            "horovod.timeline and horovod.autotune.log need storage.uri: where are they kept?",
            ".storage.uri",
        ),
        Rule(
            "has(self.runtimeRef) == has(oldSelf.runtimeRef)",
            "runtimeRef can't change: it is read once",
            ".runtimeRef",
        ),
        Rule(
            "has(self.managedBy) == has(oldSelf.managedBy)",
            "managedBy can't change",
            ".managedBy",
        ),
        Rule(
            "has(self.storage) == has(oldSelf.storage)"
            " && (!has(self.storage) || self.storage.uri == oldSelf.storage.uri)",
            "storage.uri can't change: the checkpoints are there; make a new job with resumeFrom",
            ".storage.uri",
        ),
        Rule(
            "self.suspend || oldSelf.suspend || has(self.workers.elastic)"
            " || self.workers.replicas == oldSelf.workers.replicas",
            "workers.replicas can change only while the job is suspended, or with workers.elastic",
            ".workers.replicas",
        ),
        Rule(
            "self.suspend || oldSelf.suspend"
            " || (self.workers.processesPerWorker == oldSelf.workers.processesPerWorker"
            " && has(self.image) == has(oldSelf.image)"
            " && (!has(self.image) || self.image == oldSelf.image)"
            " && has(self.command) == has(oldSelf.command)"
            " && (!has(self.command) || self.command == oldSelf.command)"
            " && has(self.parameters) == has(oldSelf.parameters)"
            " && (!has(self.parameters) || self.parameters == oldSelf.parameters))",
            "image, command, parameters and processesPerWorker can change only while suspended:"
            " set suspend: true first",
        ),
    )


class WorkerCounts(StatusModel):
    """How many worker pods are in which state."""

    desired: int = 0
    """Pods that should be there."""
    ready: int = 0
    """Pods of the current attempt whose container runs and is ready."""
    active: int = 0
    """Pods that exist and have not ended."""
    succeeded: int = 0
    """Pods that ended well."""
    failed: int = 0
    """Pods that failed."""


class LastRestart(StatusModel):
    """The latest restart, with its first real culprit."""

    time: Timestamp
    """When the restart was decided."""
    reason: ShortText
    """`Error`, `OOMKilled`, `Hung`, `Evicted`, `NodeLost`, `PodDeleted`, `Preempted`, …"""
    worker: int | None = None
    """Index of the worker pod."""
    rank: int | None = None
    """Global rank of the worker process, where one was to blame."""
    exit_code: int | None = None
    """Exit code of the process (128 + signal number for a signal)."""
    message: Text = ""
    """What happened, with the last lines of the log."""
    rule: ShortText | None = None
    """Failure rule that decided."""


class LeadRestarts(StatusModel):
    """Restarts in place that the lead agent reported, so that each is counted once."""

    session: Annotated[str, Field(max_length=64)]
    """Identity of the agent process that counted."""
    total: int = 0
    """Restarts in place of that session, already part of `restarts.total`."""
    counted: int = 0
    """Those of them that are part of `restarts.counted`."""


class SilentNode(StatusModel):
    """A node on which a pod fell silent, before Kubernetes found anything wrong with it."""

    name: Annotated[str, Field(max_length=253)]
    """Its name."""
    time: Timestamp
    """When the pod was given up."""


class Restarts(StatusModel):
    """Restarts of the group so far. Kept here, so that deleting pods never resets them."""

    total: int = 0
    """All restarts, in place or by new pods."""
    counted: int = 0
    """Those that count against `failurePolicy.maxRestarts`."""
    last: LastRestart | None = None
    """The latest."""
    lead: LeadRestarts | None = None
    """What has been taken over from the lead agent's own count."""
    handled_pods: (
        Annotated[
            list[Annotated[str, Field(max_length=64)]], ListType("set"), Field(max_length=4096)
        ]
        | None
    ) = None
    """UIDs of lost pods that are already part of the counts and still exist."""
    silent_nodes: Annotated[list[SilentNode], ListType("atomic"), Field(max_length=64)] | None = (
        None
    )
    """Nodes that pods made within the next minute keep away from: by then Kubernetes itself has
    noticed, or the node is well."""


class ProgressStatus(StatusModel):
    """Training progress as last written; at most every 10 s."""

    step: int | None = None
    """Optimizer steps done."""
    total_steps: int | None = None
    """Steps to do, if known."""
    epoch: int | None = None
    """Epoch, from 0."""
    percent: int | None = None
    """Share done, 0 to 100."""
    eta_seconds: int | None = None
    """Estimated time left, in seconds."""
    metrics: Annotated[dict[str, Decimal], Field(max_length=64)] | None = None
    """Latest metrics, as decimal strings."""
    updated_at: Timestamp | None = None
    """When the pod reported this."""


class BestCheckpoint(StatusModel):
    """The best checkpoint by `checkpoint.keepBest`."""

    step: int
    """Its step."""
    uri: Annotated[str, Field(max_length=2048)]
    """Where it is."""
    metric: ShortText
    """Name of the metric."""
    value: Decimal
    """Value of the metric."""


class CheckpointStatus(StatusModel):
    """The newest committed checkpoint."""

    step: int | None = None
    """Its step."""
    uri: Annotated[str, Field(max_length=2048)] | None = None
    """Where it is."""
    time: Timestamp | None = None
    """When it was committed."""
    seconds: int | None = None
    """Seconds from the step's end until it was committed, rounded up. Pods get three times as
    long to save their state on SIGTERM, unless `pod.terminationGracePeriodSeconds` is set."""
    skipped: int | None = None
    """Saves that were due and left out since the lead's pod began, because the ones before were
    still being uploaded."""
    resumed_from_step: int | None = None
    """Step from which the current generation went on."""
    restored_from: Annotated[str, Field(max_length=64)] | None = None
    """Where that state came from: `Memory` (of the pods themselves), `Peer` (of another pod) or
    `Storage`."""
    fallback: Annotated[str, Field(max_length=1024)] | None = None
    """Why newer checkpoints were passed over then; empty when the newest one was good."""
    best: BestCheckpoint | None = None
    """The best by metric."""


class TrainingJobStatus(StatusModel):
    """What is the case. Only the operator writes here."""

    conditions: (
        Annotated[list[Condition], ListType("map", ("type",)), Field(max_length=16)] | None
    ) = None
    """`Running`, `Suspended`, `Succeeded`, `Failed`, `Stalled`, `Reconciling`; see
    docs/concepts/status.md for exactly when each is true."""
    observed_generation: int | None = None
    """`metadata.generation` that this status was computed from."""
    phase: Phase | None = None
    """One word for people; programs read the conditions."""
    reason: ShortText | None = None
    """Why it is in this phase, one CamelCase word."""
    message: Text | None = None
    """The same in a sentence."""
    start_time: Timestamp | None = None
    """When the job first got pods; moves on resume from suspend."""
    completion_time: Timestamp | None = None
    """When it finished."""
    active_seconds: int | None = None
    """Active time before the latest suspension, for `activeDeadlineSeconds`, in seconds."""
    paused_at_step: int | None = None
    """Step after which the job has paused, or is pausing, for `pauseAtStep`."""
    attempt: int | None = None
    """Number of the group of pods: grows each time all pods are replaced."""
    generation: int | None = None
    """Generation of the worker group: grows at each start of the ranks, in place or not."""
    workers: WorkerCounts | None = None
    """Pods by state."""
    ready: Annotated[str, Field(max_length=32)] | None = None
    """`ready/desired`, for `kubectl get`."""
    restarts: Restarts | None = None
    """Restarts so far."""
    progress: ProgressStatus | None = None
    """Training progress."""
    observations: (
        Annotated[list[Observation], ListType("map", ("metric",)), Field(max_length=8)] | None
    ) = None
    """Course of each metric of `observe`; at most 10 s behind, and complete at the end."""
    checkpoint: CheckpointStatus | None = None
    """The newest checkpoint."""
    runtime: Annotated[dict[str, Any], PreserveUnknown()] | None = None
    """Snapshot of the runtime's spec, taken at the first reconcile."""
