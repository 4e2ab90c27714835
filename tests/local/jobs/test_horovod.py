"""Horovod's scripts under Headway: unmodified ones, and those that resume exactly."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from local_runs import (
    Job,
    MakeJob,
    Outcome,
    last_step,
    losses,
    needs_horovod,
    python,
    script,
    wait_for,
)

pytestmark = [
    pytest.mark.xdist_group("horovod"),  # they share the undisturbed run
    pytest.mark.timeout(600),
]
SECONDS = 240
STEPS = 120


def horovod_job(job: MakeJob, name: str, folder: Path, **parameters: str) -> Job:
    return job(
        script(name),
        env={"LOSSES": str(folder / "losses")},
        framework="Horovod",
        storage={"uri": str(folder / "storage")},
        checkpoint={"everySteps": 10},
        parameters=parameters,
    )


def succeeded(ended: Outcome) -> None:
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown


@needs_horovod
def test_a_script_that_knows_nothing_of_headway_runs(job: MakeJob) -> None:
    run = job(script("horovod_plain.py"), framework="Horovod")
    run.manifest["spec"]["workers"]["processesPerWorker"] = 2
    sets = {"name": "HOROVOD_DYNAMIC_PROCESS_SETS", "value": "1"}
    run.manifest["spec"]["pod"] = {"env": [sets]}
    succeeded(run.run(seconds=SECONDS))
    places = "[(0, 0, 0), (1, 1, 0), (2, 0, 1), (3, 1, 1)]"
    for index in (0, 1):
        for rank in (2 * index, 2 * index + 1):
            assert f"rank {rank} of 4: sum of ranks 6, {places}" in run.logs(index)


@needs_horovod
def test_killed_ranks_lost_pods_and_sigterm_change_no_loss(job: MakeJob, tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    calm.mkdir()
    stormy.mkdir()
    succeeded(horovod_job(job, "horovod_losses.py", calm).run(seconds=SECONDS))
    run = horovod_job(job, "horovod_losses.py", stormy, delay_ms="30").start()
    for step, rank in ((25, 1), (45, 0)):
        wait_for(f"step {step}", lambda s=step: last_step(stormy) >= s, SECONDS)  # type: ignore[misc]
        victim = run.worker(rank)
        assert victim is not None
        victim.kill()
    wait_for("step 65", lambda: last_step(stormy) >= 65, SECONDS)
    agent = run.agent(1)
    assert agent is not None
    agent.kill()
    wait_for("step 85", lambda: last_step(stormy) >= 85, SECONDS)
    lead = run.agent(0)
    assert lead is not None
    os.kill(lead.pid, signal.SIGTERM)
    ended = run.finish(SECONDS)
    succeeded(ended)
    assert ended.status["checkpoint"]["step"] == STEPS
    for rank in (0, 1):
        assert losses(stormy, rank) == losses(calm, rank)
    assert ended.restarts["total"] >= 3
    after_sigterm = ended.status["checkpoint"]["resumedFromStep"]
    assert after_sigterm >= 85  # saved at once: no step was done twice for it


def test_an_image_without_horovod_is_named(job: MakeJob) -> None:
    code = "raise ModuleNotFoundError(\"No module named 'horovod'\")"
    ended = job(
        python(code), replicas=1, framework="Horovod", failurePolicy={"maxRestarts": 0}
    ).run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "there is no Horovod in this image" in ended.status["message"]


@needs_horovod
def test_a_rank_that_never_comes_to_init_is_named(job: MakeJob) -> None:
    code = (
        "import os, time\n"
        "if os.environ['RANK'] == '1': time.sleep(1000)\n"
        "import horovod.torch as hvd; hvd.init()"
    )
    run = job(python(code), framework="Horovod", failurePolicy={"maxRestarts": 0})
    run.manifest["spec"]["pod"] = {"env": [{"name": "HOROVOD_GLOO_TIMEOUT_SECONDS", "value": "3"}]}
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "rank 1 had not called hvd.init()" in ended.status["message"]
