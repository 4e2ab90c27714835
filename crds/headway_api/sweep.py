"""Sweep: many TrainingJobs (trials) that look for good parameters."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from headway_api.base import (
    ApiModel,
    Condition,
    Decimal,
    ListType,
    Name,
    Number,
    PreserveUnknown,
    Rule,
    Scalar,
    ShortText,
    StatusModel,
    Text,
    Timestamp,
)

ParameterName = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
]
Scalars = Annotated[list[Scalar], ListType("atomic"), Field(min_length=1, max_length=256)]
Point = Annotated[dict[str, Scalar], Field(min_length=1, max_length=64)]
"""Values by the names of parameters."""
Metric = Annotated[str, Field(min_length=1, max_length=128)]
Steps = Annotated[int, Field(ge=1, le=2**53)]
Algorithm = Literal["tpe", "random", "grid", "gp", "cmaes", "nsgaii", "qmc", "pbt"]
SweepPhase = Literal["Pending", "Running", "Suspended", "Succeeded", "Failed"]


class FloatRange(ApiModel):
    """Real numbers of a range, both ends included."""

    min: Number
    """Smallest value."""
    max: Number
    """Largest value."""
    log: bool = False
    """Looks at orders of magnitude: 0.001 to 0.01 counts as much as 0.01 to 0.1."""
    step: Number | None = None
    """Only min, min + step, min + 2 step, …"""

    cel: ClassVar = (
        Rule("self.min <= self.max", "min must not be larger than max", ".min"),
        Rule("!self.log || self.min > 0.0", "with log, min must be larger than 0", ".min"),
        Rule("!self.log || !has(self.step)", "step can't go with log: remove one", ".step"),
        Rule("!has(self.step) || self.step > 0.0", "step must be larger than 0", ".step"),
    )


class IntRange(ApiModel):
    """Whole numbers of a range, both ends included."""

    min: Annotated[int, Field(ge=-(2**53), le=2**53)]
    """Smallest value."""
    max: Annotated[int, Field(ge=-(2**53), le=2**53)]
    """Largest value."""
    log: bool = False
    """Looks at orders of magnitude: 8 to 64 counts as much as 64 to 512."""
    step: Annotated[int, Field(ge=1, le=2**53)] = 1
    """Only min, min + step, min + 2 step, …"""

    cel: ClassVar = (
        Rule("self.min <= self.max", "min must not be larger than max", ".min"),
        Rule("!self.log || self.min > 0", "with log, min must be larger than 0", ".min"),
        Rule("!self.log || self.step == 1", "step can't go with log: remove one", ".step"),
    )


class When(ApiModel):
    """When a parameter is part of a trial."""

    parameter: ParameterName
    """A parameter that stands before this one in the list."""
    values: Scalars
    """This one is part of trials in which the other has one of these values."""


class SearchParameter(ApiModel):
    """One dimension of the search space. Set exactly one of float, int and choice."""

    name: ParameterName
    """Name, as in `${params.<name>}` and HEADWAY_PARAM_<NAME>."""
    float_: FloatRange | None = Field(default=None, alias="float")
    """Real numbers."""
    int_: IntRange | None = Field(default=None, alias="int")
    """Whole numbers."""
    choice: Scalars | None = None
    """One of these strings, numbers or booleans, in no order; a single one is always taken."""
    when: When | None = None
    """Makes the parameter conditional; without it, it is part of every trial."""

    # No rule in CEL: it does not see fields whose type the schema leaves open, as in `choice`.
    one_of: ClassVar = ("float", "int", "choice")

    cel: ClassVar = (
        Rule(
            "!has(self.when) || self.when.parameter != self.name",
            "a parameter can't depend on itself",
            ".when.parameter",
        ),
    )


class Objective(ApiModel):
    """What is to be made small or large."""

    metric: Metric
    """Name of a reported metric, e.g. `val_loss`."""
    direction: Literal["Minimize", "Maximize"] = "Minimize"
    """Whether small or large values are good."""
    take: Literal["Best", "Last"] = "Best"
    """Which of a trial's reports counts: the best one, or the last."""
    goal: Number | None = None
    """The sweep ends when a trial is as good as this."""


class Repeats(ApiModel):
    """Several runs of each configuration, with seeds of their own."""

    count: Annotated[int, Field(ge=1, le=100)] = 1
    """Runs of each configuration; `${trial.seed}` and HEADWAY_PARAM_SEED differ among them."""
    spread_weight: Annotated[Number, Field(ge=0, le=100)] = 0.0
    """A configuration counts with its mean, made worse by so many standard deviations: at 0 the
    spread does not matter, at 1 a lucky seed no longer wins."""


class Pbt(ApiModel):
    """Population based training: the worst go on from checkpoints of the best."""

    population: Annotated[int, Field(ge=2, le=1000)] = 10
    """Trials that train side by side."""
    steps_per_generation: Steps
    """Optimizer steps between two comparisons."""
    generations: Annotated[int, Field(ge=1, le=1000)] = 10
    """Comparisons, the first training included."""
    quantile: Annotated[Number, Field(ge=0.01, le=0.5)] = 0.25
    """Share of the population that is replaced by copies of as many of the best."""
    resample_probability: Annotated[Number, Field(ge=0, le=1)] = 0.25
    """How often a copy's parameter is drawn anew rather than multiplied by 0.8 or 1.2."""


class SearchAlgorithm(ApiModel):
    """How the next configuration is found."""

    name: Algorithm = "tpe"
    """`tpe` (multivariate), `random`, `grid`, `gp` (Gaussian process), `cmaes`, `nsgaii`, `qmc`
    (Sobol) or `pbt`."""
    startup_trials: Annotated[int, Field(ge=1, le=10000)] = 10
    """Random configurations before `tpe` and `gp` begin to learn."""
    population: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Population of `nsgaii` (default 50) and `cmaes` (default by dimensions)."""
    pbt: Pbt | None = None
    """Settings of `pbt`."""

    cel: ClassVar = (
        Rule("(self.name == 'pbt') == has(self.pbt)", "pbt settings belong to name: pbt", ".pbt"),
    )


class Median(ApiModel):
    """Stops a trial whose best value so far is worse than the median of the others' at that step.

    Source: Golovin et al., Google Vizier, KDD 2017, section 3.2.2; Optuna's MedianPruner.
    """

    startup_trials: Annotated[int, Field(ge=1, le=10000)] = 5
    """Trials that have to have ended before any is stopped."""
    min_steps: Annotated[int, Field(ge=0, le=2**53)] = 0
    """No trial is stopped before this step."""


class Halving(ApiModel):
    """Successive halving: of the trials at a rung, the best 1/reductionFactor go on.

    The others are paused with their checkpoints, and never start over.
    """

    min_steps: Steps
    """Optimizer steps to the first rung."""
    max_steps: Steps
    """Optimizer steps of a whole training: the last rung."""
    reduction_factor: Annotated[int, Field(ge=2, le=64)] = 3
    """How many times as many steps the next rung has."""

    cel: ClassVar = (
        Rule(
            "self.minSteps <= self.maxSteps",
            "minSteps must not be larger than maxSteps",
            ".minSteps",
        ),
    )


class SuccessiveHalving(Halving):
    """Halving in brackets of fixed size: a rung waits for all of its trials.

    Source: Jamieson and Talwalkar, AISTATS 2016, algorithm 1.
    """

    trials: Annotated[int, Field(ge=2, le=100000)] | None = None
    """Configurations of a bracket; by default as many as leave one at the last rung."""


class Asha(Halving):
    """Asynchronous successive halving: a trial goes on as soon as it is among the best of its rung.

    Source: Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020,
    algorithm 2.
    """


class Hyperband(Halving):
    """Brackets of successive halving that start at each of the rungs, one after the other.

    Source: Li et al., Hyperband, JMLR 18 (2018), algorithm 1.
    """


class Patience(ApiModel):
    """Stops a trial that has not become better for some time."""

    steps: Steps
    """Optimizer steps without a better value."""
    min_delta: Annotated[Number, Field(ge=0)] = 0.0
    """By how much a value has to be better to count as better."""


class Threshold(ApiModel):
    """Stops a trial whose value is out of bounds, or no number."""

    min: Number | None = None
    """Smallest value with which a trial goes on."""
    max: Number | None = None
    """Largest value with which a trial goes on."""
    min_steps: Annotated[int, Field(ge=0, le=2**53)] = 0
    """No trial is stopped before this step."""

    cel: ClassVar = (
        Rule("has(self.min) || has(self.max)", "a threshold needs min or max"),
        Rule("!has(self.min) || !has(self.max) || self.min < self.max", "min must be below max"),
    )


class Stopping(ApiModel):
    """When a trial ends, or pauses, before its script is done. By the first objective."""

    median: Median | None = None
    """Stops trials that are worse than the median."""
    successive_halving: SuccessiveHalving | None = None
    """Gives the best of each rung more steps, bracket by bracket."""
    asha: Asha | None = None
    """Gives the best of each rung more steps, without waiting for a rung to be full."""
    hyperband: Hyperband | None = None
    """Brackets of successive halving with different first rungs."""
    patience: Patience | None = None
    """Stops trials that no longer become better."""
    threshold: Threshold | None = None
    """Stops trials that are out of bounds."""
    wall_time_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = None
    """Stops a trial that has been active for so long; what it has reported counts."""

    cel: ClassVar = (
        Rule(
            "[has(self.median), has(self.successiveHalving), has(self.asha), has(self.hyperband)]"
            ".filter(x, x).size() <= 1",
            "set at most one of median, successiveHalving, asha and hyperband",
        ),
    )


class SweepReference(ApiModel):
    """A sweep of the same namespace to learn from."""

    name: Name
    """Its name."""


class TemplateMetadata(ApiModel):
    """Labels and annotations of the trials."""

    labels: (
        Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] | None
    ) = None
    """Labels, beside our own."""
    annotations: (
        Annotated[dict[str, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] | None
    ) = None
    """Annotations, beside our own."""


class TrialTemplate(ApiModel):
    """The TrainingJob that is made of a configuration."""

    metadata: TemplateMetadata | None = None
    """Labels and annotations of the trials."""
    spec: Annotated[dict[str, Any], PreserveUnknown()]
    """Spec of the TrainingJob. `${params.<name>}`, `${trial.name}`, `${trial.index}` and
    `${trial.seed}` are replaced in every string, and where a number belongs
    (`replicas: ${params.workers}`). What refers to a parameter that is no part of the trial is left
    out: the entry of a map, the item of a list."""


class Retention(ApiModel):
    """Which trials' TrainingJobs stay when they have ended. Their records always do."""

    keep: Annotated[int, Field(ge=1, le=100000)] | None = None
    """So many of the best ended trials stay; all, when unset."""


class SweepModel(ApiModel):
    """The model version that the best trial becomes."""

    name: Name
    """Name of the Model."""


class SweepSpec(ApiModel):
    """What is searched, and how."""

    parameters: Annotated[
        list[SearchParameter], ListType("map", ("name",)), Field(min_length=1, max_length=64)
    ]
    """The search space."""
    objectives: Annotated[
        list[Objective], ListType("map", ("metric",)), Field(min_length=1, max_length=8)
    ]
    """What is made small or large. With several there is no best trial but a Pareto front."""
    template: TrialTemplate
    """The TrainingJob of each trial."""
    algorithm: SearchAlgorithm = SearchAlgorithm()
    """How the next configuration is found."""
    stopping: Stopping | None = None
    """When trials end before their script is done."""
    max_trials: Annotated[int, Field(ge=1, le=100000)]
    """Configurations to try. May be raised, also when the sweep has ended: it then goes on."""
    parallel_trials: Annotated[int, Field(ge=1, le=1000)] = 1
    """TrainingJobs that run, or are queued, at the same time. May change at any time."""
    max_failed_trials: Annotated[int, Field(ge=0, le=100000)] = 3
    """The sweep fails when more trials than this have failed."""
    time_budget_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = None
    """The sweep ends when it has been active for so long; running trials are stopped."""
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """Makes another sweep of the same spec try the same configurations; the sweep's UID when
    unset."""
    repeats: Repeats = Repeats()
    """Runs of each configuration."""
    initial_points: Annotated[list[Point], ListType("atomic"), Field(max_length=100)] | None = None
    """Configurations to try first; parameters that are left out are searched."""
    warm_start: (
        Annotated[list[SweepReference], ListType("map", ("name",)), Field(max_length=8)] | None
    ) = None
    """Sweeps of the namespace whose finished trials count as known, where they lie in the
    space. Read once, before the first trial."""
    retention: Retention = Retention()
    """Which trials' TrainingJobs stay."""
    model: SweepModel | None = None
    """Registers the best trial's checkpoint as a ModelVersion when the sweep succeeds."""
    suspend: bool = False
    """Takes checkpoints and gives up all pods while true."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0)] | None = None
    """Deletes the sweep and its trials this many seconds after it has finished."""

    cel: ClassVar = (
        Rule(
            "self.parameters == oldSelf.parameters && self.objectives == oldSelf.objectives"
            " && self.algorithm == oldSelf.algorithm && self.repeats == oldSelf.repeats"
            " && has(self.seed) == has(oldSelf.seed)"
            " && (!has(self.seed) || self.seed == oldSelf.seed)",
            "parameters, objectives, algorithm, repeats and seed can't change: trials were chosen"
            " by them; make a new sweep with warmStart",
        ),
        Rule(
            "self.objectives.size() == 1 || self.algorithm.name in"
            " ['tpe', 'random', 'grid', 'gp', 'nsgaii', 'qmc']",
            "cmaes and pbt know one objective only: choose nsgaii or tpe",
            ".algorithm.name",
        ),
        Rule(
            "self.objectives.size() == 1 || !has(self.stopping)"
            " || !(has(self.stopping.median) || has(self.stopping.successiveHalving)"
            " || has(self.stopping.asha) || has(self.stopping.hyperband)"
            " || has(self.stopping.patience))",
            "with several objectives no trial is better than another on the way:"
            " only threshold and wallTimeSeconds can stop",
            ".stopping",
        ),
        Rule(
            "self.algorithm.name != 'pbt' || !has(self.stopping)",
            "pbt stops trials by itself: remove stopping",
            ".stopping",
        ),
        Rule(
            "self.objectives.size() == 1 || !has(self.model)",
            "with several objectives there is no best trial: register one of the front yourself",
            ".model",
        ),
        Rule(
            "self.repeats.count == 1 || (self.algorithm.name != 'pbt' && (!has(self.stopping)"
            " || !(has(self.stopping.median) || has(self.stopping.successiveHalving)"
            " || has(self.stopping.asha) || has(self.stopping.hyperband))))",
            "rules that compare trials on the way can't go with repeats: remove one",
            ".repeats",
        ),
    )


class TrialCounts(StatusModel):
    """Trials by state."""

    created: int = 0
    """All so far."""
    running: int = 0
    """Those that run or are queued."""
    paused: int = 0
    """Those that wait at a rung, with a checkpoint."""
    complete: int = 0
    """Those whose script came to its end."""
    stopped: int = 0
    """Those that a rule has stopped; what they reported counts."""
    failed: int = 0
    """Those that failed, or never reported the objective."""


class TrialSummary(StatusModel):
    """One trial in short."""

    index: int
    """Its number, from 0 in the order of creation."""
    state: Literal["Running", "Paused", "Complete", "Stopped", "Failed"]
    """Where it is."""
    values: Annotated[list[Decimal], ListType("atomic"), Field(max_length=8)] | None = None
    """Its values, in the order of the objectives."""
    step: int | None = None
    """Optimizer steps done."""
    parameters: Annotated[dict[str, Decimal], Field(max_length=64)] | None = None
    """Its parameters."""


class BestTrial(TrialSummary):
    """The best trial, or one of the Pareto front."""

    name: Annotated[str, Field(max_length=63)]
    """Name of its TrainingJob."""
    checkpoint: Annotated[str, Field(max_length=2048)] | None = None
    """Where its checkpoint is."""


class SweepStatus(StatusModel):
    """What is the case. Only the operator writes here."""

    conditions: (
        Annotated[list[Condition], ListType("map", ("type",)), Field(max_length=16)] | None
    ) = None
    """`Running`, `Suspended`, `Succeeded`, `Failed`, `Stalled`, `Reconciling`; see
    docs/concepts/sweeps.md for exactly when each is true."""
    observed_generation: int | None = None
    """`metadata.generation` that this status was computed from."""
    phase: SweepPhase | None = None
    """One word for people; programs read the conditions."""
    reason: ShortText | None = None
    """Why it is in this phase, one CamelCase word."""
    message: Text | None = None
    """The same in a sentence."""
    start_time: Timestamp | None = None
    """When the first trial was made; moves on resume from suspend."""
    completion_time: Timestamp | None = None
    """When it finished."""
    active_seconds: int | None = None
    """Active time before the latest suspension, in seconds."""
    counts: TrialCounts | None = None
    """Trials by state."""
    ended: Annotated[str, Field(max_length=32)] | None = None
    """`ended/maxTrials`, for `kubectl get`."""
    best: BestTrial | None = None
    """The best trial so far; none with several objectives."""
    pareto_front: Annotated[list[BestTrial], ListType("atomic"), Field(max_length=100)] | None = (
        None
    )
    """With several objectives: trials than which no other is better in all of them."""
    trials: Annotated[list[TrialSummary], ListType("atomic"), Field(max_length=100)] | None = None
    """The last hundred trials in short."""
    recorded: int | None = None
    """Trials that are in the sweep's SweepRecords, so that their TrainingJobs may go."""


class SweepRecordSpec(ApiModel):
    """Ended runs of a sweep, as they were."""

    runs: Annotated[
        dict[str, Annotated[dict[str, Any], PreserveUnknown()]], Field(max_length=32768)
    ] = Field(default_factory=dict)
    """By `<trial index>-<run>`: parameters, state and reports. Only the operator writes here."""
