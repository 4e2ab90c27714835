"""Queues: a job with a queue's name has pods exactly while Kueue admits it."""

from dataclasses import replace
from typing import Any

import pytest
from job_views import NOW, a_job, a_pod, a_view, conditions, running, stamp

from headway_operator.settings import GpuPool, Settings
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import Job, Obstacle, View
from headway_operator.trainingjob.workload import Flavor, Workload, parse_workload

OWNER = [{"uid": "0123456789ab", "controller": True}]
FLAVORS = {"h100": Flavor({"pool": "h100"}, ({"key": "gpu", "operator": "Exists"},))}


def queued_job(replicas: int = 2, **fields: Any) -> Job:
    return a_job(replicas, scheduling={"queueName": "team"}, **fields)


def asked(job: Job) -> dict[str, Any]:
    """The Workload that a job asks with at first."""
    step = reconcile(View(job=job), NOW).queue
    assert step is not None
    assert step.verb == "make"
    assert step.body is not None
    return step.body


def a_workload(job: Job, *true: str, count: int = 2, **more: Any) -> Workload:
    """The job's Workload with these conditions true."""
    item = asked(job)
    item["metadata"] |= {"uid": "w", "resourceVersion": "5", "generation": 1}
    said = {"Evicted": ("Preempted", "to make room")}
    status: dict[str, Any] = {
        "conditions": [
            {
                "type": kind,
                "status": "True",
                "reason": said.get(kind, ("R", ""))[0],
                "message": said.get(kind, ("R", ""))[1],
                "lastTransitionTime": stamp(-60),
            }
            for kind in true
        ],
        **more,
    }
    if "QuotaReserved" in true:
        assignment = {"name": "workers", "flavors": {"nvidia.com/gpu": "h100"}, "count": count}
        status["admission"] = {"clusterQueue": "all", "podSetAssignments": [assignment]}
    return parse_workload({**item, "status": status})


def seen(job: Job, *true: str, **more: Any) -> View:
    return View(job=job, workload=a_workload(job, *true, **more), flavors=FLAVORS)


ADMITTED = ("QuotaReserved", "Admitted")


def test_a_job_asks_before_it_makes_pods() -> None:
    plan = reconcile(View(job=queued_job(4)), NOW)
    assert not plan.create
    assert plan.status is not None
    assert (plan.status.phase, plan.status.reason) == ("Queued", "Queued")
    assert conditions(plan.status)["Suspended"] == ("True", "Queued")
    assert plan.status.start_time is None  # waiting is no activity: no deadline runs
    body = asked(queued_job(4))
    assert body["spec"]["queueName"] == "team"
    (pods,) = body["spec"]["podSets"]
    assert (pods["name"], pods["count"]) == ("workers", 4)
    assert "minCount" not in pods
    assert pods["template"]["spec"]["containers"][0]["image"] == "i"


def test_what_keeps_it_from_asking_is_said_and_not_tried_at_once() -> None:
    for kind, phase, conditions_ in (
        ("Forbidden", "Queued", "Suspended"),
        ("Refused", "Pending", "Stalled"),
    ):
        view = View(job=queued_job(), obstacle=Obstacle(kind, "no Kueue here."))  # type: ignore[arg-type]
        plan = reconcile(view, NOW)
        assert plan.queue is None
        assert plan.status is not None
        assert plan.status.phase == phase
        assert (plan.status.message or "").startswith("no Kueue here.")
        assert conditions(plan.status)[conditions_][0] == "True"


def test_an_elastic_job_could_do_with_fewer() -> None:
    workers = {"replicas": 4, "elastic": {"minReplicas": 2, "maxReplicas": 8}}
    job = a_job(scheduling={"queueName": "team"}, workers=workers)
    assert asked(job)["spec"]["podSets"][0]["minCount"] == 2
    plan = reconcile(seen(job, *ADMITTED, count=3), NOW)
    assert len(plan.create) == 3


def test_it_waits_with_kueues_words() -> None:
    job = queued_job()
    waits = {"type": "QuotaReserved", "status": "False", "reason": "Pending"}
    view = replace(
        seen(job), workload=replace(a_workload(job), conditions=({**waits, "message": "no GPUs"},))
    )
    plan = reconcile(view, NOW)
    assert plan.queue is None
    assert not plan.create
    assert plan.status is not None
    assert plan.status.message == "The job waits in queue team. no GPUs"


def test_an_admitted_job_runs_on_the_nodes_of_its_flavor() -> None:
    job = queued_job(pod={"nodeSelector": {"zone": "a"}})
    update = {
        "name": "workers",
        "labels": {"l": "1"},
        "nodeSelector": {"rack": "7"},
        "tolerations": [{"key": "t"}],
    }
    checks = [{"name": "provision", "podSetUpdates": [update]}]
    plan = reconcile(seen(job, *ADMITTED, admissionChecks=checks), NOW)
    assert len(plan.create) == 2
    pod = plan.create[0]
    assert pod["spec"]["nodeSelector"] == {"zone": "a", "pool": "h100", "rack": "7"}
    assert [t["key"] for t in pod["spec"]["tolerations"][-2:]] == ["gpu", "t"]
    assert pod["metadata"]["labels"]["l"] == "1"
    assert plan.status is not None
    assert plan.status.phase == "Starting"
    assert plan.status.start_time == stamp()


def test_it_waits_for_a_flavor_that_nobody_knows() -> None:
    plan = reconcile(replace(seen(queued_job(), *ADMITTED), flavors={}), NOW)
    assert not plan.create
    assert plan.status is not None
    assert "h100, which is not there" in (plan.status.message or "")


def test_a_reservation_alone_is_no_admission() -> None:
    assert not reconcile(seen(queued_job(), "QuotaReserved"), NOW).create


def test_kueue_hears_when_all_pods_run_and_hears_it_once() -> None:
    job = queued_job(status=running())
    for told, verb in (((), "tell"), (("PodsReady",), None)):
        view = a_view(job, a_pod(0), a_pod(1), flavors=FLAVORS)
        view = replace(view, workload=a_workload(job, *ADMITTED, *told))
        step = reconcile(view, NOW).queue
        assert (step and step.verb) == verb


def test_an_evicted_job_saves_before_it_gives_its_quota_back() -> None:
    job = queued_job(status=running())
    evicted = a_workload(job, *ADMITTED, "Evicted")
    view = a_view(job, a_pod(0), a_pod(1), workload=evicted, flavors=FLAVORS)
    plan = reconcile(view, NOW)
    assert plan.status_first
    assert [deletion.grace_seconds for deletion in plan.delete] == [None, None]
    assert plan.queue is None
    assert plan.status is not None
    assert "Kueue takes the quota back: to make room" in (plan.status.message or "")
    gone = replace(view, pods=(), job=replace(job, status=plan.status))
    step = reconcile(gone, NOW).queue
    assert step is not None
    assert step.body is not None
    assert step.body["status"]["admission"] is None
    said = {c["type"]: (c["status"], c["reason"]) for c in step.body["status"]["conditions"]}
    assert said["QuotaReserved"] == ("False", "Pending")
    assert said["Admitted"] == ("False", "NoReservation")
    assert said["PodsReady"] == ("False", "WaitForStart")
    assert said["Requeued"] == ("True", "Preempted")
    assert said["Evicted"] == ("True", "Preempted")  # Kueue takes it back with the next admission
    assert step.body["metadata"] == {"uid": "w", "resourceVersion": "5"}


def test_a_job_that_comes_back_from_the_queue_is_a_new_attempt() -> None:
    job = queued_job(status=running())
    view = a_view(job, a_pod(0), workload=a_workload(job, *ADMITTED, "Evicted"), flavors=FLAVORS)
    saving = reconcile(view, NOW).status
    assert saving is not None
    rests = reconcile(replace(view, pods=(), job=replace(job, status=saving)), NOW).status
    assert rests is not None
    assert rests.phase == "Queued"
    back = replace(
        view, pods=(), job=replace(job, status=rests), workload=a_workload(job, *ADMITTED)
    )
    plan = reconcile(back, NOW)
    assert plan.status is not None
    assert plan.status.attempt == 2
    assert plan.status.restarts is None  # nobody's fault
    assert len(plan.create) == 2


@pytest.mark.parametrize("change", [{"gpu": {"perWorker": 1, "pools": ["a"]}}, {"replicas": 3}])
def test_a_job_that_asks_for_something_else_asks_anew(change: dict[str, Any]) -> None:
    replicas = change.pop("replicas", 2)
    settings = Settings(pools={"a": GpuPool()})
    old = a_workload(queued_job(status=running()), *ADMITTED)
    edited = queued_job(replicas, status=running(), generation=2, **change)
    view = a_view(edited, a_pod(0), workload=old, flavors=FLAVORS, settings=settings)
    plan = reconcile(view, NOW)
    assert plan.delete
    assert plan.queue is None
    assert plan.status is not None
    gone = replace(view, pods=(), job=replace(edited, status=plan.status))
    step = reconcile(gone, NOW).queue
    assert step is not None
    assert (step.verb, step.uid) == ("drop", "w")


def test_a_suspended_job_leaves_the_queue_when_its_pods_are_gone() -> None:
    job = queued_job(status=running(), suspend=True)
    view = a_view(job, a_pod(0), workload=a_workload(queued_job(), *ADMITTED), flavors=FLAVORS)
    plan = reconcile(view, NOW)
    assert plan.delete
    assert plan.queue is None
    step = reconcile(replace(view, pods=()), NOW).queue
    assert step is not None
    assert step.verb == "drop"


@pytest.mark.parametrize("outcome", ["Succeeded", "Failed"])
def test_a_job_that_is_over_takes_no_quota(outcome: str) -> None:
    condition = {"type": outcome, "status": "True", "reason": "R", "lastTransitionTime": stamp()}
    status = {"phase": outcome, "message": "done", "conditions": [condition]}
    job = queued_job(status=status)
    view = View(job=job, workload=a_workload(queued_job(), *ADMITTED))
    step = reconcile(view, NOW).queue
    assert step is not None
    assert step.body is not None
    finished = step.body["status"]["conditions"][-1]
    assert (finished["type"], finished["reason"]) == ("Finished", outcome)
    over = a_workload(queued_job(), *ADMITTED, "Finished")
    assert reconcile(replace(view, workload=over), NOW).queue is None


def test_a_job_that_was_taken_out_of_its_queue_goes_on_without() -> None:
    job = a_job(status=running())
    old = a_workload(queued_job(), *ADMITTED, "Evicted")
    plan = reconcile(a_view(job, a_pod(0), a_pod(1), workload=old), NOW)
    assert not plan.delete
    assert plan.queue is not None
    assert plan.queue.verb == "drop"


def test_on_a_laptop_nobody_waits() -> None:
    plan = reconcile(View(job=queued_job(), settings=Settings(queues=False)), NOW)
    assert len(plan.create) == 2
    assert plan.queue is None
