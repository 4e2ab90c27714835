"""Kill any process of a job at any moment: it ends right, and exactly as if nothing had been."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from hack.seaweed import SeaweedServer
from local_runs import (
    Job,
    MakeJob,
    Outcome,
    keys,
    last_step,
    losses,
    script,
    storage,
    wait_for,
)

pytestmark = [
    pytest.mark.xdist_group("recovery"),  # they share the undisturbed run
    pytest.mark.timeout(600),  # torch is imported a dozen times
]
SECONDS = 280
EPOCHS, STEPS = 12, 120


def losses_job(job: MakeJob, folder: Path, **parameters: str) -> Job:
    spec = {
        "storage": {"uri": str(folder / "storage")},
        "checkpoint": {"everySteps": 10},
        "parameters": {"epochs": str(EPOCHS), **parameters},
        "failurePolicy": {"maxRestarts": 5},
    }
    return job(script("losses.py"), env={"LOSSES": str(folder / "losses")}, **spec)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the losses of a run in which nothing happens."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def expected(undisturbed: Path, job: MakeJob) -> dict[int, dict[int, set[str]]]:
    """Losses of the undisturbed run, by rank and step."""
    if not (undisturbed / "losses.0").exists():
        ended = losses_job(job, undisturbed).run(seconds=SECONDS)
        assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    return {rank: losses(undisturbed, rank) for rank in (0, 1)}


def check_exact(ended: Outcome, folder: Path, expected: dict[int, dict[int, set[str]]]) -> None:
    """Done, and every loss that was ever computed is the one of the undisturbed run."""
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["progress"]["step"] == STEPS
    assert ended.status["checkpoint"]["step"] == STEPS
    for rank in (0, 1):
        assert losses(folder, rank) == expected[rank]


def test_any_process_of_a_job_may_be_killed(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]]
) -> None:
    """A worker process resumes in place; a lost agent is a lost pod, and is made again."""
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 25", lambda: last_step(tmp_path) >= 25, SECONDS)
    kill(run.worker, 1)
    wait_for("step 55", lambda: last_step(tmp_path) >= 55, SECONDS)
    assert made(run, 0) == made(run, 1) == 1  # in place: no pod was made anew
    kill(run.agent, 1)
    wait_for("another pod of worker 1", lambda: made(run, 1) == 2, SECONDS)
    wait_for("step 85", lambda: last_step(tmp_path) >= 85, SECONDS)
    kill(run.agent, 0)
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    assert ended.status["checkpoint"]["resumedFromStep"] >= 70
    assert (made(run, 0), made(run, 1)) == (2, 2)
    assert ended.restarts["total"] == 3
    last = ended.restarts["last"]
    assert (last["worker"], last["exitCode"]) == (0, 137)


def test_headway_run_itself_may_be_stopped_and_killed(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]]
) -> None:
    """Ctrl-C suspends with a checkpoint; kill -9 takes all with it; the same command goes on."""
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 33", lambda: last_step(tmp_path) >= 33, SECONDS)
    run.signal(signal.SIGINT)
    stopped = run.finish(SECONDS)
    assert (stopped.code, stopped.phase) == (130, "Suspended")
    saved = stopped.status["checkpoint"]["step"]
    assert saved == last_step(tmp_path)  # nothing is lost, not even one step

    run.start()
    wait_for("step 75", lambda: last_step(tmp_path) >= 75, SECONDS)
    assert f"resumed from step {saved}" in run.logs(0)
    run.signal(signal.SIGKILL)
    wait_for("every process to end", lambda: not run.processes(), 10)
    run.end()

    ended = run.run(seconds=SECONDS)
    check_exact(ended, tmp_path, expected)
    assert ended.status["checkpoint"]["resumedFromStep"] >= 60
    assert not ended.restarts.get("counted")  # none of this was the program's fault


def kill(find: Callable[[int], psutil.Process | None], number: int) -> None:
    found = wait_for("the process to kill", lambda: find(number), 20)
    assert found is not None
    found.kill()


def made(run: Job, index: int) -> int:
    """How many pods of this index there have been."""
    return len(list((run.folder / "state/pods").glob(f"t-{index}/*")))


def test_a_lost_pod_comes_back_from_a_peers_memory_while_storage_is_away(
    job: MakeJob,
    tmp_path: Path,
    own_seaweed: SeaweedServer,
    expected: dict[int, dict[int, set[str]]],
) -> None:
    """Neither a lost worker nor a lost pod needs storage: the others still hold everything."""
    own_seaweed.make_bucket("headway")
    run = losses_job(job, tmp_path, delay_ms="30")
    run.manifest["spec"]["storage"] = storage(own_seaweed, "s3://headway/jobs")
    run.env |= keys(own_seaweed)
    run.start()
    wait_for("step 25", lambda: last_step(tmp_path) >= 25, SECONDS)
    own_seaweed.stop()
    kill(run.agent, 1)
    wait_for("another pod of worker 1", lambda: made(run, 1) == 2, SECONDS)
    wait_for("step 55", lambda: last_step(tmp_path) >= 55, SECONDS)
    kill(run.worker, 0)
    wait_for("step 75", lambda: last_step(tmp_path) >= 75, SECONDS)
    own_seaweed.start()
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    assert "from memory" in run.logs(0)
    assert "from storage" not in run.logs(0)
    assert ended.restarts["total"] == 2
    assert made(run, 0) == 1


def test_the_pod_that_leads_comes_back_from_a_peers_memory(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]]
) -> None:
    """What only its ranks knew has been kept by worker 1."""
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 45", lambda: last_step(tmp_path) >= 45, SECONDS)
    kill(run.agent, 0)
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    assert ended.status["checkpoint"]["restoredFrom"] == "Peer"
    assert ended.status["checkpoint"]["resumedFromStep"] >= 40
