"""`spec.pauseAtStep`: all ranks stop after exactly that step, and go on as if nothing had been."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from hack import fault_proxy as faults
from hack.fault_proxy import FaultProxy
from hack.seaweed import SeaweedServer
from local_runs import Job, MakeJob, Outcome, keys, last_step, losses, script, storage, wait_for

pytestmark = [
    pytest.mark.xdist_group("pause"),  # they share the undisturbed run
    pytest.mark.timeout(600),  # torch is imported a dozen times
]
SECONDS = 280
STEPS = 60
PAUSED = 82


def losses_job(job: MakeJob, folder: Path, server: SeaweedServer, **parameters: str) -> Job:
    return job(
        script("losses.py"),
        env=keys(server, LOSSES=str(folder / "losses")),
        storage=storage(server, f"{server.make_bucket('pause')}/{folder.name}"),
        parameters={"epochs": "6", **parameters},
        observe={"metrics": ["loss"]},
    )


def validating_job(job: MakeJob, folder: Path, **parameters: str) -> Job:
    return job(
        script("validates.py"),
        env={"FOLDER": str(folder)},
        storage={"uri": str(folder / "storage")},
        parameters=parameters,
        observe={"metrics": ["val", "loss"]},
    )


def pause_at(run: Job, step: int | None) -> Job:
    """Change the manifest."""
    spec = run.manifest["spec"]
    spec.pop("pauseAtStep", None)
    if step is not None:
        spec["pauseAtStep"] = step
    run.write()
    return run


def check_paused(ended: Outcome, step: int) -> None:
    assert (ended.code, ended.phase) == (PAUSED, "Suspended"), ended.shown
    assert ended.status["reason"] == "PausedAtStep"
    assert ended.status["pausedAtStep"] == step
    assert ended.status["progress"]["step"] == ended.status["checkpoint"]["step"] == step
    assert "raise it or remove it to go on" in ended.status["message"]


def made(run: Job, index: int) -> int:
    """How many pods of this index there have been."""
    return len(list((run.folder / "state/pods").glob(f"t-{index}/*")))


def course(ended: Outcome, metric: str) -> dict[str, Any]:
    found = {each["metric"]: each for each in ended.status["observations"]}
    return found[metric]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the losses of a run that never pauses."""
    return tmp_path_factory.mktemp("undisturbed")


@pytest.fixture
def expected(
    undisturbed: Path, job: MakeJob, seaweed: SeaweedServer
) -> dict[int, dict[int, set[str]]]:
    """Losses of the undisturbed run, by rank and step."""
    if not (undisturbed / "losses.0").exists():
        ended = losses_job(job, undisturbed, seaweed).run(seconds=SECONDS)
        assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    return {rank: losses(undisturbed, rank) for rank in (0, 1)}


def test_a_job_pauses_after_exactly_that_step_and_goes_on_exactly_as_if_it_had_not(
    job: MakeJob,
    tmp_path: Path,
    seaweed: SeaweedServer,
    expected: dict[int, dict[int, set[str]]],
) -> None:
    run = losses_job(job, tmp_path, seaweed)
    check_paused(pause_at(run, 17).run(seconds=SECONDS), 17)
    check_paused(pause_at(run, 9).run(seconds=30), 17)  # it is past that: nothing is started
    again = run.run("-o", "text", seconds=30)
    assert again.code == PAUSED
    assert "larger pauseAtStep, or without, the same command goes on from here" in again.shown
    assert made(run, 0) == 1

    check_paused(pause_at(run, 41).run(seconds=SECONDS), 41)
    ended = pause_at(run, None).run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert "pausedAtStep" not in ended.status
    assert not ended.restarts.get("total")
    assert (made(run, 0), made(run, 1)) == (3, 3)
    for rank in (0, 1):
        assert losses(tmp_path, rank) == expected[rank]
        assert len((tmp_path / f"losses.{rank}").read_text().splitlines()) == STEPS
    check_course(ended, losses(tmp_path, 0))


def check_course(ended: Outcome, computed: dict[int, set[str]]) -> None:
    """What is observed is what was computed, to the last bit, over all three attempts."""
    seen = course(ended, "loss")
    steps = [point["step"] for point in seen["curve"]]
    assert steps == sorted(set(steps))
    assert {17, 41, STEPS} <= set(steps)
    for point in (*seen["curve"], seen["last"], seen["min"], seen["max"]):
        assert computed[point["step"]] == {float(point["value"]).hex()}
    assert seen["last"]["step"] == STEPS


def test_a_step_that_is_changed_meanwhile_holds_without_new_pods(
    job: MakeJob, tmp_path: Path, seaweed: SeaweedServer
) -> None:
    """Raised in time, it is passed; lowered below where the ranks are, they stop soon."""
    run = pause_at(losses_job(job, tmp_path, seaweed, epochs="100", delay_ms="50"), 300).start()
    wait_for("step 5", lambda: last_step(tmp_path) >= 5, SECONDS)
    pause_at(run, 900)
    run.signal(signal.SIGHUP)
    wait_for("step 305", lambda: last_step(tmp_path) >= 305, SECONDS)
    pause_at(run, 30)
    run.signal(signal.SIGHUP)
    ended = run.finish(SECONDS)
    reached = ended.status["pausedAtStep"]
    assert 305 <= reached < 900
    check_paused(ended, reached)
    assert (made(run, 0), made(run, 1)) == (1, 1)
    for rank in (0, 1):
        assert max(losses(tmp_path, rank)) == reached, "not even one step more"


def test_what_follows_the_step_is_done_before_the_pods_end(job: MakeJob, tmp_path: Path) -> None:
    """A rung at the end of an epoch has the epoch's validation."""
    run = pause_at(validating_job(job, tmp_path), 20)
    ended = run.run(seconds=SECONDS)
    check_paused(ended, 20)
    assert course(ended, "val")["last"] == {"step": 20, "value": "120.0"}
    assert [point["step"] for point in course(ended, "val")["curve"]] == [10, 20]
    check_trained_once(tmp_path, 20)


def check_trained_once(folder: Path, step: int) -> None:
    for rank in (0, 1):
        steps = (folder / f"steps.{rank}").read_text().split()
        assert steps == [str(number) for number in range(1, step + 1)]


def test_a_loop_without_our_loader_leaves_at_its_next_step(job: MakeJob, tmp_path: Path) -> None:
    """What it computes of that step is lost with the process, and not in what is saved."""
    storage, env = {"uri": str(tmp_path / "storage")}, {"FOLDER": str(tmp_path)}
    run = pause_at(job(script("own_loop.py"), env=env, storage=storage), 12)
    check_paused(run.run(seconds=SECONDS), 12)
    ended = pause_at(run, None).run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    losses = [line.split() for line in (tmp_path / "steps.0").read_text().splitlines()]
    assert [int(step) for step, _ in losses] == list(range(1, 31))
    assert sorted((float.fromhex(loss) for _, loss in losses), reverse=True) == [
        float.fromhex(loss) for _, loss in losses
    ], "it goes on from where it was, and not from the start"


def test_a_training_that_ends_at_that_step_has_succeeded(job: MakeJob, tmp_path: Path) -> None:
    run = pause_at(validating_job(job, tmp_path, epochs="2"), 20)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == 20
    assert course(ended, "val")["last"] == {"step": 20, "value": "120.0"}


@pytest.mark.parametrize(("victim", "number"), [("worker", 1), ("agent", 0), ("agent", 1)])
def test_whoever_is_killed_after_the_step_the_pause_holds_and_nothing_is_trained_twice(
    job: MakeJob, tmp_path: Path, victim: str, number: int
) -> None:
    run = pause_at(validating_job(job, tmp_path, linger_at="15"), 15).start()
    wait_for("step 15", (tmp_path / f"lingers.{number}").exists, SECONDS)
    wait_for("its checkpoint", lambda: "step 15 is committed" in run.logs(0), SECONDS)
    find = run.worker if victim == "worker" else run.agent
    found = wait_for("the process to kill", lambda: find(number), 20)
    assert found is not None
    found.kill()
    (tmp_path / "go").touch()
    ended = run.finish(SECONDS)
    check_paused(ended, 15)
    assert ended.restarts["total"] == 1
    assert course(ended, "loss")["last"]["step"] == 15
    check_trained_once(tmp_path, 15)


def test_a_script_without_headways_library_runs_to_its_end(job: MakeJob, tmp_path: Path) -> None:
    run = job(script("plain_ddp.py"), storage={"uri": str(tmp_path / "storage")}, pauseAtStep=1)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown


def test_storage_that_refuses_the_checkpoint_is_tried_again_before_the_pods_end(
    job: MakeJob, tmp_path: Path, seaweed: SeaweedServer
) -> None:
    """A job never seems to have paused where nothing is saved."""
    with FaultProxy(seaweed.endpoint) as proxy:
        run = pause_at(losses_job(job, tmp_path, seaweed, delay_ms="50"), 30)
        run.manifest["spec"]["storage"]["endpoint"] = proxy.endpoint
        run.start()
        wait_for("step 10", lambda: last_step(tmp_path) >= 10, SECONDS)
        proxy.fail(faults.answer(403, "InvalidAccessKeyId"), method="PUT")
        refused = "checkpoint of step 30 could not be saved"
        wait_for("the refusal", lambda: refused in run.logs(0), SECONDS)
        proxy.heal()
        ended = run.finish(SECONDS)
    check_paused(ended, 30)
    assert len((tmp_path / "losses.0").read_text().splitlines()) == 30
