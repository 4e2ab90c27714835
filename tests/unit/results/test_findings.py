"""From objects to what a sweep has found out: the same trials, whatever is left of them."""

import json
from typing import Any

import pytest
from result_worlds import (
    BEGAN,
    NOW,
    a_job,
    a_record,
    a_sweep,
    course,
    found,
    of_an_earlier_version,
    trained,
)

from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import findings

PARAMS = {"lr": 0.01, "optimizer": "adam", "layers": 1, "epochs": 20}


def test_live_jobs_and_records_are_told_together_and_no_trial_twice() -> None:
    sweep = a_sweep()
    jobs = trained(sweep, 9)
    every = found(sweep, *jobs)
    # 0 to 4 are recorded; of 3 and 4 the TrainingJob is still there.
    mixed = found(sweep, a_record(sweep, jobs[:5]), *jobs[3:])
    assert [each.trial for each in mixed.results] == [each.trial for each in every.results]
    assert [each.index for each in mixed.ranked] == [each.index for each in every.ranked]
    assert mixed.results[0].job is None
    assert mixed.results[3].job is not None
    assert mixed.results[0].checkpoint == every.results[0].checkpoint != ""


def test_only_the_sweeps_own_trials_count() -> None:
    sweep = a_sweep()
    mine = a_job(sweep, 0, PARAMS, {"loss": course(1.0)})
    of_a_namesake = a_job(a_sweep(uid="u-0"), 1, PARAMS, {"loss": course(0.0)})
    of_another = a_job(a_sweep("other"), 2, PARAMS, {"loss": course(0.0)})
    here = found(sweep, mine, of_a_namesake, of_another, {"kind": "Pod", "metadata": {"name": "x"}})
    assert [each.index for each in here.results] == [0]


def test_lists_of_kubectl_are_opened_also_one_in_another() -> None:
    sweep = a_sweep()
    inner = {"kind": "TrainingJobList", "items": trained(sweep, 3)}
    here = findings([{"kind": "List", "items": [sweep, inner]}], "digits", NOW)
    assert len(here.results) == 3


def test_a_manifest_without_what_only_an_api_server_knows_is_a_sweep_without_trials() -> None:
    bare = {**a_sweep(), "metadata": {"name": "digits"}, "status": None}
    here = findings([bare], "digits", NOW)
    assert (here.phase, here.results, here.best, here.steps) == ("Pending", [], None, 0)


@pytest.mark.parametrize(
    ("items", "namespace", "said"),
    [
        ([], None, "there is no Sweep digits; there is none at all"),
        ([a_sweep("a"), a_sweep("b")], None, "there is no Sweep digits; there are a, b"),
        ([a_sweep()], "prod", "there is no Sweep digits in namespace prod; there is none at all"),
        (
            [a_sweep(), {**a_sweep(), "metadata": {**a_sweep()["metadata"], "namespace": "prod"}}],
            None,
            "there are Sweeps digits in lab, prod: choose one with --namespace",
        ),
        (
            [{**a_sweep(), "spec": {**a_sweep()["spec"], "maxTrials": 0}}],
            None,
            "the Sweep digits is not right: maxTrials:",
        ),
    ],
)
def test_what_is_not_there_is_told_in_a_sentence(
    items: list[dict[str, Any]], namespace: str | None, said: str
) -> None:
    with pytest.raises(ResultsError) as caught:
        findings(items, "digits", NOW, namespace)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("job", "state", "why"),
    [
        ({"phase": "Failed", "message": "exit code 1\nno GPU"}, "Failed", "exit code 1\nno GPU"),
        ({"phase": "Failed", "reason": "DeadlineExceeded"}, "Failed", "DeadlineExceeded"),
        ({"phase": "Succeeded"}, "Failed", "it never reported loss"),
        (
            {"points": {"loss": [(1, float("nan"))]}},
            "Failed",
            "it reported loss, but not as a number",
        ),
        (
            {
                "phase": "Suspended",
                "stopped": "worse than the median",
                "points": {"loss": course(1)},
            },
            "Stopped",
            "worse than the median",
        ),
        (
            {"phase": "Suspended", "stopped": "worse than the median"},
            "Failed",
            "worse than the median; it never reported loss",
        ),
        ({"points": {"loss": course(1.0)}}, "Complete", ""),
    ],
)
def test_why_a_trial_was_stopped_or_has_failed_is_told(
    job: dict[str, Any], state: str, why: str
) -> None:
    sweep = a_sweep()
    (result,) = found(sweep, a_job(sweep, 0, PARAMS, **job)).results
    assert (result.state, result.why) == (state, why)


def test_a_trial_that_could_not_be_made_says_where_to_look() -> None:
    sweep = a_sweep()
    record = a_record(sweep, [a_job(sweep, 3, PARAMS)])
    record["spec"]["runs"]["3-0"] |= {"uid": "", "phase": "Failed", "reason": "Refused"}
    (result,) = found(sweep, record).results
    assert result.state == "Failed"
    assert "Event TrialRefused" in result.why


def test_repeats_are_one_result_with_the_steps_of_all() -> None:
    sweep = a_sweep(repeats={"count": 2, "spreadWeight": 1})
    runs = [a_job(sweep, 0, PARAMS, {"loss": course(1.0 + run)}, run=run) for run in range(2)]
    (result,) = found(sweep, *runs).results
    assert result.values == pytest.approx((1.5 + 0.5**0.5,))
    assert (len(result.runs), result.steps, result.trial.step) == (2, 60, 30)


def test_a_copy_of_a_population_costs_only_the_steps_since_it_was_copied() -> None:
    sweep = a_sweep(algorithm={"name": "pbt", "pbt": {"stepsPerGeneration": 10}})
    copied = {"pbt": {"generation": 1, "from": 0, "step": 20}}
    jobs = [
        a_job(sweep, 0, PARAMS, {"loss": course(1.0)}),
        a_job(sweep, 1, PARAMS, {"loss": course(0.5)}, attrs=copied),
    ]
    assert [each.steps for each in found(sweep, *jobs).results] == [30, 10]


def test_times_are_those_of_the_jobs_also_once_only_records_are_left() -> None:
    sweep = a_sweep()
    jobs = [
        a_job(sweep, 0, PARAMS, {"loss": course(1.0)}),
        a_job(sweep, 1, PARAMS, {"loss": course(1.0)}, phase="Suspended", stopped="late"),
        a_job(sweep, 2, PARAMS, phase="Running"),
    ]
    first, stopped, running = found(sweep, *jobs).results
    assert first.started == BEGAN
    assert first.ended is not None
    assert stopped.ended is not None
    assert running.ended is None
    (recorded,) = found(sweep, a_record(sweep, jobs[:1])).results
    assert (recorded.started, recorded.ended) == (first.started, first.ended)
    (old,) = found(sweep, of_an_earlier_version(a_record(sweep, jobs[:1]))).results
    assert (old.started, old.ended) == (None, None)


def test_a_failure_is_told_in_its_jobs_words_also_once_only_its_record_is_left() -> None:
    sweep = a_sweep()
    job = a_job(sweep, 0, PARAMS, phase="Failed")
    job["status"] |= {"reason": "OOMKilled", "message": "Worker 1 was OOMKilled."}
    for items in ([job], [a_record(sweep, [job])]):
        (failed,) = found(sweep, *items).results
        assert failed.why == "Worker 1 was OOMKilled."
    (old,) = found(sweep, of_an_earlier_version(a_record(sweep, [job]))).results
    assert old.why == "OOMKilled"


def test_an_ended_trial_is_settled_only_when_nothing_of_it_is_under_way() -> None:
    sweep = a_sweep()
    saving = a_job(sweep, 0, PARAMS, {"loss": course(1.0)}, phase="Running", stopped="late")
    done = a_job(sweep, 1, PARAMS, {"loss": course(1.0)}, phase="Suspended", stopped="late")
    first, second = found(sweep, saving, done).results
    assert (first.state, first.settled) == ("Stopped", False)
    assert (second.state, second.settled) == ("Stopped", True)


def test_with_several_objectives_there_is_a_front_and_no_best() -> None:
    sweep = a_sweep(objectives=[{"metric": "loss"}, {"metric": "acc", "direction": "Maximize"}])
    jobs = [
        a_job(sweep, index, PARAMS, {"loss": [(1, loss)], "acc": [(1, acc)]})
        for index, (loss, acc) in enumerate([(1.0, 0.5), (2.0, 0.9), (2.0, 0.4)])
    ]
    here = found(sweep, *jobs)
    assert here.best is None
    assert [each.index for each in here.front] == [0, 1]


def test_names_and_metrics_of_any_script_come_through() -> None:
    sweep = a_sweep(objectives=[{"metric": "Verlust ß 損失"}])
    job = a_job(
        sweep, 0, {**PARAMS, "optimizer": "sgd", "momentum": 0.1}, {"Verlust ß 損失": course(1)}
    )
    again = json.loads(json.dumps([sweep, job]))
    here = findings(again, "digits", NOW)
    assert here.best is not None
    assert len(here.best.course("Verlust ß 損失")) == 6
