"""Results taken elsewhere: nothing is lost, and nothing is doubled."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from result_worlds import a_job, a_record, a_sweep, course, found, trained

from headway_operator.results.document import document, table
from headway_operator.results.errors import ResultsError
from headway_operator.results.to_optuna import to_optuna

PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_csv_has_a_line_for_each_trial_with_numbers_as_they_were() -> None:
    sweep = a_sweep()
    here = found(sweep, *trained(sweep, 12))
    lines = rows(table(here))
    assert len(lines) == 12
    for line, result in zip(lines, here.results, strict=True):
        assert (line["state"], line["job"]) == (result.state, result.name)
        assert float(line["param_lr"]) == result.params["lr"]
        assert line["value_loss"] == ("" if result.values is None else repr(result.values[0]))
        assert ("momentum" in result.params) == (line["param_momentum"] != "")


def test_the_columns_of_a_csv_follow_from_the_spec_alone() -> None:
    sweep = a_sweep()
    none, some = table(found(sweep)), table(found(sweep, *trained(sweep, 3)))
    assert none == some.splitlines(keepends=True)[0]
    assert none.strip().split(",") == [
        *("trial", "state", "step", "value_loss"),
        *("param_lr", "param_optimizer", "param_momentum", "param_layers", "param_epochs"),
        *("job", "checkpoint", "started", "ended", "why"),
    ]


def test_texts_with_commas_quotes_and_lines_survive_a_csv() -> None:
    sweep = a_sweep()
    why = 'exit code 1: "no", really,\nno'
    (line,) = rows(table(found(sweep, a_job(sweep, 0, PARAMS, phase="Failed", message=why))))
    assert line["why"] == why


def test_a_document_is_json_whatever_the_values_are() -> None:
    sweep = a_sweep()
    jobs = [
        a_job(sweep, i, PARAMS, {"loss": [(1, value)]}) for i, value in enumerate([math.inf, 2.0])
    ]
    told = json.loads(json.dumps(document(found(sweep, *jobs), points=True), allow_nan=False))
    assert [trial["values"] for trial in told["trials"]] == [["inf"], [2.0]]
    assert told["trials"][0]["points"] == {"loss": [[1, "inf"]]}
    assert told["best"] == 1
    assert told["counts"]["complete"] == 2


# --- Optuna ---------------------------------------------------------------------------------------


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/x.db"


def studied(url: str, name: str = "digits") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=url)


def test_optuna_has_the_sweep_as_it_is(url: str) -> None:
    sweep = a_sweep()
    here = found(sweep, *trained(sweep, 12))
    assert to_optuna(here, url) == 12
    study = studied(url)
    assert here.best is not None
    assert study.best_trial.number == here.best.index
    assert study.best_trial.params == here.best.params
    course_of_best = {point.step: point.value for point in here.best.course("loss")}
    assert study.best_trial.intermediate_values == course_of_best
    assert study.metric_names == ["loss"]
    assert study.user_attrs["headway:sweep"] == "u-1"


def test_exporting_again_doubles_nothing(url: str) -> None:
    sweep = a_sweep()
    here = found(sweep, *trained(sweep, 6))
    to_optuna(here, url)
    before = studied(url).trials
    assert to_optuna(here, url) == 0
    assert studied(url).trials == before


def test_a_trial_that_was_under_way_is_brought_up_to_date(url: str) -> None:
    sweep = a_sweep()
    points = course(1.0)
    running = a_job(sweep, 0, PARAMS, {"loss": points[:2]}, phase="Running")
    to_optuna(found(sweep, running), url)
    assert studied(url).trials[0].state == TrialState.RUNNING
    done = a_job(sweep, 0, PARAMS, {"loss": points})
    other = a_job(sweep, 1, PARAMS, {"loss": course(0.5)})
    assert to_optuna(found(sweep, done, other), url) == 2
    first, second = studied(url).trials
    assert (first.state, first.value) == (TrialState.COMPLETE, 1.0)
    assert first.intermediate_values == dict(points)
    assert first.user_attrs["state"] == "Complete"
    assert second.value == 0.5


@pytest.mark.parametrize(
    "job",
    [
        {"phase": "Running", "stopped": "late"},  # it still saves
        {"phase": "Suspended", "reason": "PausedAtStep"},  # it may go on
    ],
)
def test_what_may_still_change_is_not_finished_for_optuna(url: str, job: dict[str, Any]) -> None:
    sweep = a_sweep()
    item = a_job(sweep, 0, PARAMS, {"loss": course(1.0)}, **job)
    item["spec"]["pauseAtStep"] = 30
    to_optuna(found(sweep, item), url)
    assert studied(url).trials[0].state == TrialState.RUNNING


def test_a_trial_that_was_deleted_leaves_the_numbers_of_the_others(url: str) -> None:
    sweep = a_sweep()
    jobs = trained(sweep, 4)
    to_optuna(found(sweep, a_record(sweep, jobs[:1]), *jobs[2:]), url)
    assert [t.user_attrs.get("job") for t in studied(url).trials] == [
        *("digits-0", None),
        *("digits-2", "digits-3"),
    ]


def test_infinite_values_several_objectives_and_mixed_choices_go_into_sql(url: str) -> None:
    sweep = a_sweep(
        parameters=[{"name": "x", "choice": [True, 1, "ü"]}],
        objectives=[{"metric": "loss"}, {"metric": "acc", "direction": "Maximize"}],
    )
    points = {"loss": [(1, math.inf), (2, math.nan)], "acc": [(1, 0.5)]}
    to_optuna(found(sweep, a_job(sweep, 0, {"x": "ü"}, points)), url)
    (trial,) = studied(url).trials
    assert trial.values == [math.inf, 0.5]
    assert trial.params == {"x": '"ü"'}


def test_a_study_of_something_else_is_left_alone(url: str) -> None:
    foreign = optuna.create_study(study_name="digits", storage=url)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    sweep = a_sweep()
    with pytest.raises(ResultsError, match="study digits already that is not of this sweep"):
        to_optuna(found(sweep, *trained(sweep, 2)), url)
    assert len(studied(url).trials) == 1
    assert studied(url).user_attrs == {}


@pytest.mark.parametrize("wrong", ["no-url", "nosuch://x", "sqlite:////no/such/folder/x.db"])
def test_a_storage_that_cant_be_is_a_sentence(wrong: str) -> None:
    sweep = a_sweep()
    with pytest.raises(ResultsError, match=f"can't write to {wrong}: .*sqlite:///sweeps.db"):
        to_optuna(found(sweep, *trained(sweep, 2)), wrong)
