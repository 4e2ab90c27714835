"""A sweep's trials as a study of Optuna's, for its plots, importances and storages.

Optuna looks at complete trials only: its best trial, Pareto front, importances and nearly all
plots. What a stopped trial has reported counts in a sweep, so it is *complete* here, with the rule
that stopped it as an attribute; as a pruned one it would be in none of them, and with ASHA hardly
anything would be left. `suggest/replay.py` tells trials to samplers, which need other things:
places instead of choices, and no infinite values.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from headway_api.sweep import Objective
from headway_operator.results.findings import Findings, Result
from headway_operator.sweep.space import Choices, Continuum, Dimension, text
from headway_operator.sweep.trial import Scalar, State
from headway_operator.trainingjob.times import parsed

# It warns of what it leaves out of a plot; what matters of that is said by `plots.py`.
optuna.logging.set_verbosity(optuna.logging.ERROR)
DIRECTIONS: Final = {
    "Minimize": StudyDirection.MINIMIZE,
    "Maximize": StudyDirection.MAXIMIZE,
}
LARGEST: Final = 1e30
"""Values beyond it come from trainings that have diverged; beside them all others look the same."""
DELETED: Final = "Deleted"
"""State of a trial that somebody has deleted with all that was known of it."""


COUNTING: Final[Mapping[State, TrialState]] = {
    "Running": TrialState.RUNNING,
    "Paused": TrialState.COMPLETE,
    "Complete": TrialState.COMPLETE,
    "Stopped": TrialState.COMPLETE,
    "Failed": TrialState.FAIL,
}
"""What counts is complete: also what waits at a rung, as in the sweep's best."""
LIVES: Final[Mapping[State, TrialState]] = {
    **COUNTING,
    "Paused": TrialState.RUNNING,
    "Stopped": TrialState.PRUNED,
}
"""Where each trial is, in Optuna's words."""


def study_of(
    found: Findings, objective: int | None = None, states: Mapping[State, TrialState] = COUNTING
) -> Study:
    """A study to draw, in memory: the number of each trial is its index.

    A trial whose value is infinite, or nearly, is left out as failed.

    Args:
        found: the sweep.
        objective: place of the only one to look at; None for all.
        states: as what trials are told.
    """
    chosen = found.spec.objectives if objective is None else [found.spec.objectives[objective]]
    study = optuna.create_study(
        study_name=found.sweep.name, directions=[DIRECTIONS[each.direction] for each in chosen]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([each.metric for each in chosen])
    for number in range(found.situation.created):
        result = found.by_index.get(number)
        if result is None:
            study.add_trial(deleted(found))
            continue
        values = result.values or ()
        if objective is not None:
            values = values[objective : objective + 1]
        state = states[result.state]
        if state == TrialState.COMPLETE and not (values and all(map(drawable, values))):
            state = TrialState.FAIL if result.trial.ended else TrialState.RUNNING
        trial = frozen(found, result, state, values, chosen[0])
        course = trial.intermediate_values.items()
        trial.intermediate_values = {step: value for step, value in course if drawable(value)}
        study.add_trial(trial)
    return study


def drawable(value: float) -> bool:
    """Whether an axis has a place for a value: it is a number, and not of a diverged training."""
    return abs(value) <= LARGEST


def frozen(
    found: Findings,
    result: Result,
    state: TrialState,
    values: tuple[float, ...],
    objective: Objective,
) -> FrozenTrial:
    """A trial for Optuna.

    Args:
        found: its sweep.
        result: what came of it.
        state: as which it is told.
        values: for a complete one.
        objective: whose course its intermediate values are.
    """
    distributions: dict[str, BaseDistribution] = {}
    params: dict[str, Scalar] = {}
    for name, dimension in found.space.dimensions.items():
        value = dimension.typed(result.params.get(name))
        if value is not None:  # somebody may have edited it
            distributions[name] = _distribution(dimension)
            params[name] = _told(dimension, value)
    made = result.started or _made(found)
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=list(values) if state == TrialState.COMPLETE else None,
        datetime_start=_local(made),
        datetime_complete=_local(result.ended or made) if state.is_finished() else None,
        params=params,
        distributions=distributions,
        user_attrs=dict(_attributes(result)),
        system_attrs={},
        intermediate_values={p.step: p.value for p in result.course(objective.metric)},
    )


def deleted(found: Findings) -> FrozenTrial:
    """Stands for a trial that somebody has deleted, so that those after it keep their numbers."""
    made = _local(_made(found))
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.FAIL,
        value=None,
        datetime_start=made,
        datetime_complete=made,
        params={},
        distributions={},
        user_attrs={"state": DELETED},
        system_attrs={},
        intermediate_values={},
    )


def _attributes(result: Result) -> Iterator[tuple[str, Any]]:
    """What Optuna has no place for; hover texts and dashboards show it."""
    yield "state", result.state
    yield "job", result.name
    if result.checkpoint:
        yield "checkpoint", result.checkpoint
    if result.why:
        yield "why", result.why


def _distribution(values: Dimension) -> BaseDistribution:
    if isinstance(values, Continuum):
        return FloatDistribution(values.low, values.high, log=values.log)
    if isinstance(values, Choices):
        return CategoricalDistribution(_labels(values))
    high = values.value(values.size - 1)
    if isinstance(values.low, int):
        return IntDistribution(values.low, int(high), log=values.log, step=int(values.step))
    return FloatDistribution(values.low, float(high), step=float(values.step))


def _told(values: Dimension, value: Scalar) -> Scalar:
    return _labels(values)[values.place(value)] if isinstance(values, Choices) else value


def _labels(values: Choices) -> tuple[Scalar, ...]:
    """The items; where Optuna or a reader would take two for one (true, 1, "1"), as JSON."""
    alone = len(set(values.items)) == len({text(item) for item in values.items}) == values.size
    return (
        values.items
        if alone
        else tuple(json.dumps(item, ensure_ascii=False) for item in values.items)
    )


def _made(found: Findings) -> datetime:
    """When a trial began of which it is not known any more: not before its sweep."""
    return parsed(found.item["metadata"].get("creationTimestamp")) or datetime(
        2000, 1, 1, tzinfo=UTC
    )


def _local(moment: datetime) -> datetime:
    """As Optuna has times: those of this machine, without a zone."""
    return moment.astimezone().replace(tzinfo=None)
