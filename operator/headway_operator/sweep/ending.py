"""When a sweep is over: a function of its trials, so that a spec with more of something goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headway_operator.sweep import population
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.trials import state_of
from headway_operator.sweep.value import reached, values


@dataclass(frozen=True)
class End:
    """How a sweep has ended, and why."""

    outcome: Literal["Succeeded", "Failed"]
    reason: str
    message: str


def end_of(here: Situation) -> End | None:
    """The end of a sweep; None while it goes on."""
    spec, counts = here.spec, here.counts
    if counts.failed > spec.max_failed_trials:
        failed = "1 trial has" if counts.failed == 1 else f"{counts.failed} trials have"
        return End(
            "Failed",
            "TooManyFailedTrials",
            f"{failed} failed, and maxFailedTrials is {spec.max_failed_trials}: {_why(here)}, or "
            "raise it to go on.",
        )
    goal = _goal(here)
    if goal is not None:
        return goal
    limit = spec.time_budget_seconds
    if limit is not None and here.active_seconds >= limit:
        said = f"The time budget of {limit} s is used up; raise timeBudgetSeconds to go on."
        return End("Succeeded", "TimeBudgetUsed", said)
    return None if here.active else _all_done(here)


def _why(here: Situation) -> str:
    """What to do about trials that have failed.

    The jobs of those that report nothing to go by look well: the name of a metric may be wrong.
    """
    spec = here.spec
    for run in (job for each in here.runs for job in (each.first, *each.jobs)):
        if run.phase == "Succeeded" and state_of(spec, run) == "Failed":
            missing = [o.metric for o in spec.objectives if values(run.observed, [o]) is None]
            return (
                f"{run.name} came to its end without a number for {' and '.join(missing)}; have "
                "the script report it by that name in a new sweep"
            )
    return "look at the failed trials' jobs"


def _all_done(here: Situation) -> End | None:
    """The end by there being nothing left to do."""
    spec, needs = here.spec, population.due(here)
    if needs is not None and needs.over:
        return End("Succeeded", "PopulationTrained", "The population has trained to its end.")
    if here.ended < here.most:
        return None
    if here.view.exhausted and here.created < spec.max_trials:
        said = f"All {here.created} configurations of the space have been tried."
        return End("Succeeded", "SpaceExhausted", said)
    said = f"All {here.created} trials have ended; raise maxTrials to go on."
    return End("Succeeded", "AllTrialsEnded", said)


def _goal(here: Situation) -> End | None:
    """The end by a goal: a trial that is as good as asked in all objectives that have one."""
    objectives = here.spec.objectives
    if all(objective.goal is None for objective in objectives):
        return None
    for trial in here.trials:
        if trial.values is None or not (trial.ended or trial.state == "Paused"):
            continue
        if trial.state != "Failed" and all(
            reached(objective, value)
            for objective, value in zip(objectives, trial.values, strict=True)
        ):
            return End("Succeeded", "GoalReached", f"Trial {trial.index} has reached the goal.")
    return None
