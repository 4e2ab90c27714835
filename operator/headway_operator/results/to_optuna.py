"""Results into a storage of Optuna's, where optuna-dashboard shows them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings, Result
from headway_operator.results.study import DIRECTIONS, deleted, frozen

_SWEEP: Final = "headway:sweep"
"""Attribute of a study: the UID of the sweep that it is of."""


def to_optuna(found: Findings, url: str) -> int:
    """Write a study that is named like the sweep.

    Trials have their indices as numbers. One that had ended when it was written is not touched
    again, one that had not is brought up to date: writing twice doubles nothing.

    Args:
        found: the sweep.
        url: of the storage, such as `sqlite:///sweeps.db`.

    Returns:
        How many trials were written.

    Raises:
        ResultsError: the study of this name is of something else, or the storage refuses.
    """
    try:
        study = _opened(found, url)
        known = study.get_trials(deepcopy=False)
        numbers = range(found.situation.created)
        return sum(_written(found, study, known, number) for number in numbers)
    except (SQLAlchemyError, StorageInternalError, ValueError, ImportError) as error:
        said = str(error).splitlines()[0]
        raise ResultsError(
            f"can't write to {url}: {said}; is it a URL as SQLAlchemy has them, such "
            "as sqlite:///sweeps.db?"
        ) from None


def _opened(found: Findings, url: str) -> Study:
    name, uid, objectives = found.sweep.name, found.sweep.uid, found.spec.objectives
    study = optuna.create_study(
        study_name=name,
        storage=url,
        directions=[DIRECTIONS[each.direction] for each in objectives],
        load_if_exists=True,
    )
    if study.get_trials(deepcopy=False) and study.user_attrs.get(_SWEEP) != uid:
        raise ResultsError(
            f"{url} has a study {name} already that is not of this sweep: choose another --out"
        )
    study.set_user_attr(_SWEEP, uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([each.metric for each in objectives])
    return study


def _written(found: Findings, study: Study, known: Sequence[FrozenTrial], number: int) -> bool:
    """Write one trial, if there is anything new of it."""
    result = found.by_index.get(number)
    before = known[number] if number < len(known) else None
    if before is not None and (before.state.is_finished() or result is None):
        return False
    fresh = deleted(found) if result is None else _frozen(found, result)
    if before is None:
        study.add_trial(fresh)
    else:
        _update(study, before, fresh)
    return True


def _frozen(found: Findings, result: Result) -> FrozenTrial:
    """Finished only once nothing of it can change: Optuna does not take that back."""
    values = result.values or ()
    if not result.settled:
        state = TrialState.RUNNING
    else:
        state = TrialState.COMPLETE if values and result.state != "Failed" else TrialState.FAIL
    return frozen(found, result, state, values, found.spec.objectives[0])


def _update(study: Study, before: FrozenTrial, fresh: FrozenTrial) -> None:
    """Bring an unfinished trial up to date. If it has ended, Optuna notes the time of now."""
    storage, place = study._storage, before._trial_id
    for step, value in fresh.intermediate_values.items():
        storage.set_trial_intermediate_value(place, step, value)
    for key, said in fresh.user_attrs.items():
        storage.set_trial_user_attr(place, key, said)
    if fresh.state.is_finished():
        storage.set_trial_state_values(place, fresh.state, fresh.values)
