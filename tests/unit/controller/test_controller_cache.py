"""What is known of the cluster, in whatever order it is told."""

from typing import Any

import pytest
from virtual import run

from headway_api.contract import LABEL_INDEX, LABEL_JOB
from headway_operator.cache import Cache
from headway_operator.cluster.client import NODE, POD, Object
from headway_operator.resources import CLUSTER_TRAINING_RUNTIME, TRAINING_JOB, TRAINING_RUNTIME

KEY = ("lab", "digits")


def a_job(version: int, uid: str = "job", **fields: Any) -> Object:
    metadata = {
        "namespace": "lab",
        "name": "digits",
        "uid": uid,
        "resourceVersion": str(version),
        "managedFields": [{"manager": "x"}],
    }
    return {"metadata": metadata, **fields}


def a_pod(version: int, uid: str = "pod", name: str = "digits-0", **fields: Any) -> Object:
    metadata = {
        "namespace": "lab",
        "name": name,
        "uid": uid,
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {LABEL_JOB: "digits", LABEL_INDEX: name[-1]},
        "ownerReferences": [{"uid": "job", "controller": True}],
    }
    return {"metadata": metadata, "spec": {"nodeName": "node-0"}, **fields}


def a_node(version: int, ready: str, name: str = "node-0") -> Object:
    metadata = {"name": name, "uid": name, "resourceVersion": str(version)}
    return {
        "metadata": metadata,
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def phases(cache: Cache) -> list[str]:
    return [pod.phase for pod in cache.pods(KEY)]


def running(version: int, **fields: Any) -> Object:
    return a_pod(version, status={"phase": "Running"}, **fields)


def test_an_older_state_does_not_replace_a_newer() -> None:
    cache = Cache()
    assert cache.put(POD, running(5)) == (KEY,)
    assert cache.put(POD, a_pod(4)) == ()
    assert cache.put(POD, a_pod(5)) == ()
    assert phases(cache) == ["Running"]
    assert cache.put(TRAINING_JOB, a_job(5, spec={"a": 1})) == (KEY,)
    assert cache.put(TRAINING_JOB, a_job(4)) == ()
    job = cache.job(KEY)
    assert job is not None
    assert job["spec"] == {"a": 1}


def test_versions_are_numbers() -> None:
    cache = Cache()
    cache.put(POD, a_pod(9))
    cache.put(POD, running(10))
    assert phases(cache) == ["Running"]


def test_a_late_answer_does_not_bring_the_dead_back() -> None:
    """Our creation's answer may come after the watch told of the deletion."""
    cache = Cache()
    cache.remove(POD, a_pod(7))
    assert cache.put(POD, a_pod(5)) == ()
    cache.remove(TRAINING_JOB, a_job(7))
    assert cache.put(TRAINING_JOB, a_job(5)) == ()
    assert cache.pods(KEY) == ()
    assert cache.job(KEY) is None


def test_a_deletion_of_a_namesake_before_leaves_the_one_of_now() -> None:
    cache = Cache()
    cache.put(POD, a_pod(9, uid="new"))
    cache.put(TRAINING_JOB, a_job(9, uid="new"))
    assert cache.remove(POD, a_pod(8, uid="old")) == ()
    assert cache.remove(TRAINING_JOB, a_job(8, uid="old")) == ()
    assert cache.has_pods(KEY)
    assert cache.job(KEY) is not None


def test_a_change_that_nobody_reads_wakes_nobody() -> None:
    cache = Cache()
    cache.put(POD, running(5))
    assert cache.put(POD, running(6, metadata_only=True)) == ()
    assert cache.put(POD, a_pod(7)) == (KEY,)


def test_what_was_asked_for_is_remembered_until_the_pod_is_gone() -> None:
    cache = Cache()
    cache.put(POD, a_pod(5))
    cache.mark_removal(KEY, "digits-0", "pod", "asked")
    cache.put(POD, running(6))
    assert [pod.removal for pod in cache.pods(KEY)] == ["asked"]
    cache.put(POD, a_pod(8, uid="next"))
    assert [pod.removal for pod in cache.pods(KEY)] == [""]


def test_pods_come_by_index() -> None:
    cache = Cache()
    for index in (2, 0, 1):
        cache.put(POD, a_pod(5, uid=str(index), name=f"digits-{index}"))
    assert [pod.index for pod in cache.pods(KEY)] == [0, 1, 2]


def test_a_silent_node_wakes_the_jobs_that_have_pods_there() -> None:
    cache = Cache()
    cache.put(POD, a_pod(5))
    assert cache.put(NODE, a_node(1, "True")) == ()
    assert cache.put(NODE, a_node(2, "Unknown", "node-1")) == ()
    assert cache.put(NODE, a_node(3, "Unknown")) == (KEY,)
    assert cache.lost_nodes(cache.pods(KEY)) == {"node-0"}
    assert cache.put(NODE, a_node(4, "Unknown")) == (), "a heartbeat changes nothing"
    assert cache.put(NODE, a_node(2, "True")) == (), "old news"
    assert cache.put(NODE, a_node(5, "True")) == (KEY,)
    assert cache.lost_nodes(cache.pods(KEY)) == frozenset()


def test_a_node_that_is_not_ready_but_speaks_is_not_lost() -> None:
    cache = Cache()
    cache.put(POD, a_pod(5))
    cache.put(NODE, a_node(1, "False"))
    assert cache.lost_nodes(cache.pods(KEY)) == frozenset()


@pytest.mark.parametrize(
    ("resource", "reference", "status", "woken"),
    [
        (CLUSTER_TRAINING_RUNTIME, {"name": "torch"}, {}, True),
        (CLUSTER_TRAINING_RUNTIME, {"name": "other"}, {}, False),
        (TRAINING_RUNTIME, {"name": "torch"}, {}, False),
        (TRAINING_RUNTIME, {"name": "torch", "kind": "TrainingRuntime"}, {}, True),
        (CLUSTER_TRAINING_RUNTIME, {"name": "torch"}, {"runtime": {"image": "i"}}, False),
    ],
)
def test_a_runtime_wakes_the_jobs_that_wait_for_it(
    resource: Any, reference: dict[str, str], status: dict[str, Any], woken: bool
) -> None:
    cache = Cache()
    cache.put(TRAINING_JOB, a_job(1, spec={"runtimeRef": reference}, status=status))
    metadata = {"name": "torch", "uid": "r", "resourceVersion": "2"}
    if resource.namespaced:
        metadata["namespace"] = "lab"
    assert cache.put(resource, {"metadata": metadata, "spec": {}}) == ((KEY,) if woken else ())


def test_only_what_is_read_is_kept() -> None:
    cache = Cache()
    cache.put(TRAINING_JOB, a_job(1))
    assert "managedFields" not in str(cache.job(KEY))


def test_who_waits_is_told_of_the_next_change_and_who_leaves_is_forgotten() -> None:
    async def test() -> None:
        cache = Cache()
        waiting, leaving = cache.changed(KEY), cache.changed(KEY)
        leaving.cancel()
        cache.put(POD, a_pod(5))
        await waiting
        assert not cache.changed(KEY).done(), "counted from this very call"

    run(test())
