"""The digits job on two nodes: healthy, harmed in every way that a cluster knows, and deleted.

Each test ends with the job's result: all steps done, and a model as good as without the harm.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from kindcluster import NAME, OPERATOR, SYSTEM, Cluster, Object, run, wait_for
from trainingjobs import AT_ONCE, GENTLY, KILL_A_RANK, PHASES_AT_WORK, Job, lose_pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def test_healthy_job_spreads_over_two_nodes_and_costs_five_writes(
    job: Job, cluster: Cluster
) -> None:
    job.start(step_delay_ms=40)
    job.wait_for_phase("Running", 120)
    assert len(set(job.nodes().values())) == 2, job.nodes()
    status = job.wait_for_success()
    assert status.get("restarts", {}).get("total", 0) == 0
    assert status["checkpoint"]["step"] == status["progress"]["step"]
    assert status["checkpoint"]["uri"].startswith("s3://headway/")
    writes = classify(cluster.audit(job.namespace))
    print(f"API writes of a healthy job: {dict(writes)}")
    active_tens = status["activeSeconds"] // 10 + 1
    assert writes.pop("progress", 0) <= active_tens, "at most one in 10 s"
    assert writes.pop("create pods") == 2
    assert writes.pop("status") <= 3
    assert not writes, f"unexpected writes: {dict(writes)}"


def classify(entries: list[Object]) -> Counter[str]:
    """Count writes by kind; status writes that only tell how far training is are counted apart.

    A merge patch holds what has changed: a transition changes conditions.
    """
    counts: Counter[str] = Counter()
    for entry in entries:
        target = entry["objectRef"]
        if target.get("subresource") == "status":
            status = entry["requestObject"].get("status", {})
            counts["status" if "conditions" in status else "progress"] += 1
        else:
            counts[f"{entry['verb']} {target['resource']}"] += 1
    return counts


def test_killed_rank_and_deleted_pods_cost_no_more_than_themselves(job: Job) -> None:
    """One job loses a rank, then each pod in each way; what was not harmed stays as it is."""
    job.start(epochs=40)
    job.wait_for_checkpoint()
    before = job.uids()
    killed = job.kubectl("exec", f"{job.name}-1", "--", "python", "-c", KILL_A_RANK)
    print(f"killed process {killed.strip()} of {job.name}-1")
    restarts = job.wait_for_restart(60)["restarts"]
    assert restarts["counted"] == 1, restarts
    assert restarts["last"]["worker"] == 1, restarts
    assert restarts["last"]["exitCode"] == 137, restarts
    assert job.uids() == before, "a lost process must not cost a pod"
    losses = [(1, AT_ONCE), (0, AT_ONCE), (1, GENTLY), (0, GENTLY)]
    for total, (index, options) in enumerate(losses, start=2):
        lose_pod(job, index, options, total)
    status = job.wait_for_success()
    assert status["restarts"]["total"] == 1 + len(losses)
    assert status["restarts"]["counted"] == 1, "only the rank was the program's own loss"
    assert status["checkpoint"]["resumedFromStep"] > 0
    assert status["checkpoint"]["restoredFrom"] == "Peer"


@pytest.fixture
def lost_nodes(cluster: Cluster) -> Iterator[list[str]]:
    """Nodes that the test kills; they are brought back."""
    nodes: list[str] = []
    yield nodes
    for node in nodes:
        run("docker", "start", node)
        cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=180s")
    # All replicas fled to one node: spread them again, so that the next loss is of one.
    cluster.kubectl("rollout", "restart", f"deployment/{OPERATOR}", "--namespace", SYSTEM)
    cluster.wait_for_operator()


@pytest.mark.parametrize("index", [0, 1], ids=["lead", "worker"])
def test_killed_node(job: Job, cluster: Cluster, lost_nodes: list[str], index: int) -> None:
    """A node that dies without a word: its peers tell, and its worker runs elsewhere.

    Kubernetes itself needs about 45 s to notice; status and progress are written each 10 s.
    """
    job.start()
    started = time.monotonic()
    job.wait_for_checkpoint()
    # A pod of less than 30 s is not given up by the word of its peers.
    wait_for(lambda: time.monotonic() - started > 35, 60, "pods that are old enough")
    lost, other = f"{job.name}-{index}", f"{job.name}-{1 - index}"
    before, node = job.uids(), job.nodes()[lost]
    assert node.startswith(NAME), node
    step = job.value("progress.step")
    lost_nodes.append(node)
    run("docker", "kill", node)
    killed = time.monotonic()
    wait_for(
        lambda: job.uids().get(lost, before[lost]) != before[lost] and job.nodes()[lost] != node,
        40,
        f"{lost} is on another node than {node}",
    )
    print(f"its pod is on another node {time.monotonic() - killed:.1f} s after the node's death")
    wait_for(
        lambda: job.value("phase") == "Running" and job.value("progress.step") > step,
        90 - (time.monotonic() - killed),
        f"training goes on past step {step}",
    )
    print(f"training went on {time.monotonic() - killed:.1f} s after the node's death")
    assert job.uids()[other] == before[other], "the pod that was not harmed must stay"
    restarts = job.value("restarts")
    assert restarts["last"]["reason"] == "NodeLost", restarts
    assert restarts["counted"] == 0, f"the machine's fault must not use up the budget: {restarts}"
    status = job.wait_for_success()
    assert status["checkpoint"]["resumedFromStep"] > 0


def test_suspended_job_gives_up_its_pods_and_goes_on_where_it_was(job: Job) -> None:
    job.start()
    job.wait_for_checkpoint()
    job.patch({"suspend": True})
    job.wait_for_phase("Suspended", 60)
    assert not job.pods()
    suspended = job.status()
    saved = suspended["checkpoint"]["step"]
    # Not the last regular checkpoint: SIGTERM saves the very step that was reached.
    assert saved == suspended["progress"]["step"] > 0
    job.patch({"suspend": False})
    job.wait_for_phase("Running", 60)
    status = job.wait_for_success()
    assert status["checkpoint"]["resumedFromStep"] == saved
    assert status.get("restarts", {}).get("counted", 0) == 0


def test_killed_operator_is_replaced_by_its_standby_and_the_job_does_not_notice(
    job: Job, cluster: Cluster
) -> None:
    job.start(epochs=30)  # training has to outlive the takeover
    job.wait_for_checkpoint()
    before = job.uids()
    leader = wait_for(cluster.leader, 30, "an operator leads")
    step = job.value("progress.step")
    cluster.kubectl(
        *("delete", "pod", leader, "--namespace", SYSTEM),
        *("--grace-period=0", "--force", "--wait=false"),
    )
    new = wait_for(lambda: (n := cluster.leader()) != leader and n, 60, "another operator leads")
    print(f"{new} leads instead of {leader}")
    job.wait_for_step(step + 1)
    assert job.value("phase") in PHASES_AT_WORK
    status = job.wait_for_success()
    assert status.get("restarts", {}).get("total", 0) == 0
    assert job.uids() == before


def test_deleted_job_leaves_nothing(job: Job) -> None:
    """The fixture `job` looks for remains of any kind; here the job is at work when deleted."""
    job.start()
    job.wait_for_phase("Running", 120)
    assert len(job.pods()) == 2
    job.kubectl("delete", job.ref, "--timeout=60s")
    wait_for(lambda: not job.pods(), 60, "the pods are gone")
