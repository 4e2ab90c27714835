"""`hvd.elastic.run` under Headway: processes that outlive a lost peer, and groups that resize."""

from __future__ import annotations

import os
import signal

import pytest
from local_runs import Job, MakeJob, Outcome, needs_horovod, script, wait_for

from elastic_steps import BATCHES, NONE, Step, nothing_was_lost, read

pytestmark = [
    pytest.mark.xdist_group("horovod-elastic"),
    pytest.mark.timeout(600),
    needs_horovod,
]
SECONDS = 240


def steps(run: Job) -> list[Step]:
    path = run.folder / "steps"
    return read(path.read_text().splitlines() if path.exists() else [])


def last(run: Job) -> Step:
    return (steps(run) or [NONE])[-1]


def elastic_job(job: MakeJob, replicas: int = 2, processes: int = 1, delay: float = 0.02) -> Job:
    run = job(
        script("horovod_elastic.py"),
        replicas=replicas,
        framework="Horovod",
        env={"BATCHES": str(BATCHES), "DELAY": str(delay)},
    )
    run.manifest["spec"]["workers"] |= {
        "processesPerWorker": processes,
        "elastic": {"minReplicas": 1, "maxReplicas": 3},
    }
    run.env["STEPS"] = str(run.folder / "steps")
    return run


def wait_for_batch(run: Job, batch: int) -> Step:
    wait_for(f"batch {batch}", lambda: last(run).batch >= batch, SECONDS)
    return last(run)


def wait_for_size(run: Job, size: int) -> Step:
    wait_for(f"a group of {size}", lambda: last(run).size == size, SECONDS)
    return last(run)


def resize(run: Job, replicas: int) -> None:
    run.manifest["spec"]["workers"]["replicas"] = replicas
    run.write()
    run.signal(signal.SIGHUP)


def check(run: Job, ended: Outcome) -> None:
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown[-3000:]
    nothing_was_lost(steps(run))


def test_a_killed_rank_costs_no_other_process_its_state(job: MakeJob) -> None:
    run = elastic_job(job).start()
    before = wait_for_batch(run, 20)
    victim = run.worker(1)
    assert victim is not None
    victim.kill()
    after = wait_for_batch(run, before.batch + 30)
    assert after.process == before.process
    first = run.worker(0)
    assert first is not None
    first.kill()  # now the other one has the state, and is rank 0
    again = wait_for_batch(run, after.batch + 30)
    assert again.process != before.process
    ended = run.finish(SECONDS)
    check(run, ended)
    assert ended.restarts["total"] == 2


def test_any_process_of_a_pod_may_be_the_one_that_is_left(job: MakeJob) -> None:
    run = elastic_job(job, replicas=1, processes=2).start()
    before = wait_for_batch(run, 20)
    os.kill(before.process, signal.SIGKILL)
    after = wait_for_batch(run, before.batch + 30)
    os.kill(after.process, signal.SIGKILL)
    check(run, run.finish(SECONDS))


def test_it_grows_and_shrinks_as_it_is_told(job: MakeJob) -> None:
    run = elastic_job(job, delay=0.3).start()
    before = wait_for_batch(run, 10)
    assert before.size == 2
    resize(run, 3)
    assert wait_for_size(run, 3).process == before.process
    resize(run, 1)
    assert wait_for_size(run, 1).process == before.process
    resize(run, 2)
    assert wait_for_size(run, 2).process == before.process
    ended = run.finish(SECONDS)
    check(run, ended)
    assert not ended.restarts.get("counted")


def test_it_goes_on_without_a_lost_pod_and_takes_its_successor_in(
    job: MakeJob,
) -> None:
    run = elastic_job(job).start()
    before = wait_for_batch(run, 20)
    agent = run.agent(1)
    assert agent is not None
    agent.kill()
    after = wait_for_batch(run, before.batch + 40)
    assert after.process == before.process
    check(run, run.finish(SECONDS))


def test_the_pod_that_leads_may_be_lost(job: MakeJob) -> None:
    run = elastic_job(job).start()
    before = wait_for_batch(run, 20)
    lead = run.agent(0)
    assert lead is not None
    lead.kill()
    after = wait_for_batch(run, before.batch + 40)
    assert after.process != before.process
    check(run, run.finish(SECONDS))


def test_sigterm_for_any_pod_costs_no_batch(job: MakeJob) -> None:
    run = elastic_job(job, delay=0.1).start()
    wait_for_batch(run, 20)
    for index in (1, 0):
        agent = run.agent(index)
        assert agent is not None
        os.kill(agent.pid, signal.SIGTERM)
        wait_for(f"another worker {index}", lambda i=index, a=agent: run.agent(i) not in (None, a))  # type: ignore[misc]
        wait_for_batch(run, last(run).batch + 20)
    check(run, run.finish(SECONDS))
    done = [step.batch for step in steps(run)]
    assert done == sorted(set(done))
