"""Giving up all pods, and coming back."""

from dataclasses import replace

from job_views import NOW, a_job, a_pod, a_view, at, condition, conditions, follow, running, settled

from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.reconcile import reconcile

BOTH = (Deletion("digits-0", "uid-0"), Deletion("digits-1", "uid-1"))


def test_pods_get_their_grace_and_nothing_counts() -> None:
    plan = reconcile(a_view(a_job(status=running(), suspend=True), a_pod(0), a_pod(1)), NOW)
    assert plan.delete == BOTH
    assert plan.status_first, "what these pods end with is our doing: remembered first"
    assert conditions(plan.status)["Suspended"] == ("False", "Suspending")
    assert plan.status is not None
    assert plan.status.restarts is None


def test_pods_made_before_their_checkpoints_were_measured_get_the_time_that_these_take() -> None:
    status = running(checkpoint={"step": 9, "seconds": 100})
    pods = (a_pod(0, grace=60), a_pod(1, grace=600))
    plan = reconcile(a_view(a_job(status=status, suspend=True), *pods), NOW)
    assert plan.delete == (Deletion("digits-0", "uid-0", 315), BOTH[1])
    own = a_job(status=status, suspend=True, pod={"terminationGracePeriodSeconds": 60})
    assert reconcile(a_view(own, *pods), NOW).delete == BOTH
    ended = a_view(a_job(status=status, suspend=True), a_pod(0, "Failed", grace=60))
    assert reconcile(ended, NOW).delete == BOTH[:1]


def test_pods_that_save_and_end_meanwhile_are_no_loss() -> None:
    view = a_view(a_job(status=running(), suspend=True), a_pod(0), a_pod(1))
    later = follow(view, reconcile(view, NOW))
    dying = replace(a_pod(0, "Failed"), exit_code=143, deleting=at(60), removal="asked")
    plan = reconcile(replace(later, pods=(dying, *later.pods[1:])), at(5))
    assert plan.status is None or plan.status.restarts is None
    assert plan.delete == BOTH[1:]


def test_it_is_suspended_when_the_last_pod_is_gone() -> None:
    plan = reconcile(a_view(a_job(status=running(), suspend=True)), NOW)
    assert conditions(plan.status) == {
        "Running": ("False", "Suspended"),
        "Suspended": ("True", "Suspended"),
    }
    assert plan.status is not None
    assert (plan.status.phase, plan.status.active_seconds) == ("Suspended", 3600)
    assert plan.status.start_time is None
    assert settled(follow(a_view(a_job(status=running(), suspend=True)), plan), at(9999))


def test_a_job_made_suspended_gets_no_pods() -> None:
    plan = reconcile(a_view(a_job(suspend=True)), NOW)
    assert plan.create == ()
    assert conditions(plan.status)["Suspended"] == ("True", "Suspended")


def test_a_suspended_job_is_not_stalled() -> None:
    status = running(phase="Pending", conditions=[condition("Stalled", "True", "UnknownPool")])
    plan = reconcile(a_view(a_job(status=status, suspend=True)), NOW)
    assert "Stalled" not in conditions(plan.status)


def test_resuming_makes_a_new_attempt() -> None:
    asleep = a_view(a_job(status=running(), suspend=True))
    asleep = follow(asleep, reconcile(asleep, NOW))
    awake = replace(
        asleep, job=replace(asleep.job, spec=asleep.job.spec.model_copy(update={"suspend": False}))
    )
    plan = reconcile(awake, at(1000))
    assert [pod["metadata"]["name"] for pod in plan.create] == ["digits-0", "digits-1"]
    assert plan.status is not None
    assert (plan.status.attempt, plan.status.phase) == (2, "Starting")
    assert plan.status.active_seconds == 3600, "time asleep is free"
    assert conditions(plan.status)["Suspended"] == ("False", "Resumed")
    assert [event.reason for event in plan.events] == ["Resumed"]
    assert plan.status_first, "a crash between the two must not make pods of the old attempt"


def test_a_resume_during_the_suspension_waits_for_the_old_pods_names() -> None:
    view = a_view(a_job(status=running(), suspend=True), a_pod(0), a_pod(1))
    going = follow(view, reconcile(view, NOW))
    spec = going.job.spec.model_copy(update={"suspend": False})
    pods = tuple(replace(pod, deleting=at(60), removal="asked") for pod in going.pods)
    plan = reconcile(replace(going, job=replace(going.job, spec=spec), pods=pods), at(1))
    assert plan.create == ()
    assert plan.status is not None
    assert plan.status.attempt == 2
