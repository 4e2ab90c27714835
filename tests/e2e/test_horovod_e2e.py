"""Horovod's scripts on two nodes: an unmodified one, and one that is harmed and goes on."""

from __future__ import annotations

import time

import pytest
from trainingjobs import AT_ONCE, GENTLY, HOROVOD_IMAGE, KILL_A_RANK, Job, lose_pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

UNMODIFIED = """
import os
import horovod.torch as hvd, torch
hvd.init()
places = hvd.allgather_object((os.environ["HOSTNAME"], hvd.local_rank(), hvd.cross_rank()))
total = int(hvd.allreduce(torch.tensor(float(hvd.rank())), op=hvd.Sum))
print(f"rank {hvd.rank()} of {hvd.size()}: sum of ranks {total}, {places}")
"""


def on_two_nodes(job: Job) -> bool:
    return len(job.nodes()) == len(set(job.nodes().values())) == 2


def test_horovod_script_that_knows_nothing_of_headway_spans_two_nodes(job: Job) -> None:
    """Four ranks: two of each pod reach each other and those of the other node."""
    job.start(
        framework="Horovod",
        image=HOROVOD_IMAGE,
        command=["python", "-c", UNMODIFIED],
        workers={"replicas": 2, "processesPerWorker": 2},
    )
    status = job.wait_for_phase("Succeeded", 240)
    assert on_two_nodes(job), job.nodes()
    assert status.get("restarts", {}).get("total", 0) == 0
    first, second = f"{job.name}-0", f"{job.name}-1"
    places = [(first, 0, 0), (first, 1, 0), (second, 0, 1), (second, 1, 1)]
    for rank, (pod, _, _) in enumerate(places):
        said = f"rank {rank} of 4: sum of ranks 6, {places}"
        assert said in job.kubectl("logs", pod)


def test_horovod_job_outlives_a_killed_rank_and_deleted_pods(job: Job) -> None:
    job.start(
        epochs=20,
        framework="Horovod",
        image=HOROVOD_IMAGE,
        command=["python", "examples/horovod/train.py"],
    )
    job.wait_for_checkpoint()
    assert on_two_nodes(job), job.nodes()
    before, began = job.uids(), time.monotonic()
    job.kubectl("exec", f"{job.name}-1", "--", "python", "-c", KILL_A_RANK)
    restarts = job.wait_for_restart(60)["restarts"]
    print(f"killed rank: at work again after {time.monotonic() - began:.1f} s")
    assert restarts["last"]["worker"] == 1, restarts
    assert restarts["last"]["exitCode"] == 137, restarts
    assert job.uids() == before, "a lost process must not cost a pod"
    lose_pod(job, 1, GENTLY, total=2)
    lose_pod(job, 0, AT_ONCE, total=3)
    status = job.wait_for_success()
    assert on_two_nodes(job), job.nodes()
    assert status["restarts"]["total"] == 3
    assert status["restarts"]["counted"] == 1, "only the rank was the program's own loss"
    assert status["checkpoint"]["resumedFromStep"] > 0
    assert status["checkpoint"]["restoredFrom"] == "Peer"
