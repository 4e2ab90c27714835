"""Whatever happens to a run, it computes what it would have computed, bit for bit."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from exact_runs import SCRIPT, SECONDS, STEPS, Trace, environment, job
from local_runs import Job, wait_for

pytestmark = [
    pytest.mark.xdist_group("exactness"),  # they share the undisturbed run
    pytest.mark.timeout(600),  # torch is imported several times
]


def check_exact(trace: Trace, undisturbed: Trace, ranks: int = 2) -> None:
    """Everything that was ever computed, again or not, is what the undisturbed run has."""
    for rank in range(ranks):
        found, expected = trace.of(rank), undisturbed.of(rank)
        assert found.keys() == expected.keys()
        for key, values in expected.items():
            assert found[key] == values, f"rank {rank}, {key}"


def pod(run: Job) -> list[psutil.Process]:
    """The ranks, and what they have started; the agent last."""
    ranks = [found for rank in (0, 1) if (found := run.worker(rank)) is not None]
    started = [child for each in ranks for child in each.children(recursive=True)]
    agent = run.agent(0)
    assert agent is not None
    return [*started, *ranks, agent]


def test_ranks_may_be_killed_and_pods_ended_at_any_moment(
    tmp_path: Path, undisturbed: Trace, jobs: list[Job]
) -> None:
    """With loader processes, where the undisturbed run has none; from memory and from storage."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, trace = random.Random(seed), Trace(tmp_path)
    run = job(tmp_path, ranks=2, every=2, delay_ms="10")
    jobs.append(run.start())
    for goal in (1, 3, 6, 9, 11):
        wait_for(f"step {goal}", lambda goal=goal: trace.last_step >= goal, SECONDS)
        time.sleep(chance.uniform(0, 0.15))  # any moment of a step, of a copy, of a validation
        found = wait_for("a rank to kill", lambda: run.worker(chance.randrange(2)), 20)
        found.kill()
    wait_for("step 14", lambda: trace.last_step >= 14, SECONDS)
    for process in pod(run):
        process.send_signal(signal.SIGTERM)
    wait_for("the checkpoint of the last step", lambda: "is saved; leaving" in run.logs(0), 30)
    saved = trace.last_step
    ended = run.finish(SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown + run.logs(0)
    assert ended.status["checkpoint"]["resumedFromStep"] == saved
    steps = trace.steps()
    assert steps[steps.index(saved) :] == list(range(saved, STEPS + 1))  # not even one step lost
    assert ended.status["progress"]["totalSteps"] == STEPS
    assert 0 < ended.restarts["counted"] <= 5  # a kill may fall into the restart after another
    check_exact(trace, undisturbed)


def test_the_data_are_the_same_at_any_number_of_ranks(
    tmp_path: Path, undisturbed: Trace, jobs: list[Job]
) -> None:
    """2 → 1 → 3 ranks; the script itself sees to it that each sample is there once an epoch."""
    trace = Trace(tmp_path)
    for ranks, until in ((2, 6), (1, 14), (3, STEPS)):
        run = job(tmp_path, ranks=ranks, every=100, delay_ms="10")
        jobs.append(run.start())
        if until < STEPS:
            wait_for(f"step {until}", lambda until=until: trace.last_step >= until, SECONDS)
            run.signal(signal.SIGINT)
        ended = run.finish(SECONDS)
        assert ended.phase == ("Succeeded" if until == STEPS else "Suspended"), ended.shown
    assert trace.steps() == list(range(1, STEPS + 1))
    assert trace.orders() == undisturbed.orders()


def test_a_plain_python_runs_the_script_alone(tmp_path: Path, undisturbed: Trace) -> None:
    subprocess.run([sys.executable, SCRIPT], env=environment(tmp_path), check=True, timeout=SECONDS)
    assert Trace(tmp_path).orders() == undisturbed.orders()


def test_the_data_are_the_same_while_a_group_grows_and_shrinks(
    tmp_path: Path, undisturbed: Trace, jobs: list[Job]
) -> None:
    """2 → 1 → 2 pods as the spec asks for, and then a lost pod."""
    trace = Trace(tmp_path)
    run = job(tmp_path, ranks=1, every=1, delay_ms="400")
    workers = {"replicas": 2, "elastic": {"minReplicas": 1, "maxReplicas": 2}}
    run.manifest["spec"]["workers"] |= workers
    jobs.append(run.start())

    def sizes() -> list[str]:
        return re.findall(r"starts with (\d) ranks", run.shown)

    for replicas, until in ((1, 4), (2, 8)):
        wait_for(f"step {until}", lambda until=until: trace.last_step >= until, SECONDS)
        run.manifest["spec"]["workers"]["replicas"] = replicas
        run.write()
        run.signal(signal.SIGHUP)
        wait_for("the other size", lambda size=str(replicas): sizes()[-1] == size, SECONDS)
    wait_for("a step of both", lambda: trace.last_step >= 12, SECONDS)
    assert trace.steps() == list(range(1, trace.last_step + 1))  # none was done twice
    assert len(re.findall(r"starts with \d ranks from .* in memory", run.shown)) == 2
    agent = run.agent(1)
    assert agent is not None
    agent.kill()
    ended = run.finish(SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown + run.logs(0)
    assert sizes()[:3] == ["2", "1", "2"]
    assert ended.status["checkpoint"]["step"] == STEPS
    assert trace.orders() == undisturbed.orders()
