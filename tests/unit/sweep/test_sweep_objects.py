"""From objects to trials and back: what a sweep knows is in them, and survives them."""

import json
from dataclasses import replace
from typing import Any

import pytest

from headway_api import contract
from headway_api.sweep import SweepSpec
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.sweep import records, warmstart
from headway_operator.sweep.index import Index
from headway_operator.sweep.trials import runs_of, state_of
from headway_operator.sweep.view import RunJob, Sweep, View, parse_run, parse_sweep

KEY = ("lab", "digits")
OWNER = {"uid": "sweep-uid", "controller": True}


def a_sweep(**spec: Any) -> Sweep:
    body: dict[str, Any] = {
        "parameters": [{"name": "x", "float": {"min": 0, "max": 1}}],
        "objectives": [{"metric": "loss"}],
        "maxTrials": 5,
        "template": {"spec": {}},
        **spec,
    }
    metadata = {
        "namespace": "lab",
        "name": "digits",
        "uid": "sweep-uid",
        "resourceVersion": "1",
    }
    return parse_sweep({"metadata": metadata, "spec": body})


def observation(*values: float) -> list[dict[str, Any]]:
    points = [{"step": step, "value": repr(value)} for step, value in enumerate(values, 1)]
    numbers = sorted((p for p in points if p["value"] != "nan"), key=lambda p: float(p["value"]))
    ends = {"min": numbers[0], "max": numbers[-1]} if numbers else {}
    return [{"metric": "loss", "last": points[-1], "curve": points, **ends}]


def a_job(index: int, number: int = 0, *, version: int = 1, **status: Any) -> dict[str, Any]:
    told = {"params": {"x": 0.1 * index}, "attrs": {"tpe": {"index": index}}}
    return {
        "metadata": {
            "namespace": "lab",
            "name": contract.trial_name("digits", index, number),
            "uid": f"uid-{index}-{number}",
            "resourceVersion": str(version),
            "labels": {
                contract.LABEL_SWEEP: "digits",
                contract.LABEL_TRIAL: str(index),
                contract.LABEL_RUN: str(number),
            },
            "annotations": {contract.ANNOTATION_TRIAL: json.dumps(told)},
            "ownerReferences": [OWNER],
        },
        "spec": {},
        "status": status,
    }


def a_run(index: int = 0, number: int = 0, **status: Any) -> RunJob:
    found = parse_run(a_job(index, number, **status))
    assert found is not None
    return found


SPEC: SweepSpec = a_sweep().spec


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        ({}, {}, "Running"),
        ({"phase": "Running", "observations": observation(1.0)}, {}, "Running"),
        ({"phase": "Succeeded", "observations": observation(1.0)}, {}, "Complete"),
        ({"phase": "Succeeded"}, {}, "Failed"),
        ({"phase": "Succeeded", "observations": observation(float("nan"))}, {}, "Failed"),
        ({"phase": "Failed", "observations": observation(1.0)}, {}, "Failed"),
        ({"phase": "Suspended", "reason": "Suspended"}, {}, "Running"),
        ({"phase": "Suspended", "observations": observation(1.0)}, {"stopped": "x"}, "Stopped"),
        ({"phase": "Suspended"}, {"stopped": "x"}, "Failed"),
        (
            {"phase": "Suspended", "reason": "PausedAtStep", "progress": {"step": 9}},
            {"pause_at": 9},
            "Paused",
        ),
        (
            {"phase": "Suspended", "reason": "PausedAtStep", "progress": {"step": 9}},
            {"pause_at": 27},
            "Running",
        ),
        (
            {"phase": "Suspended", "reason": "PausedAtStep", "progress": {"step": 9}},
            {"pause_at": None},
            "Running",
        ),
    ],
)
def test_a_trials_state_follows_from_its_job(
    status: dict[str, Any], fields: dict[str, Any], expected: str
) -> None:
    assert state_of(SPEC, replace(a_run(**status), **fields)) == expected


def test_a_configuration_is_over_when_all_of_its_runs_are() -> None:
    sweep = a_sweep(repeats={"count": 2, "spreadWeight": 1})
    first = a_run(0, 0, phase="Succeeded", observations=observation(1.0))
    (one,) = runs_of(View(sweep, (first,)))
    assert (one.trial.state, one.missing) == ("Running", (1,))
    second = a_run(0, 1, phase="Succeeded", observations=observation(3.0))
    (both,) = runs_of(View(sweep, (first, second)))
    assert (both.trial.state, both.missing) == ("Complete", ())
    assert both.trial.values == pytest.approx((2 + 2**0.5,))


def test_a_record_says_what_the_job_said() -> None:
    run = replace(
        a_run(3, phase="Succeeded", observations=observation(2.0, float("nan"), float("inf"), 1.0)),
        checkpoint="s3://b/c",
        step=4,
        pause_at=9,
    )
    sweep = a_sweep()
    body = records.record(sweep, 3, dict([records.entry(run)]))
    (found,) = records.parsed(json.loads(json.dumps(body)))
    assert repr(found) == repr(replace(run, version=0))  # NaN is not equal to itself
    assert repr(runs_of(View(sweep, (), (found,)))[0].trial) == repr(
        runs_of(View(sweep, (run,)))[0].trial
    )


def test_odd_entries_of_a_record_are_passed_over() -> None:
    body = {"metadata": {}, "spec": {"runs": {"a-b": {}, "1-0": {"name": 1}, "warm-1": {}}}}
    assert list(records.parsed(body)) == []


def test_of_two_states_of_a_job_the_newer_stays_in_any_order() -> None:
    index = Index()
    assert index.put(TRAINING_JOB, a_job(0, version=5, phase="Succeeded")) == KEY
    assert index.put(TRAINING_JOB, a_job(0, version=4, phase="Running")) is None
    (job,) = index.jobs(KEY)
    assert job.phase == "Succeeded"


def test_what_nobody_reads_is_no_news() -> None:
    index = Index()
    index.put(TRAINING_JOB, a_job(0, version=1, phase="Running"))
    assert index.put(TRAINING_JOB, a_job(0, version=2, phase="Running", ready="2/2")) is None
    assert index.put(TRAINING_JOB, a_job(0, version=3, phase="Succeeded")) == KEY


def test_a_deleted_job_does_not_come_back_with_a_late_answer() -> None:
    index = Index()
    job = a_job(0)
    index.put(TRAINING_JOB, job)
    assert index.remove(TRAINING_JOB, {"metadata": {**job["metadata"], "labels": None}}) == KEY
    assert index.put(TRAINING_JOB, a_job(0, version=9)) is None
    assert index.jobs(KEY) == ()


def test_jobs_of_others_are_not_looked_at() -> None:
    index = Index()
    job = a_job(0)
    del job["metadata"]["labels"]
    assert index.put(TRAINING_JOB, job) is None
    foreign = a_job(1)
    del foreign["metadata"]["annotations"]
    assert index.put(TRAINING_JOB, foreign) is None
    assert index.jobs(KEY) == ()


def test_a_sweep_that_comes_again_under_its_name_is_another() -> None:
    index = Index()
    body = {"metadata": {"namespace": "lab", "name": "digits", "resourceVersion": "1"}}
    first = {"metadata": {**body["metadata"], "uid": "a"}}
    second = {"metadata": {**body["metadata"], "uid": "b", "resourceVersion": "2"}}
    index.put(SWEEP, first)
    index.put(SWEEP, second)
    assert index.remove(SWEEP, first) is None
    assert index.sweep(KEY) == second


def test_what_a_sweep_has_taken_over_is_read_again_as_it_was() -> None:
    other = a_sweep(objectives=[{"metric": "loss"}, {"metric": "loss2"}])
    done = [a_run(i, phase="Succeeded", observations=observation(1.0 / (i + 1))) for i in range(3)]
    failed = a_run(3, phase="Failed", observations=observation(0.0))
    sweep = a_sweep()
    trials = warmstart.found(sweep, [View(other, (*done, failed))])
    assert [trial.values for trial in trials] == [(1.0,), (0.5,), (1 / 3,)]
    body = json.loads(json.dumps(warmstart.record(sweep, trials)))
    index = Index()
    body["metadata"] |= {"uid": "w", "resourceVersion": "3"}
    assert index.put(SWEEP_RECORD, body) == KEY
    kept = index.warm(KEY, "sweep-uid")
    assert kept is not None
    assert [(t.index, t.params, t.values) for t in kept] == [
        (t.index, t.params, t.values) for t in trials
    ]
    assert index.warm(KEY, "another") is None
    assert index.records(KEY) == ()
