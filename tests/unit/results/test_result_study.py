"""A sweep's trials as a study of Optuna's."""

import math
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from result_worlds import a_job, a_record, a_sweep, course, found, trained

from headway_operator.results.study import LIVES, study_of

PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}


def one(
    job: dict[str, Any], spec: dict[str, Any] | None = None, **how: Any
) -> optuna.trial.FrozenTrial:
    sweep = a_sweep(**(spec or {}))
    (trial,) = study_of(found(sweep, a_job(sweep, 0, PARAMS, **job)), **how).trials
    return trial


@pytest.mark.parametrize(
    ("job", "counts", "lives"),
    [
        ({"points": {"loss": course(1.0)}}, TrialState.COMPLETE, TrialState.COMPLETE),
        (
            {"points": {"loss": course(1.0)}, "phase": "Suspended", "stopped": "late"},
            TrialState.COMPLETE,
            TrialState.PRUNED,
        ),
        (
            {"points": {"loss": course(1.0)}, "phase": "Running"},
            TrialState.RUNNING,
            TrialState.RUNNING,
        ),
        ({"phase": "Failed"}, TrialState.FAIL, TrialState.FAIL),
        ({"points": {"loss": [(1, math.inf)]}}, TrialState.FAIL, TrialState.FAIL),
    ],
)
def test_states_are_those_with_which_plots_are_right(
    job: dict[str, Any], counts: TrialState, lives: TrialState
) -> None:
    assert one(job).state == counts
    assert one(job, states=LIVES).state == lives


def test_the_best_trial_is_the_sweeps_also_when_it_was_stopped() -> None:
    sweep = a_sweep()
    jobs = [
        a_job(sweep, 0, PARAMS, {"loss": course(1.0)}),
        a_job(sweep, 1, PARAMS, {"loss": course(0.1)}, phase="Suspended", stopped="patience"),
    ]
    here = found(sweep, *jobs)
    assert here.best is not None
    assert study_of(here).best_trial.number == here.best.index == 1


def test_a_trial_brings_its_course_its_parameters_and_what_became_of_it() -> None:
    stopped = {"points": {"loss": course(1.0)}, "phase": "Suspended", "stopped": "late"}
    trial = one(stopped)
    assert trial.params == PARAMS
    assert dict(course(1.0)) == trial.intermediate_values
    assert trial.user_attrs == {
        "state": "Stopped",
        "job": "digits-0",
        "checkpoint": "s3://bucket/jobs/digits-0/30",
        "why": "late",
    }
    assert trial.duration is not None
    assert trial.duration.total_seconds() == 240
    assert trial.distributions == {
        "lr": FloatDistribution(1e-4, 0.1, log=True),
        "optimizer": CategoricalDistribution(("adam", "sgd")),
        "momentum": FloatDistribution(0.0, 0.9, step=0.1),
        "layers": IntDistribution(1, 4),
        "epochs": CategoricalDistribution((20,)),
    }


def test_the_number_of_a_trial_is_its_index_also_after_one_that_somebody_deleted() -> None:
    sweep = a_sweep()
    jobs = trained(sweep, 5)
    study = study_of(found(sweep, a_record(sweep, jobs[:1]), *jobs[3:]))
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    assert [trial.user_attrs["state"] for trial in study.trials[1:3]] == ["Deleted", "Deleted"]
    assert study.trials[3].user_attrs["job"] == "digits-3"


def test_choices_that_optuna_would_take_for_one_another_stay_apart() -> None:
    choice = [True, 1, "1", 0.5]
    space = [{"name": "x", "choice": choice}]
    sweep = a_sweep(parameters=space)
    jobs = [a_job(sweep, i, {"x": item}, {"loss": course(i)}) for i, item in enumerate(choice)]
    study = study_of(found(sweep, *jobs))
    assert [trial.params["x"] for trial in study.trials] == ["true", "1", '"1"', "0.5"]


def test_numbers_to_choose_from_stay_numbers() -> None:
    sweep = a_sweep(parameters=[{"name": "size", "choice": [48, 96, 192]}])
    study = study_of(found(sweep, a_job(sweep, 0, {"size": 96}, {"loss": course(1.0)})))
    assert study.trials[0].params == {"size": 96}


def test_one_of_several_objectives_makes_a_study_of_its_own() -> None:
    sweep = a_sweep(objectives=[{"metric": "loss"}, {"metric": "acc", "direction": "Maximize"}])
    here = found(sweep, a_job(sweep, 0, PARAMS, {"loss": [(1, 2.0)], "acc": [(1, 0.7), (2, 0.9)]}))
    whole, second = study_of(here), study_of(here, 1)
    assert whole.trials[0].values == [2.0, 0.9]
    assert whole.metric_names == ["loss", "acc"]
    assert second.trials[0].values == [0.9]
    assert second.trials[0].intermediate_values == {1: 0.7, 2: 0.9}
    assert second.direction == optuna.study.StudyDirection.MAXIMIZE


def test_a_value_that_is_not_in_the_space_any_more_is_left_out() -> None:
    assert (
        "lr"
        not in one(
            {"points": {"loss": course(1.0)}},
            {
                "parameters": [
                    {"name": "lr", "float": {"min": 0.5, "max": 1.0}},
                    {"name": "layers", "int": {"min": 1, "max": 4}},
                ]
            },
        ).params
    )
