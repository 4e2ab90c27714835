"""The policies together: what comes first, what waits, and when it is over."""

from dataclasses import replace
from typing import Any

import pytest
from job_views import (
    NOW,
    a_job,
    a_pod,
    a_report,
    a_view,
    at,
    condition,
    conditions,
    follow,
    running,
    settled,
    stamp,
)

from headway_api.runtime import TrainingRuntimeSpec
from headway_operator.trainingjob.plan import NOTHING, Deletion, Plan
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import Obstacle, View

RUNNING = running()


def names(plan: Plan) -> list[str]:
    return [body["metadata"]["name"] for body in plan.create]


def test_a_new_job_gets_its_pods_first_and_then_its_status() -> None:
    view = a_view(a_job())
    plan = reconcile(view, NOW)
    assert names(plan) == ["digits-0", "digits-1"]
    assert not plan.status_first, "pods exist soon; making one twice is harmless"
    assert plan.status is not None
    assert (plan.status.phase, plan.status.start_time) == ("Starting", stamp())
    assert conditions(plan.status) == {
        "Running": ("False", "Starting"),
        "Reconciling": ("True", "Starting"),
    }
    assert plan.events == ()


def test_the_whole_group_ready_is_running() -> None:
    first = a_view(a_job())
    begun = follow(first, reconcile(first, NOW))
    view = replace(begun, pods=a_view(a_job(), a_pod(0), a_pod(1)).pods)
    plan = reconcile(view, at(5))
    assert conditions(plan.status) == {"Running": ("True", "AllWorkersReady")}
    assert settled(follow(view, plan), at(9999))


def test_a_pod_that_is_unready_for_a_moment_changes_no_condition() -> None:
    unready = replace(a_pod(1), ready=False)
    plan = reconcile(a_view(a_job(status=RUNNING), a_pod(0), unready), NOW)
    assert plan.status is not None
    assert not plan.urgent
    assert conditions(plan.status)["Running"][0] == "True"


@pytest.mark.parametrize(
    "job",
    [
        a_job(managedBy="kueue.x-k8s.io/multikueue"),
        a_job(deleting=True),
        a_job(status=RUNNING, deleting=True),
    ],
)
def test_jobs_of_others_and_jobs_on_their_way_out_are_left_alone(job: Any) -> None:
    assert reconcile(a_view(job, a_pod(0, "Failed")), NOW) == NOTHING


def test_managed_by_us_is_ours() -> None:
    assert reconcile(a_view(a_job(managedBy="headway.dev/operator")), NOW).create


# --- losses -----------------------------------------------------------------------------------


def test_a_lost_pod_is_accounted_for_before_it_is_deleted() -> None:
    view = a_view(a_job(status=RUNNING), a_pod(0), a_pod(1, "Failed"))
    plan = reconcile(view, NOW)
    assert plan.status_first
    assert plan.delete == (Deletion("digits-1", "uid-1"),)
    assert plan.create == (), "its name is not free yet"
    assert plan.status is not None
    assert plan.status.restarts is not None
    assert plan.status.restarts.handled_pods == ["uid-1"]
    assert (plan.status.restarts.total, plan.status.restarts.counted) == (1, 1)
    assert plan.status.phase == "Restarting"
    assert [event.reason for event in plan.events] == ["Restarting"]
    # A crash after that write and before the deletion: it is deleted, and not counted again.
    again = reconcile(follow(view, plan), at(1))
    assert again.delete == plan.delete
    assert again.status is None


def test_the_others_keep_their_pods_and_the_lost_ones_name_is_used_again() -> None:
    view = a_view(a_job(status=RUNNING), a_pod(0), a_pod(1, "Failed"))
    after = follow(view, reconcile(view, NOW))
    plan = reconcile(replace(after, pods=after.pods[:1]), at(1))
    assert names(plan) == ["digits-1"]
    assert plan.delete == ()


def test_two_pods_lost_together_are_one_restart() -> None:
    plan = reconcile(a_view(a_job(status=RUNNING), a_pod(0, "Failed"), a_pod(1, "Failed")), NOW)
    assert plan.status is not None
    assert plan.status.restarts is not None
    assert plan.status.restarts.total == 1


def test_a_pod_that_only_lost_its_peers_is_an_echo_of_the_restart_under_way() -> None:
    status = running(phase="Restarting", restarts={"total": 1, "counted": 1})
    echo = replace(a_pod(1, "Failed"), exit_code=81)
    view = a_view(a_job(status=status), a_pod(0), echo)
    plan = reconcile(view, at(10))
    assert plan.status is not None
    assert plan.status.restarts is not None
    assert plan.status.restarts.total == 1
    assert plan.status.restarts.handled_pods == ["uid-1"]


def test_a_pod_sent_home_waits_for_its_lead_to_tell_why() -> None:
    """The lead that gives up ends last: its reason is the job's, not a pod that lost its peers."""
    sent = replace(a_pod(1, "Failed"), exit_code=81)
    view = a_view(a_job(status=RUNNING), a_pod(0), sent)
    assert reconcile(view, at(3)).delete == ()
    assert reconcile(view, at(3)).requeue_after == 7
    lead = replace(view.pods[0], phase="Failed", exit_code=78, ready=False, finished=at(3))
    plan = reconcile(replace(view, pods=(lead, view.pods[1])), at(4))
    assert conditions(plan.status)["Failed"] == ("True", "ConfigurationError")


def budget(total: int, maximum: int) -> View:
    status = running(restarts={"total": total, "counted": total})
    job = a_job(status=status, failurePolicy={"maxRestarts": maximum})
    return a_view(job, a_pod(0), a_pod(1, "Failed"))


@pytest.mark.parametrize(("used", "maximum", "fails"), [(0, 1, False), (1, 1, True), (0, 0, True)])
def test_the_job_fails_when_another_restart_is_not_to_be_had(
    used: int, maximum: int, fails: bool
) -> None:
    plan = reconcile(budget(used, maximum), NOW)
    assert plan.status is not None
    assert (plan.status.reason == "RestartBudgetExhausted") is fails
    if fails:
        assert plan.delete == (Deletion("digits-0", "uid-0"),), "ended pods stay for their logs"
        assert plan.status_first


def test_infrastructure_does_not_use_up_the_budget() -> None:
    view = budget(1, 1)
    evicted = replace(view.pods[1], disruption="EvictionByEvictionAPI")
    plan = reconcile(replace(view, pods=(view.pods[0], evicted)), NOW)
    assert plan.status is not None
    assert plan.status.restarts is not None
    assert (plan.status.restarts.total, plan.status.restarts.counted) == (2, 1)


def test_a_rule_that_says_fail_is_named() -> None:
    rule = {"name": "oom", "action": "Fail", "onReasons": ["OOMKilled"]}
    job = a_job(status=RUNNING, failurePolicy={"rules": [rule]})
    dead = replace(a_pod(1, "Failed"), terminated_reason="OOMKilled", exit_code=137)
    plan = reconcile(a_view(job, a_pod(0), dead), NOW)
    assert conditions(plan.status)["Failed"] == ("True", "OOMKilled")
    assert plan.status is not None
    assert "rule oom" in (plan.status.message or "")
    assert "137" in (plan.status.message or "")


def test_a_crash_loop_waits_before_the_pod_is_deleted_and_says_when_to_look() -> None:
    last = {"time": stamp(), "reason": "Error"}
    status = running(
        phase="Restarting",
        restarts={"total": 4, "counted": 4, "last": last, "handledPods": ["uid-1"]},
    )
    view = a_view(a_job(status=status), a_pod(0), a_pod(1, "Failed", lived=3))
    assert reconcile(view, at(1)).delete == ()
    assert reconcile(view, at(1)).requeue_after == 3
    assert reconcile(view, at(4)).delete == (Deletion("digits-1", "uid-1"),)


def test_the_lead_beyond_the_budget_ends_the_job() -> None:
    job = a_job(status=RUNNING, failurePolicy={"maxRestarts": 1})
    report = a_report(restartsTotal=2, restartsCounted=2)
    plan = reconcile(a_view(job, a_pod(0), a_pod(1), progress=report), NOW)
    assert conditions(plan.status)["Failed"] == ("True", "RestartBudgetExhausted")


# --- ends -------------------------------------------------------------------------------------


def test_the_leads_success_is_the_jobs() -> None:
    """The lead ends with 0 only when all ranks have: who still runs is about to end."""
    view = a_view(a_job(status=RUNNING), a_pod(0, "Succeeded"), a_pod(1))
    plan = reconcile(view, NOW)
    assert conditions(plan.status) == {
        "Running": ("False", "Succeeded"),
        "Succeeded": ("True", "Succeeded"),
    }
    assert plan.delete == ()
    assert plan.requeue_after == 60
    assert reconcile(follow(view, plan), at(60)).delete == (Deletion("digits-1", "uid-1"),)


def test_a_success_wins_over_a_suspension_that_came_too_late() -> None:
    job = a_job(status=RUNNING, suspend=True)
    plan = reconcile(a_view(job, a_pod(0, "Succeeded"), a_pod(1)), NOW)
    assert plan.status is not None
    assert plan.status.phase == "Succeeded"


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_an_end_is_never_taken_back(end: str) -> None:
    """Whatever pods do and users edit afterwards."""
    status = running(phase=end, completionTime=stamp(), conditions=[condition(end, "True", "Why")])
    for spec in ({}, {"suspend": True}, {"image": "other"}, {"activeDeadlineSeconds": 1}):
        job = a_job(status=status, generation=2, **spec)
        plan = reconcile(a_view(job, a_pod(0, "Failed"), a_pod(1, "Failed")), at(9999))
        assert plan.create == ()
        assert plan.delete == ()
        assert plan.status == job.status.model_copy(update={"observed_generation": 2})


def test_a_job_expires_after_its_time_to_live() -> None:
    status = running(
        phase="Succeeded",
        completionTime=stamp(),
        conditions=[condition("Succeeded", "True", "Why")],
    )
    view = a_view(a_job(status=status, ttlSecondsAfterFinished=30))
    assert reconcile(view, at(10)).requeue_after == 20
    assert reconcile(view, at(30)).delete_job


@pytest.mark.parametrize(
    ("spec", "status", "reason"),
    [
        ({"activeDeadlineSeconds": 3600}, RUNNING, "DeadlineExceeded"),
        ({"activeDeadlineSeconds": 3601}, RUNNING, None),
        ({"scheduling": {"startTimeoutSeconds": 60}}, running(phase="Starting"), "StartTimeout"),
        ({"scheduling": {"startTimeoutSeconds": 60}}, RUNNING, None),
    ],
)
def test_a_job_that_takes_too_long_fails(
    spec: dict[str, Any], status: dict[str, Any], reason: str | None
) -> None:
    waiting = replace(a_pod(1, "Pending"), waiting="Unschedulable: no GPU")
    view = a_view(a_job(status=status, **spec), a_pod(0), waiting)
    plan = reconcile(view, NOW)
    assert plan.status is None or ("Failed" in conditions(plan.status)) is (reason is not None)
    if reason is not None:
        assert conditions(plan.status)["Failed"] == ("True", reason)
    if reason == "StartTimeout":
        assert plan.status is not None
        assert "no GPU" in (plan.status.message or ""), "it says what the pods waited for"


def test_a_group_that_got_ready_just_in_time_is_not_failed() -> None:
    """The operator was away: what counts is whether the group is there now."""
    job = a_job(status=running(phase="Starting"), scheduling={"startTimeoutSeconds": 60})
    plan = reconcile(a_view(job, a_pod(0), a_pod(1)), NOW)
    assert plan.status is not None
    assert plan.status.phase == "Running"


# --- what only the user can mend ------------------------------------------------------------------


def test_an_unknown_pool_stalls_and_nothing_loops() -> None:
    view = a_view(a_job(gpu={"pools": ["h100"]}))
    plan = reconcile(view, NOW)
    assert plan.create == ()
    assert conditions(plan.status) == {
        "Running": ("False", "Stalled"),
        "Stalled": ("True", "UnknownPool"),
    }
    assert plan.status is not None
    assert plan.status.phase == "Pending"
    assert plan.requeue_after is None
    assert settled(follow(view, plan), at(9999))


def test_what_is_mended_is_no_longer_stalled() -> None:
    stalled = a_view(a_job(gpu={"pools": ["h100"]}))
    status = reconcile(stalled, NOW).status
    plan = reconcile(replace(stalled, job=replace(a_job(), status=status)), at(60))
    assert names(plan) == ["digits-0", "digits-1"]
    assert "Stalled" not in conditions(plan.status)


def test_a_missing_runtime_is_waited_for_and_kept_once_found() -> None:
    view = a_view(a_job(image=None, command=None, runtimeRef={"name": "torch"}))
    waiting = reconcile(view, NOW)
    assert conditions(waiting.status)["Stalled"] == ("True", "RuntimeNotFound")
    found = TrainingRuntimeSpec.model_validate({"image": "base", "command": ["c"]})
    plan = reconcile(replace(follow(view, waiting), runtime=found), at(1))
    assert plan.create[0]["spec"]["containers"][0]["image"] == "base"
    assert plan.status is not None
    assert plan.status.runtime == {"image": "base", "command": ["c"]}


def test_a_refused_pod_stalls_with_the_servers_sentence() -> None:
    refused = Obstacle("Refused", "The API server refused Pod digits-1: bad volume.")
    plan = reconcile(a_view(a_job(), a_pod(0), obstacle=refused), NOW)
    assert plan.create == ()
    assert conditions(plan.status)["Stalled"] == ("True", "Refused")
    assert plan.status is not None
    assert plan.status.phase == "Pending"
    assert "bad volume" in (plan.status.message or "")


def test_a_quota_is_told_and_not_stalled() -> None:
    forbidden = Obstacle("Forbidden", "exceeded quota.")
    plan = reconcile(a_view(a_job(), obstacle=forbidden), NOW)
    assert "Stalled" not in conditions(plan.status)
    assert plan.status is not None
    assert (plan.status.reason, plan.status.phase) == ("Forbidden", "Starting")


def test_a_bad_edit_leaves_pods_that_run_to_their_work() -> None:
    view = a_view(a_job(status=RUNNING), a_pod(0), a_pod(1))
    edited = a_job(status=RUNNING, generation=2, pod={"env": [{"name": "HEADWAY_X"}]})
    plan = reconcile(replace(view, job=edited), NOW)
    assert plan.delete == ()
    assert conditions(plan.status)["Stalled"] == ("True", "ReservedVariable")


# --- edits and namesakes --------------------------------------------------------------------------


def test_an_edited_spec_replaces_the_whole_group_in_a_new_attempt() -> None:
    view = a_view(a_job(status=RUNNING), a_pod(0), a_pod(1))
    plan = reconcile(replace(view, job=a_job(status=RUNNING, image="new")), NOW)
    assert plan.status is not None
    assert plan.status.attempt == 2
    assert plan.status_first
    assert {deletion.name for deletion in plan.delete} == {"digits-0", "digits-1"}
    assert plan.status.restarts is None, "what the user wants is no failure"


def test_a_smaller_group_loses_its_surplus() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 4}
    job = a_job(status=RUNNING, workers={"replicas": 1, "elastic": elastic})
    plan = reconcile(a_view(job, a_pod(0), a_pod(1)), NOW)
    assert plan.delete == (Deletion("digits-1", "uid-1"),)


def test_a_namesakes_pods_are_waited_for_and_never_adopted() -> None:
    left = replace(a_pod(0), owner="an earlier job", deleting=at(60))
    plan = reconcile(a_view(a_job(), namesakes=(left,)), NOW)
    assert names(plan) == ["digits-1"]
    assert plan.delete == ()
    assert plan.status is not None
    assert "earlier job of this name are still there: digits-0" in (plan.status.message or "")


def test_gated_pods_are_queued() -> None:
    pods = (replace(a_pod(0, "Pending"), gated=True), a_pod(1, "Pending"))
    plan = reconcile(a_view(a_job(), *pods), NOW)
    assert plan.status is not None
    assert plan.status.phase == "Queued"
