"""The controller's ways with an API server that says no."""

import asyncio
import json
import logging
from itertools import pairwise
from typing import Any

import pytest
from controller_desk import LAB, Desk, at_work, now, until
from virtual import run

from headway_api.contract import (
    ANNOTATION_SPEC_HASH,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_INDEX,
    LABEL_JOB,
)
from headway_api.messages import ProgressReport
from headway_api.observations import report, shortened
from headway_operator.cluster.client import EVENT, POD, ApiError, api_error
from headway_operator.resources import TRAINING_JOB
from headway_operator.trainingjob.pods import spec_hash
from headway_operator.trainingjob.view import parse_job

KEY = (LAB, "digits")
STATUS_WRITE = ("patch", "TrainingJob")


def broken() -> ApiError:
    return api_error(500, "InternalError", "etcd is away")


def a_report(step: int, **fields: Any) -> ProgressReport:
    base: dict[str, Any] = {"session": "s", "attempt": 1, "generation": 1, "state": "Training"}
    return ProgressReport.model_validate({**base, "step": step, **fields})


def gaps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


# --- healthy lives ------------------------------------------------------------------------------


def test_a_healthy_life_takes_its_pods_and_three_writes() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit(workers={"replicas": 2})
            await until(lambda: desk.has("digits-1"))
            for name in ("digits-0", "digits-1"):
                await desk.start(name)
            await until(lambda: _phase_is(desk, "Running"))
            for name in ("digits-1", "digits-0"):
                await desk.report(name, {"phase": "Succeeded"})
            await until(lambda: _phase_is(desk, "Succeeded"))
            await asyncio.sleep(3600)
            assert [call[1:3] for call in desk.calls] == [
                ("create", "Pod"),
                ("create", "Pod"),
                *[("patch", "TrainingJob")] * 3,
            ]
            samples = controller.metrics.registry.get_sample_value
            assert samples("headway_jobs", {"phase": "Succeeded"}) == 1
            assert samples("headway_jobs", {"phase": "Running"}) == 0
            codes = {"verb": "create", "resource": "pods", "code": "200"}
            assert samples("headway_api_writes_total", codes) == 2

    run(test())


async def _phase_is(desk: Desk, phase: str) -> bool:
    return (await desk.status()).get("phase") == phase


def test_jobs_of_before_the_operators_time_are_part_of_its_metrics() -> None:
    async def test() -> None:
        desk = Desk()
        await desk.submit(suspend=True)
        async with at_work(desk):
            await until(lambda: _phase_is(desk, "Suspended"))
        async with at_work(desk) as controller:
            samples = controller.metrics.registry.get_sample_value
            await until(lambda: samples("headway_jobs", {"phase": "Suspended"}) == 1)

    run(test())


def test_jobs_with_pods_are_looked_at_before_new_ones() -> None:
    """A job's "pods are running" must not wait behind everyone's first pass."""

    async def test() -> None:
        desk = Desk()
        await desk.submit("old")
        async with at_work(desk, workers=1):
            await until(lambda: desk.has("old-0"))
            await until(lambda: desk.times("patch", "TrainingJob"))
            for number in range(20):
                await desk.submit(f"new{number:02}")
            await desk.start("old-0")
            await until(lambda: desk.has("new19-0"))
        names = [
            name for _, verb, kind, name in desk.calls if (verb, kind) == ("patch", "TrainingJob")
        ]
        assert names.index("old", 1) < names.index("new19")

    run(test())


# --- waiting and trying again ---------------------------------------------------------------------


def test_failures_are_tried_again_ever_more_slowly_and_forgotten_after_a_success() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["create", "Pod"] = [broken() for _ in range(12)]
        async with at_work(desk, backoff_seconds=1, backoff_limit_seconds=16):
            await desk.submit()
            await until(lambda: desk.has("digits-0"), within=600)
        waits = gaps(desk.times("create", "Pod"))
        for number, wait in enumerate(waits):
            longest = min(2**number, 16)
            assert longest / 2 <= wait <= longest, waits
        assert len(set(waits[5:])) > 1, "jitter spreads those that failed together"

    run(test())


def test_a_server_that_names_a_time_is_not_asked_before() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["create", "Pod"] = [api_error(429, "TooManyRequests", "wait", 45.0)]
        async with at_work(desk):
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
        (wait,) = gaps(desk.times("create", "Pod"))
        assert wait > 44.9

    run(test())


def test_a_conflict_is_met_with_a_fresh_read_at_once() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk):
            await desk.submit()
            desk.errors["patch", "TrainingJob"] = [api_error(409, "Conflict", "changed")]
            await until(lambda: _phase_is(desk, "Starting"))
        assert desk.times("get", "TrainingJob"), "the cache may be behind"
        assert gaps(desk.times("patch", "TrainingJob")) == [0.0]

    run(test())


def test_somebody_who_keeps_writing_the_job_does_not_keep_a_worker_busy() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["patch", "TrainingJob"] = [api_error(409, "Conflict", "x") for _ in range(7)]
        async with at_work(desk):
            await desk.submit()
            await until(lambda: _phase_is(desk, "Starting"))
        waits = gaps(desk.times("patch", "TrainingJob"))
        assert [wait > 0 for wait in waits] == [False] * 4 + [True] + [False] * 2

    run(test())


def test_a_bug_met_by_one_job_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        desk = Desk()
        await desk.submit("odd", workers={"replicas": "many"})
        await desk.submit()
        async with at_work(desk, workers=1):
            await until(lambda: desk.has("digits-0"))
            await asyncio.sleep(120)
        assert 3 < sum(record.levelno == logging.ERROR for record in caplog.records) < 20

    run(test())


def test_a_server_that_does_not_answer_is_a_stall() -> None:
    async def test() -> None:
        desk = Desk()

        async def silence(*_: Any) -> Any:
            await asyncio.Event().wait()

        desk.create = silence  # type: ignore[method-assign]
        async with at_work(desk) as controller:
            assert controller.stalled_seconds() == 0
            await desk.submit()
            await asyncio.sleep(90)
            assert controller.stalled_seconds() == pytest.approx(90)

    run(test())


# --- pods that can't be made --------------------------------------------------------------------


def invalid() -> ApiError:
    return api_error(422, "Invalid", "spec.volumes[0].name: Required value")


def test_a_refused_pod_stalls_the_job_with_the_servers_sentence_and_nothing_loops() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["create", "Pod"] = [invalid() for _ in range(100)]
        async with at_work(desk, resync_seconds=300):
            await desk.submit()
            await until(desk.stalled)
            assert "spec.volumes[0].name: Required value" in (await desk.stalled() or "")
            await asyncio.sleep(3000)
            assert len(desk.times("create", "Pod")) <= 12, "once in a resync"
            assert len(desk.times("patch", "TrainingJob")) == 1

    run(test())


def test_an_edit_is_tried_at_once() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["create", "Pod"] = [invalid()]
        async with at_work(desk):
            await desk.submit()
            await until(desk.stalled)
            await desk.edit({"pod": {"workingDir": "/w"}})
            await until(lambda: desk.has("digits-0"), within=1)
            await until(lambda: _phase_is(desk, "Starting"), within=1)
            assert await desk.stalled() is None

    run(test())


def test_a_quota_is_told_to_the_user_and_tried_again() -> None:
    async def test() -> None:
        desk = Desk()
        full = [api_error(403, "Forbidden", "exceeded quota: gpus") for _ in range(3)]
        desk.errors["create", "Pod"] = full
        async with at_work(desk):
            await desk.submit()
            await until(lambda: desk.times("patch", "TrainingJob"))
            status = await desk.status()
            assert status["reason"] == "Forbidden"
            assert "exceeded quota: gpus" in status["message"]
            assert await desk.stalled() is None
            await until(lambda: desk.has("digits-0"))
            await until(lambda: _reason_is(desk, "Starting"))
        assert all(wait > 0 for wait in gaps(desk.times("create", "Pod")))

    run(test())


async def _reason_is(desk: Desk, reason: str) -> bool:
    return (await desk.status()).get("reason") == reason


def test_a_pod_made_by_an_earlier_life_is_adopted() -> None:
    """Already exists is the normal answer after a crash."""

    async def test() -> None:
        desk = Desk()
        job = await desk.submit()
        owner = {"apiVersion": "v1", "kind": "X", "name": "x", "controller": True}
        made = await desk.put_pod(
            "digits-0",
            labels={LABEL_JOB: "digits", LABEL_INDEX: "0", LABEL_ATTEMPT: "1"},
            ownerReferences=[{**owner, "uid": job["metadata"]["uid"]}],
            annotations={ANNOTATION_SPEC_HASH: spec_hash(parse_job(job).spec)},
        )
        async with at_work(desk, kinds=(TRAINING_JOB,)) as controller:
            await until(lambda: _phase_is(desk, "Starting"))
            assert [pod.uid for pod in controller._cache.pods(KEY)] == [made["metadata"]["uid"]]
            await asyncio.sleep(60)
            assert len(desk.times("create", "Pod")) == 1

    run(test())


@pytest.mark.parametrize("labels", [{"app": "web"}, {}])
def test_somebody_elses_pod_of_this_name_stalls_the_job_and_is_left_alone(
    labels: dict[str, str],
) -> None:
    async def test() -> None:
        desk = Desk()
        await desk.put_pod("digits-0", labels=labels)
        async with at_work(desk, resync_seconds=100):
            await desk.submit()
            await until(desk.stalled)
            assert "Pod digits-0 exists already" in (await desk.stalled() or "")
            await desk.delete(POD, LAB, "digits-0")
            await until(lambda: _phase_is(desk, "Starting"), within=200)

    run(test())


def test_a_namesakes_pod_is_neither_adopted_nor_counted() -> None:
    """The job was deleted and made anew; garbage collection is on its way."""

    async def test() -> None:
        desk = Desk(collect_seconds=None)
        labels = {LABEL_JOB: "digits", LABEL_INDEX: "0"}
        owner = {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "old", "controller": True}
        await desk.put_pod("digits-0", labels=labels, ownerReferences=[owner])
        async with at_work(desk):
            await desk.submit()
            await asyncio.sleep(60)
            assert await desk.stalled() is None
            assert desk.times("create", "Pod") == []
            desk.collect_garbage()
            await until(lambda: desk.times("create", "Pod"))
            await until(lambda: desk.has("digits-0"))

    run(test())


def test_a_pod_that_came_and_went_while_the_watch_was_away_is_missed() -> None:
    """It is in no list and no event: only asking for it tells that it is gone."""

    async def test() -> None:
        desk = Desk()
        await desk.submit()
        async with at_work(desk, kinds=(TRAINING_JOB,)):
            await until(lambda: desk.has("digits-0"))
            await desk.delete(POD, LAB, "digits-0", grace_seconds=0)
            await until(lambda: desk.has("digits-0"), within=120)

    run(test())


# --- events and progress --------------------------------------------------------------------------


def test_an_event_that_can_not_be_posted_is_let_go() -> None:
    async def test() -> None:
        desk = Desk()
        desk.errors["create", "Event"] = [broken()]
        async with at_work(desk, resync_seconds=60):
            await desk.submit(gpu={"pools": ["nowhere"]})
            await until(desk.stalled)
            await asyncio.sleep(600)
        assert len(desk.times("create", "Event")) == 1
        assert len(desk.times("patch", "TrainingJob")) == 1

    run(test())


def test_an_event_of_the_lead_is_posted_once_however_often_it_is_reported() -> None:
    async def test() -> None:
        desk = Desk()
        told = {"id": "1", "reason": "CheckpointFallback", "message": "step 40 is damaged"}
        async with at_work(desk) as controller:
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
            for step in range(60):
                controller.record_progress(KEY, a_report(step, events=[told]))
                await asyncio.sleep(1)
        (event,) = (await desk.list(EVENT)).items
        assert event["reason"] == "CheckpointFallback"
        assert event["involvedObject"]["name"] == "digits"
        assert len(desk.times("create", "Event")) == 1

    run(test())


def test_progress_is_written_every_ten_seconds_at_most_and_the_latest_is_not_lost() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
            await desk.start()
            await until(lambda: _phase_is(desk, "Running"))
            before, began = len(desk.times("patch", "TrainingJob")), now()
            for step in range(300):
                assert controller.record_progress(KEY, a_report(step))
                await asyncio.sleep(0.2)
            await asyncio.sleep(15)
            writes = desk.times("patch", "TrainingJob")[before:]
            assert 5 <= len(writes) <= (now() - began) / 10 + 1
            assert min(gaps(writes)) >= 9.9
            assert (await desk.status())["progress"]["step"] == 299

    run(test())


def test_all_jobs_share_the_budget_of_progress_writes() -> None:
    async def test() -> None:
        desk = Desk()
        names = [f"job{number}" for number in range(30)]
        async with at_work(desk, progress_writes_per_second=1) as controller:
            for name in names:
                await desk.submit(name)
            await until(lambda: desk.has("job29-0"))
            await asyncio.sleep(20)
            before = len(desk.times("patch", "TrainingJob"))
            for step in range(60):
                for name in names:
                    controller.record_progress((LAB, name), a_report(step))
                await asyncio.sleep(1)
            writes = len(desk.times("patch", "TrainingJob")) - before
        assert 40 <= writes <= 65

    run(test())


def test_news_do_not_wait_for_the_interval() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit(failurePolicy={"maxRestarts": 1})
            await until(lambda: desk.has("digits-0"))
            await desk.start()
            controller.record_progress(KEY, a_report(1))
            beyond = a_report(1, generation=3, restartsTotal=2, restartsCounted=2)
            controller.record_progress(KEY, beyond)
            await until(lambda: _phase_is(desk, "Failed"), within=1)

    run(test())


def test_a_report_that_another_has_overtaken_is_not_taken() -> None:
    """A report under way by the other replica must not take a newer one back."""

    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
            assert controller.record_progress(KEY, a_report(20, number=3))
            assert controller.record_progress(KEY, a_report(19, number=2))
            latest = controller.latest_progress(KEY)
            assert latest is not None
            assert latest.step == 20
            assert controller.record_progress(KEY, a_report(2, number=1, session="next"))
            assert controller.record_progress(KEY, a_report(20, attempt=0, session="before"))
            latest = controller.latest_progress(KEY)
            assert latest is not None
            assert latest.session == "next"

    run(test())


def test_last_words_of_a_pod_that_is_gone_in_the_same_moment_are_in_the_status() -> None:
    """The checkpoint that SIGTERM saved is told by the termination message, if by anything."""

    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
            await desk.start()
            saved = {"step": 20, "uri": "s3://b/20", "time": "2026-01-01T00:00:00Z"}
            told = [{"id": "1", "reason": "CheckpointFallback", "message": "step 5 is damaged"}]
            controller.record_progress(KEY, a_report(19, number=6, events=told))
            words = {
                "reason": "Preempted",
                "exitCode": 143,
                "progress": a_report(20, number=7, checkpoint=saved, restartsTotal=2).wire(),
            }
            ended = {"exitCode": 143, "message": json.dumps(words)}
            container = {"name": CONTAINER, "state": {"terminated": ended}}
            await desk.edit({"suspend": True})
            await desk.report("digits-0", {"phase": "Failed", "containerStatuses": [container]})
            await desk.delete(POD, LAB, "digits-0")
            await until(lambda: _phase_is(desk, "Suspended"))
            status = await desk.status()
            assert status["progress"]["step"] == 20
            assert status["checkpoint"]["step"] == 20
            assert status["restarts"]["total"] == 2
            reasons = [event["reason"] for event in (await desk.list(EVENT)).items]
            assert reasons.count("CheckpointFallback") == 1

    run(test())


def test_the_course_of_a_metric_is_in_the_status_with_the_end_whoever_told_it() -> None:
    """A lead's words are short, a new session begins empty, and a client of Kubeflow's helps."""

    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            await desk.submit(observe={"metrics": ["loss"]})
            await until(lambda: desk.has("digits-0"))
            await desk.start()
            for session, step in (("one", 1), ("one", 2), ("two", 3)):
                told = [report("loss", step, 1 / step).wire()]
                said = a_report(step, number=1, session=session, observations=told)
                controller.record_progress(KEY, said)
            last = shortened(report("loss", 4, 0.25), 0).wire()
            final = a_report(4, number=2, session="two", observations=[last])
            words = {"reason": "Done", "exitCode": 0, "progress": final.wire()}
            ended = {"exitCode": 0, "message": json.dumps(words)}
            container = {"name": CONTAINER, "state": {"terminated": ended}}
            await desk.report("digits-0", {"phase": "Succeeded", "containerStatuses": [container]})
            await until(lambda: _phase_is(desk, "Succeeded"))
            (seen,) = (await desk.status())["observations"]
            assert [point["step"] for point in seen["curve"]] == [1, 2, 3, 4]
            assert seen["last"] == seen["min"] == {"step": 4, "value": "0.25"}
            assert seen["max"] == {"step": 1, "value": "1.0"}

    run(test())


def test_a_report_for_a_job_of_before_is_not_taken_for_its_namesake() -> None:
    async def test() -> None:
        desk = Desk()
        async with at_work(desk) as controller:
            assert not controller.record_progress(KEY, a_report(1))
            await desk.submit()
            await until(lambda: desk.has("digits-0"))
            assert controller.record_progress(KEY, a_report(1))
            await desk.delete(TRAINING_JOB, LAB, "digits")
            await desk.submit()
            await until(lambda: controller.latest_progress(KEY) is None)

    run(test())
