"""A study of Optuna's that lives for one question: all trials are told to it, then it is asked.

Its samplers keep what they know of a study in the study, so a study made of the same trials is in
the same state. What a sampler keeps with a trial comes back in the answer's attributes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Self, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from headway_operator.sweep.space import Choices, Continuum, Dimension, Space
from headway_operator.sweep.suggest.history import Told, told
from headway_operator.sweep.suggest.request import Request, Suggestion
from headway_operator.sweep.trial import Scalar

# What Optuna has to say goes to the operator's log for every trial of every sweep, and there is
# nothing that a user could do about it.
optuna.logging.set_verbosity(optuna.logging.ERROR)
_NAME: Final = "sweep"
_MOST_STEPS: Final = 10_000
"""Numbers with more steps than this are told as a continuum and rounded: Optuna's Gaussian process
makes a list of all values, which for a seed of 31 bits would take 16 GB."""
_EVER: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DIRECTIONS: Final = {
    "Minimize": StudyDirection.MINIMIZE,
    "Maximize": StudyDirection.MAXIMIZE,
}


class _Frozen(FrozenTrial):
    """A trial that nobody else has: the storage need not copy it, which took most of the time."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


def ask(
    request: Request,
    sampler: Callable[[], BaseSampler],
    *,
    pruned: bool = False,
    attributes: Callable[[Told], dict[str, Any]] | None = None,
    kept: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> Suggestion:
    """Ask a sampler for the next configuration.

    Args:
        request: what is asked for.
        sampler: makes the sampler, seeded.
        pruned: whether values at a rung are told as those of pruned trials, which the sampler has
            to rank by itself. Optuna knows them with one objective only.
        attributes: system attributes of a trial, made of what was kept.
        kept: what to keep of the new trial's system attributes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        directions = [_DIRECTIONS[direction] for direction in request.directions]
        storage = InMemoryStorage()
        place = storage.create_new_study(directions, _NAME)
        space = _distributions(request.space)
        for each in told(request):
            attrs = attributes(each) if attributes else {}
            rung = each.rung if pruned and len(directions) == 1 else None
            # Not by the study, which would check again what has been checked.
            storage.create_new_trial(place, _frozen(request.space, space, each, rung, attrs))
        study = optuna.load_study(study_name=_NAME, storage=storage, sampler=sampler())
        trial = study.ask()

        def pick(name: str, values: Dimension) -> Scalar:
            if name not in space:
                return values.value(0)
            return _suggested(trial, name, values, space[name])

        params = request.space.assembled(pick)
    system = study.get_trials(deepcopy=False)[-1].system_attrs
    return Suggestion(params, kept(system) if kept else {})


def _frozen(
    space: Space,
    distributions: Mapping[str, BaseDistribution],
    each: Told,
    rung: int | None,
    attrs: dict[str, Any],
) -> FrozenTrial:
    params = {
        name: _internal(space.dimensions[name], value)
        for name, value in each.params.items()
        if name in distributions
    }
    state = _state(each, rung)
    return _Frozen(
        number=-1,
        state=state,
        value=None,
        values=each.values if state == TrialState.COMPLETE else None,
        datetime_start=_EVER,
        datetime_complete=_EVER if state.is_finished() else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={},
        system_attrs=attrs,
        intermediate_values={} if rung is None or not each.values else {rung: each.values[0]},
        trial_id=-1,
    )


def _state(each: Told, rung: int | None) -> TrialState:
    if each.failed:
        return TrialState.FAIL
    if each.values is None:
        return TrialState.RUNNING
    return TrialState.COMPLETE if rung is None else TrialState.PRUNED


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """What varies, for Optuna.

    Items of a choice and numbers with steps are told by their place: Optuna takes true for 1, and
    0.1 + 2 · 0.1 for something else than 0.3.
    """
    return {name: _distribution(each) for name, each in space.dimensions.items() if each.size != 1}


def _distribution(values: Dimension) -> BaseDistribution:
    if isinstance(values, Continuum):
        return FloatDistribution(values.low, values.high, log=values.log)
    if isinstance(values, Choices):
        return CategoricalDistribution(range(values.size))
    if values.size > _MOST_STEPS:
        return FloatDistribution(0.0, 1.0)
    if values.log:
        return IntDistribution(int(values.low), int(values.value(values.size - 1)), log=True)
    return IntDistribution(0, values.size - 1)


def _internal(values: Dimension, value: Scalar) -> Scalar:
    """A value as its distribution has it."""
    if isinstance(values, Continuum):
        return value
    if isinstance(values, Choices):
        return values.place(value)
    if values.size > _MOST_STEPS:
        return values.share(value)
    return value if values.log else values.place(value)


def _suggested(
    trial: Trial, name: str, values: Dimension, distribution: BaseDistribution
) -> Scalar:
    """A value as the space has it."""
    found = _asked(trial, name, distribution)
    if isinstance(values, Continuum):
        return min(max(float(found), values.low), values.high)
    if isinstance(values, Choices):
        return values.value(int(found))
    if values.size > _MOST_STEPS:
        return values.at(float(found))
    return int(found) if values.log else values.value(int(found))


def _asked(trial: Trial, name: str, distribution: BaseDistribution) -> float:
    if isinstance(distribution, FloatDistribution):
        found = trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
        return float(found)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    assert isinstance(distribution, CategoricalDistribution)
    return int(cast(int, trial.suggest_categorical(name, distribution.choices)))
