"""Conditions, counts and progress, as docs/concepts/status.md promises them."""

from dataclasses import replace
from typing import Any

import pytest
from job_views import NOW, a_job, a_pod, a_report, condition, running, stamp

from headway_api.observations import merged, report
from headway_api.trainingjob import Observe, TrainingJobStatus
from headway_operator.trainingjob.conditions import Claim, with_claims
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.status import counts, difference, ended, with_progress


def status(**fields: Any) -> TrainingJobStatus:
    return TrainingJobStatus.model_validate(running(**fields))


def claimed(kind: str, holds: bool, message: str = "") -> dict[str, Any]:
    before = status().conditions
    found = with_claims(before, [Claim(kind, holds, "Why", message)], generation=2, now=NOW)
    return {item.type: item for item in found}


def test_a_transition_time_moves_only_with_the_status() -> None:
    same = claimed("Running", True, "told anew")["Running"]
    assert same.last_transition_time == stamp(-1800)
    assert (same.reason, same.message, same.observed_generation) == ("Why", "told anew", 2)
    assert claimed("Running", False)["Running"].last_transition_time == stamp()


@pytest.mark.parametrize("kind", ["Stalled", "Reconciling"])
def test_what_kstatus_reads_is_there_only_while_it_holds(kind: str) -> None:
    assert claimed(kind, True)[kind].status == "True"
    assert kind not in claimed(kind, False)
    held = TrainingJobStatus.model_validate({"conditions": [condition(kind, "True", "Why")]})
    assert with_claims(held.conditions, [Claim(kind, False, "")], generation=1, now=NOW) == []


def test_other_conditions_stay_as_they_are() -> None:
    assert claimed("Suspended", True)["Running"].last_transition_time == stamp(-1800)


def test_a_long_message_is_cut_to_what_the_schema_allows() -> None:
    assert len(claimed("Failed", True, "x" * 5000)["Failed"].message) == 4096


def test_pods_are_counted_by_what_they_do() -> None:
    pods = (a_pod(0), a_pod(1, "Succeeded"), a_pod(2, "Failed"), a_pod(3, "Pending"))
    group = Group.of(pods, attempt=1, replicas=5, handled=())
    found = counts(group)
    assert found["workers"].wire() == {
        "desired": 5,
        "ready": 1,
        "active": 2,
        "succeeded": 1,
        "failed": 1,
    }
    assert found["ready"] == "1/5"


def test_pods_of_another_attempt_or_beyond_the_size_are_not_of_the_group() -> None:
    pods = (a_pod(0), replace(a_pod(1), attempt=0), a_pod(2), a_pod(-1))
    group = Group.of(pods, attempt=1, replicas=2, handled=())
    assert [pod.name for pod in group.members] == ["digits-0"]
    assert len(group.others) == 3
    assert group.missing == (1,)


@pytest.mark.parametrize(
    ("phases", "complete"),
    [
        (["Running", "Running"], True),
        (["Running", "Succeeded"], True),
        (["Running", "Pending"], False),
        (["Running", "Failed"], False),
        (["Running"], False),
    ],
)
def test_a_group_is_complete_when_each_index_runs_or_is_done(
    phases: list[str], complete: bool
) -> None:
    pods = tuple(a_pod(index, phase) for index, phase in enumerate(phases))
    assert Group.of(pods, attempt=1, replicas=2, handled=()).complete is complete


def test_the_end_is_told_in_full() -> None:
    stalled = status(conditions=[condition("Stalled", "True", "Why")])
    group = Group.of((a_pod(0, "Succeeded"), a_pod(1)), attempt=1, replicas=2, handled=())
    found = ended(stalled, group, "Succeeded", "Done", "All.", generation=1, now=NOW)
    assert [(item.type, item.status) for item in found.conditions or ()] == [
        ("Succeeded", "True"),
        ("Running", "False"),
    ]
    assert found.completion_time == stamp()
    assert found.active_seconds == 3600
    assert found.workers is not None
    assert found.workers.succeeded == 2


def test_progress_is_written_as_strings_and_bounded() -> None:
    metrics = {f"m{number:03}": "1" * 100 for number in range(100)}
    report = a_report(step=30, totalSteps=40, metrics=metrics, updatedAt=stamp())
    progress = with_progress(status(), report).progress
    assert progress is not None
    assert progress.percent == 75
    assert progress.metrics is not None
    assert len(progress.metrics) == 64
    assert progress.metrics["m000"] == "1" * 64


@pytest.mark.parametrize(("step", "percent"), [(0, 0), (50, 100), (-3, 0), (None, None)])
def test_percent_stays_within_its_bounds(step: int | None, percent: int | None) -> None:
    report = a_report(step=step, totalSteps=40, metrics={"loss": "1"})
    progress = with_progress(status(), report).progress
    assert progress is not None
    assert progress.percent == percent


def test_a_report_in_which_only_the_clock_moved_changes_nothing() -> None:
    first = with_progress(status(), a_report(step=3, etaSeconds=9, updatedAt=stamp()))
    again = with_progress(first, a_report(step=3, etaSeconds=7, updatedAt=stamp(60)))
    assert again == first


def test_the_newest_and_the_best_checkpoint_are_kept() -> None:
    newest: dict[str, Any] = {"step": 5, "uri": "s3://b/5", "time": stamp()}
    best = {"bestStep": 4, "bestUri": "s3://b/4", "bestMetric": "loss", "bestValue": "0.1"}
    one = with_progress(status(), a_report(checkpoint=newest | best, resumedFromStep=2))
    two = with_progress(one, a_report(checkpoint=newest | {"step": 6}))
    assert two.checkpoint is not None
    assert two.checkpoint.step == 6
    assert two.checkpoint.resumed_from_step == 2
    assert two.checkpoint.best is not None
    assert two.checkpoint.best.step == 4


def test_what_a_checkpoint_took_is_rounded_up() -> None:
    newest = {"step": 5, "uri": "s3://b/5", "time": stamp()}
    one = with_progress(status(), a_report(checkpoint=newest | {"seconds": 12.01}))
    assert one.checkpoint is not None
    assert one.checkpoint.seconds == 13
    two = with_progress(one, a_report(checkpoint=newest | {"step": 6}))  # by an older agent
    assert two.checkpoint is not None
    assert two.checkpoint.seconds == 13


def test_a_checkpoint_passed_over_stays_told_until_the_next_clean_restore() -> None:
    why = "step 300 of generation 2: part 1 is cut off"
    bad = a_report(resumedFromStep=200, restoredFrom="Storage", fallback=why + "!" * 2000)
    told = with_progress(status(), bad)
    assert told.checkpoint is not None
    assert told.checkpoint.fallback is not None
    assert told.checkpoint.fallback.startswith(why)
    assert len(told.checkpoint.fallback) == 1024
    assert told.checkpoint.restored_from == "Storage"
    unrestored = with_progress(told, a_report(step=201))
    assert unrestored.checkpoint == told.checkpoint
    clean = with_progress(told, a_report(resumedFromStep=210, restoredFrom="Memory"))
    assert clean.checkpoint is not None
    assert (clean.checkpoint.fallback, clean.checkpoint.restored_from) == (None, "Memory")


def test_skipped_saves_are_counted_by_the_lead_of_now() -> None:
    counted = with_progress(status(), a_report(savesSkipped=3))
    assert counted.checkpoint is not None
    assert counted.checkpoint.skipped == 3
    anew = with_progress(counted, a_report(session="two", savesSkipped=0))
    assert anew.checkpoint is not None
    assert anew.checkpoint.skipped == 0
    assert with_progress(status(), a_report()).checkpoint is None


RESTARTED = {"total": 1, "counted": 1, "handledPods": ["u"]}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, "none"),
        ({}, {"phase": "Restarting"}, "urgent"),
        ({}, {"observedGeneration": 2}, "urgent"),
        ({}, {"attempt": 2}, "urgent"),
        ({}, {"runtime": {"image": "i"}}, "urgent"),
        ({}, {"restarts": RESTARTED}, "urgent"),
        ({}, {"progress": {"step": 1}}, "soft"),
        ({}, {"message": "other"}, "soft"),
        ({}, {"restarts": {"total": 1}}, "soft"),
        # Who leads, and how often it began, goes with the next write: a healthy job pays nothing.
        ({}, {"generation": 1}, "none"),
        ({}, {"restarts": {"lead": {"session": "s", "total": 0, "counted": 0}}}, "none"),
        ({}, {"checkpoint": {"skipped": 1}}, "none"),
        ({"checkpoint": {"step": 1}}, {"checkpoint": {"step": 1, "skipped": 1}}, "none"),
        ({"checkpoint": {"step": 1}}, {"checkpoint": {"step": 2, "skipped": 1}}, "soft"),
        ({}, {"checkpoint": {"fallback": "step 3"}}, "soft"),
        ({"restarts": {"silentNodes": [{"name": "n", "time": stamp()}]}}, {}, "none"),
        # UIDs of pods that are gone leave with the next write, not with one of their own.
        ({"restarts": RESTARTED}, {"restarts": {"total": 1, "counted": 1}}, "none"),
    ],
)
def test_what_has_to_be_written_at_once_and_what_may_wait(
    old: dict[str, Any], new: dict[str, Any], expected: str
) -> None:
    assert difference(status(**old), status(**new)) == expected


def test_a_status_survives_the_wire() -> None:
    """What is read back is what was written, so that nothing is written twice."""
    job = a_job(status=running(restarts=RESTARTED, progress={"step": 1}))
    assert TrainingJobStatus.model_validate(job.status.wire()) == job.status


def test_the_course_of_what_is_observed_is_put_together_and_may_wait() -> None:
    """A new lead's session begins empty: what earlier ones told stays."""
    observe = Observe(metrics=["val", "loss"])
    first = [report("loss", 1, 3.0), report("val", 1, 0.25)]
    old = with_progress(status(), a_report(step=1, observations=first), observe)
    assert old.observations == [first[1], first[0]], "in the order of the spec"
    told = a_report(session="two", step=1, observations=[report("loss", 2, 0.1)])
    new = with_progress(old, told, observe)
    assert new.observations is not None
    assert new.observations[1] == merged(first[0], report("loss", 2, 0.1))
    assert difference(old, new) == "soft"
    assert with_progress(new, told, observe).observations == new.observations


def test_what_is_observed_no_longer_leaves_the_status() -> None:
    observed = [report("loss", 1, 3.0).wire(), report("val", 1, 0.25).wire()]
    old = status(observations=observed)
    assert with_progress(old, a_report(), Observe(metrics=["val"])).observations == [
        report("val", 1, 0.25)
    ]
    assert with_progress(old, a_report(), None).observations is None


def test_a_lead_that_comes_back_to_a_step_wipes_out_no_metrics() -> None:
    old = status(progress={"step": 20, "metrics": {"loss": "0.5"}})
    assert with_progress(old, a_report(step=20)).progress == old.progress
    progress = with_progress(old, a_report(step=10)).progress
    assert progress is not None
    assert progress.step == 10
