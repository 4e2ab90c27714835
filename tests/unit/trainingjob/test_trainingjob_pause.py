"""A job that has come to `spec.pauseAtStep`: it rests until the step is raised or removed."""

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
    conditions,
    follow,
    running,
    settled,
)

from headway_api.contract import ExitCode
from headway_api.messages import TerminationReport
from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import Pod, View

BOTH = (Deletion("digits-0", "uid-0"), Deletion("digits-1", "uid-1"))
STORAGE = {"uri": "s3://bucket"}


def spec(pause: int | None, **more: Any) -> dict[str, Any]:
    return {"storage": STORAGE, "pauseAtStep": pause, **more}


def gone(index: int, step: int | None = 20) -> Pod:
    """A pod that has ended for a pause; its lead has told after which step."""
    words = TerminationReport(
        reason="Paused",
        exit_code=ExitCode.PAUSED,
        progress=a_report(step=step) if index == 0 else None,
    )
    return a_pod(index, "Failed", exit_code=ExitCode.PAUSED, report=words)


def paused(pause: int | None = 20, **status: Any) -> View:
    """A view of a job whose lead says that it has paused after step 20."""
    job = a_job(status=running(**status), **spec(pause))
    return a_view(job, gone(0), gone(1), progress=a_report(step=20, metrics={"loss": "0.5"}))


def resting(pause: int | None = 20) -> View:
    """The same when its pods are gone."""
    view = paused(pause)
    view = replace(follow(view, reconcile(view, NOW)), pods=())
    return follow(view, reconcile(view, at(5)))


def edited(view: View, **fields: Any) -> View:
    """The view after its user has changed the job's spec."""
    changed = replace(view.job, spec=view.job.spec.model_copy(update=fields), generation=2)
    return replace(view, job=changed)


def test_the_pods_are_removed_and_nothing_counts() -> None:
    plan = reconcile(paused(), NOW)
    assert plan.delete == BOTH
    assert plan.status_first, "the pods are the only ones that know of the pause"
    assert plan.status is not None
    assert plan.status.paused_at_step == 20
    assert plan.status.restarts is None or not plan.status.restarts.total
    assert conditions(plan.status)["Suspended"] == ("False", "Suspending")


def test_it_is_suspended_when_the_last_pod_is_gone_and_says_how_to_go_on() -> None:
    view = resting()
    status = view.job.status
    assert conditions(status) == {
        "Running": ("False", "PausedAtStep"),
        "Suspended": ("True", "PausedAtStep"),
    }
    assert (status.phase, status.reason) == ("Suspended", "PausedAtStep")
    assert "after step 20" in (status.message or "")
    assert "raise it or remove it" in (status.message or "")
    assert (status.active_seconds, status.start_time) == (3605, None)
    assert status.progress is not None
    assert status.progress.step == 20
    assert settled(view, at(9999))


def test_the_pause_holds_though_nobody_remembers_the_lead_any_more() -> None:
    """The operator died after its first write; the lead's pod is gone, worker 1 still ends."""
    view = paused()
    view = replace(follow(view, reconcile(view, NOW)), progress=None)
    plan = reconcile(replace(view, pods=(a_pod(1),)), at(5))
    assert plan.create == ()
    assert plan.delete == BOTH[1:]
    plan = reconcile(replace(view, pods=()), at(9))
    assert plan.create == ()
    assert conditions(plan.status)["Suspended"] == ("True", "PausedAtStep")


@pytest.mark.parametrize("step", [1, 19, 20])
def test_a_step_that_has_passed_changes_nothing(step: int) -> None:
    plan = reconcile(edited(resting(), pause_at_step=step), at(100))
    assert plan.create == plan.delete == ()
    assert conditions(plan.status)["Suspended"] == ("True", "PausedAtStep")


@pytest.mark.parametrize("step", [21, None])
def test_raised_or_removed_it_goes_on_with_a_new_attempt(step: int | None) -> None:
    plan = reconcile(edited(resting(), pause_at_step=step), at(1000))
    assert [pod["metadata"]["name"] for pod in plan.create] == ["digits-0", "digits-1"]
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.phase) == (2, "Starting")
    assert plan.status.paused_at_step is None
    assert plan.status.active_seconds == 3605, "time at rest is free"
    assert conditions(plan.status)["Suspended"] == ("False", "Resumed")
    assert plan.events == (), "a pause is no news to anybody"
    assert plan.status_first


def test_raised_before_the_pause_was_noticed_it_goes_on_at_once() -> None:
    plan = reconcile(paused(30), NOW)
    assert plan.delete == BOTH
    assert plan.create == (), "their names are still taken"
    assert plan.status is not None
    assert plan.status.attempt == 2
    assert plan.status.paused_at_step is None
    assert plan.status.restarts is None or not plan.status.restarts.total


def test_suspended_and_taken_back_it_is_still_paused() -> None:
    view = edited(resting(), suspend=True)
    view = follow(view, reconcile(view, at(50)))
    assert conditions(view.job.status)["Suspended"] == ("True", "Suspended")
    view = edited(view, suspend=False)
    plan = reconcile(view, at(60))
    assert plan.create == ()
    assert conditions(plan.status)["Suspended"] == ("True", "PausedAtStep")
    assert plan.status is not None
    assert plan.status.active_seconds == 3605


def test_a_pause_that_comes_while_it_is_being_suspended_is_remembered() -> None:
    view = edited(paused(), suspend=True)
    plan = reconcile(view, NOW)
    assert plan.status is not None
    assert plan.status.paused_at_step == 20
    view = edited(replace(follow(view, plan), pods=()), suspend=False)
    plan = reconcile(view, at(9))
    assert plan.create == ()
    assert conditions(plan.status)["Suspended"] == ("True", "PausedAtStep")


def test_a_worker_that_ends_before_its_lead_is_no_loss() -> None:
    job = a_job(status=running(), **spec(20))
    plan = reconcile(a_view(job, a_pod(0), gone(1)), at(5))
    assert plan.delete == ()
    assert plan.status is None or plan.status.restarts is None


@pytest.mark.parametrize("lead", [None, gone(0, step=None)], ids=["deleted", "without a word"])
def test_a_lead_that_can_not_tell_the_step_is_made_again_and_nothing_counts(
    lead: Pod | None,
) -> None:
    """The new one restores what was saved, and pauses there."""
    job = a_job(status=running(), **spec(20))
    pods = (gone(1),) if lead is None else (lead, gone(1))
    plan = reconcile(a_view(job, *pods), at(60))
    assert plan.status is not None
    assert plan.status.paused_at_step is None
    assert plan.status.phase == "Restarting"
    assert plan.status.restarts is not None
    assert (plan.status.restarts.total, plan.status.restarts.counted) == (1, 0)


def test_a_training_that_ends_before_has_succeeded() -> None:
    job = a_job(status=running(), **spec(20))
    plan = reconcile(a_view(job, a_pod(0, "Succeeded"), a_pod(1, "Succeeded")), NOW)
    assert plan.status is not None
    assert plan.status.phase == "Succeeded"


def test_pods_are_not_made_anew_because_the_step_changes() -> None:
    before, after = (a_job(status=running(), **spec(step)) for step in (20, 30))
    plan = reconcile(replace(a_view(before, a_pod(0), a_pod(1)), job=after), NOW)
    assert plan.delete == plan.create == ()


def test_without_storage_it_could_not_save() -> None:
    """With a runtime the API server can't know."""
    runtime = {"image": "i", "command": ["c"]}
    job = a_job(
        status=running(runtime=runtime),
        runtimeRef={"name": "base"},
        image=None,
        command=None,
        pauseAtStep=20,
    )
    plan = reconcile(View(job=job), NOW)
    assert conditions(plan.status)["Stalled"] == ("True", "StorageMissing")
