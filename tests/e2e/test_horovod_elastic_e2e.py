"""An elastic Horovod group on two nodes: it shrinks and grows as `kubectl patch` tells it to."""

from __future__ import annotations

import pytest
from kindcluster import ROOT, wait_for
from trainingjobs import HOROVOD_IMAGE, Job

from elastic_steps import BATCHES, NONE, Step, nothing_was_lost, read

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

SCRIPT = ROOT / "tests/local/jobs/scripts/horovod_elastic.py"


def steps(job: Job) -> list[Step]:
    """What rank 0 has written to worker 0's log."""
    return read(job.kubectl("logs", f"{job.name}-0").splitlines())


def wait_for_size(job: Job, size: int) -> Step:
    """Wait until rank 0 trains in a group of this size; the newest step."""

    def reached() -> Step | None:
        newest = (steps(job) or [NONE])[-1]
        return newest if newest.size == size else None

    return wait_for(reached, 90, f"{job.name} trains with {size}")


def resize(job: Job, replicas: int) -> Step:
    """Set `workers.replicas` and wait until that many train; the newest step."""
    job.patch({"workers": {"replicas": replicas}})
    step = wait_for_size(job, replicas)
    wait_for(lambda: len(job.pods()) == replicas, 60, f"{replicas} pods")
    return step


def test_elastic_horovod_group_shrinks_and_grows_and_worker_0_lives_on(job: Job) -> None:
    env = {"BATCHES": BATCHES, "DELAY": 0.2, "STEPS": "/dev/stdout"}
    job.start(
        framework="Horovod",
        image=HOROVOD_IMAGE,
        command=["python", "-c", SCRIPT.read_text()],
        workers={"replicas": 2, "elastic": {"minReplicas": 1, "maxReplicas": 3}},
        pod={"env": [{"name": name, "value": str(value)} for name, value in env.items()]},
    )
    before, uids = wait_for_size(job, 2), job.uids()
    assert len(set(job.nodes().values())) == 2, job.nodes()
    for replicas in (1, 2):
        step = resize(job, replicas)
        assert step.process == before.process, "worker 0's process must live on"
        print(f"trains with {replicas} from batch {step.batch} on")
    assert job.uids()[f"{job.name}-0"] == uids[f"{job.name}-0"]
    assert len(set(job.nodes().values())) == 2, job.nodes()
    status = job.wait_for_phase("Succeeded", 180)
    restarts = status.get("restarts", {})
    assert restarts.get("total", 0) == 0, f"what was asked for is no loss: {restarts}"
    done = steps(job)
    assert {step.process for step in done} == {before.process}
    nothing_was_lost(done)
