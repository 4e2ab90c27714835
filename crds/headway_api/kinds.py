"""Every kind of the API: what the CRD generator, the docs and the local API server read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from headway_api.base import ApiModel, Rule, StatusModel
from headway_api.contract import MAX_JOB_NAME, MAX_SWEEP_NAME
from headway_api.runtime import TrainingRuntimeSpec
from headway_api.sweep import SweepRecordSpec, SweepSpec, SweepStatus
from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus


@dataclass(frozen=True)
class Column:
    """A column of `kubectl get`; priority 1 shows it with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind: its names, its models, and what `kubectl` shows of it."""

    kind: str
    plural: str
    description: str
    """What `kubectl explain` says of the kind."""
    spec: type[ApiModel]
    status: type[StatusModel] | None = None
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    columns: tuple[Column, ...] = ()
    rules: tuple[Rule, ...] = field(default=())
    """Rules over the whole object, e.g. its name."""

    @property
    def singular(self) -> str:
        """Lower-case singular name."""
        return self.kind.lower()


def name_rules(longest: int, why: str) -> tuple[Rule, ...]:
    """Rules for a name that our children's names and host names are made from."""
    return (
        Rule(
            f"self.metadata.name.size() <= {longest}",
            f"must have at most {longest} characters: {why}",
            ".metadata.name",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "must be lower case letters, digits and '-', and begin with a letter",
            ".metadata.name",
        ),
    )


AGE = Column("Age", ".metadata.creationTimestamp", "date", description="Time since creation.")

TRAINING_JOB = Kind(
    kind="TrainingJob",
    plural="trainingjobs",
    description="A group of worker pods that train one model together.",
    short_names=("tj",),
    spec=TrainingJobSpec,
    status=TrainingJobStatus,
    rules=name_rules(MAX_JOB_NAME, "names of its pods are made from it"),
    columns=(
        Column("Phase", ".status.phase", description="What the job is doing."),
        Column("Ready", ".status.ready", description="Ready pods of those desired."),
        Column("Restarts", ".status.restarts.total", "integer", description="Restarts so far."),
        Column("Step", ".status.progress.step", "integer", description="Optimizer steps done."),
        Column("Progress", ".status.progress.percent", "integer", description="Percent done."),
        AGE,
        Column("Reason", ".status.reason", priority=1, description="Why it is in this phase."),
        Column("ETA", ".status.progress.etaSeconds", "integer", 1, "Estimated seconds left."),
        Column("Checkpoint", ".status.checkpoint.step", "integer", 1, "Newest checkpoint's step."),
        Column("Message", ".status.message", priority=1, description="The reason in a sentence."),
    ),
)

TRAINING_RUNTIME = Kind(
    kind="TrainingRuntime",
    plural="trainingruntimes",
    description="A reusable base for TrainingJobs of its namespace.",
    short_names=("tr",),
    spec=TrainingRuntimeSpec,
    columns=(Column("Framework", ".spec.framework"), Column("Image", ".spec.image"), AGE),
)

CLUSTER_TRAINING_RUNTIME = Kind(
    kind="ClusterTrainingRuntime",
    plural="clustertrainingruntimes",
    description="A reusable base for TrainingJobs of every namespace.",
    short_names=("ctr",),
    namespaced=False,
    spec=TrainingRuntimeSpec,
    columns=(Column("Framework", ".spec.framework"), Column("Image", ".spec.image"), AGE),
)

SWEEP = Kind(
    kind="Sweep",
    plural="sweeps",
    description="Many TrainingJobs that look for good parameters.",
    short_names=("sw",),
    spec=SweepSpec,
    status=SweepStatus,
    rules=name_rules(MAX_SWEEP_NAME, "names of its trials are made from it"),
    columns=(
        Column("Phase", ".status.phase", description="What the sweep is doing."),
        Column("Ended", ".status.ended", description="Ended trials of those to try."),
        Column("Running", ".status.counts.running", "integer", description="Trials that run."),
        Column("Failed", ".status.counts.failed", "integer", description="Trials that failed."),
        Column("Best", ".status.best.values[0]", description="Value of the best trial."),
        Column("Trial", ".status.best.index", "integer", description="The best trial."),
        AGE,
        Column("Reason", ".status.reason", priority=1, description="Why it is in this phase."),
        Column("Message", ".status.message", priority=1, description="The reason in a sentence."),
    ),
)

SWEEP_RECORD = Kind(
    kind="SweepRecord",
    plural="sweeprecords",
    description="What became of a sweep's trials whose TrainingJobs have been cleaned away.",
    short_names=("swr",),
    spec=SweepRecordSpec,
    columns=(AGE,),
)

KINDS: tuple[Kind, ...] = (
    TRAINING_JOB,
    TRAINING_RUNTIME,
    CLUSTER_TRAINING_RUNTIME,
    SWEEP,
    SWEEP_RECORD,
)
