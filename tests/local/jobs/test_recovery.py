"""Kill any process of a job at any moment: it ends right, and exactly as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from local_runs import Job, MakeJob, Outcome, script, wait_for

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


def losses(folder: Path, rank: int) -> dict[int, set[str]]:
    """Every loss that a rank has computed, by step: more than one where it was done again."""
    found: dict[int, set[str]] = {}
    for line in (folder / f"losses.{rank}").read_text().splitlines():
        step, value = line.split()
        found.setdefault(int(step), set()).add(value)
    return found


def last_step(folder: Path) -> int:
    path = folder / "losses.0"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split()[0]) if lines and " " in lines[-1] else 0


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


def resumed(ended: Outcome) -> None:
    """It went on from a checkpoint: it did not start anew."""
    assert ended.status["checkpoint"]["resumedFromStep"] >= 10


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_worker_process_resumes_in_place_bit_for_bit(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]], rank: int
) -> None:
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 35", lambda: last_step(tmp_path) >= 35, SECONDS)
    wait_for("the worker", lambda: run.worker(rank)).kill()
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    resumed(ended)
    assert ended.restarts["counted"] == ended.restarts["total"] == 1
    last = ended.restarts["last"]
    assert (last["reason"], last["worker"], last["rank"]) == ("Signal", rank, rank)
    assert len(list((run.folder / "state/pods").glob("t-*/*"))) == 2  # no pod was made anew


@pytest.mark.parametrize("index", [0, 1])
def test_a_killed_agent_is_a_lost_pod_that_is_made_again(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]], index: int
) -> None:
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 35", lambda: last_step(tmp_path) >= 35, SECONDS)
    wait_for("the agent", lambda: run.agent(index)).kill()
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    resumed(ended)
    assert ended.restarts["total"] == 1
    assert ended.restarts["last"]["worker"] == index
    assert ended.restarts["last"]["exitCode"] == 137
    assert len(list((run.folder / "state/pods").glob(f"t-{index}/*"))) == 2
    assert len(list((run.folder / "state/pods").glob(f"t-{1 - index}/*"))) == 1


def test_headway_run_killed_takes_everything_with_it_and_goes_on_when_run_again(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]]
) -> None:
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 35", lambda: last_step(tmp_path) >= 35, SECONDS)
    run.signal(signal.SIGKILL)
    run.end()
    wait_for("every process to end", lambda: not run.processes(), 10)
    ended = run.run(seconds=SECONDS)
    check_exact(ended, tmp_path, expected)
    resumed(ended)
    assert not ended.restarts.get("counted")  # the machine's fault, not the program's


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_suspends_with_a_checkpoint_and_the_same_command_goes_on(
    job: MakeJob,
    tmp_path: Path,
    expected: dict[int, dict[int, set[str]]],
    number: signal.Signals,
) -> None:
    run = losses_job(job, tmp_path, delay_ms="20").start()
    wait_for("step 33", lambda: last_step(tmp_path) >= 33, SECONDS)
    run.signal(number)
    stopped = run.finish(SECONDS)
    assert (stopped.code, stopped.phase) == (130, "Suspended")
    saved = stopped.status["checkpoint"]["step"]
    assert saved == last_step(tmp_path)  # nothing is lost, not even one step
    ended = run.run(seconds=SECONDS)
    check_exact(ended, tmp_path, expected)
    assert ended.status["checkpoint"]["resumedFromStep"] == saved
    assert not ended.restarts.get("total")
