"""A runtime under a job."""

from typing import Any

import pytest
from job_views import a_job

from headway_api.runtime import TrainingRuntimeSpec
from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.trainingjob.merge import merged, snapshot
from headway_operator.trainingjob.stuck import Stuck


def runtime(**fields: Any) -> TrainingRuntimeSpec:
    return TrainingRuntimeSpec.model_validate(fields)


def over(base: dict[str, Any], **job: Any) -> TrainingJobSpec:
    return merged(a_job(**job).spec, runtime(**base))


@pytest.mark.parametrize(
    ("field", "base", "own", "expected"),
    [
        ("image", "base", None, "base"),
        ("image", "base", "own", "own"),
        ("command", ["base"], ["own"], ["own"]),
        ("preload", ["base"], None, ["base"]),
        ("preload", ["base"], ["own"], ["own"]),
        # Half a storage is no storage: the job's own replaces it whole.
        (
            "storage",
            {"uri": "s3://b/base", "endpoint": "http://base"},
            {"uri": "s3://b/own"},
            {"uri": "s3://b/own"},
        ),
        (
            "gpu",
            {"pools": ["a"], "perWorker": 8},
            {"pools": ["b"]},
            {"pools": ["b"], "perWorker": 1},
        ),
        (
            "horovod",
            {"timeoutSeconds": 60, "autotune": {}},
            {"timeoutSeconds": 90},
            {"timeoutSeconds": 90},
        ),
        ("parameters", {"lr": "1", "a": "1"}, {"lr": "2"}, {"lr": "2", "a": "1"}),
        (
            "pod",
            {
                "labels": {"a": "1", "b": "1"},
                "workingDir": "/base",
                "env": [{"name": "A", "value": "1"}],
            },
            {
                "labels": {"b": "2"},
                "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            },
            {
                "labels": {"a": "1", "b": "2"},
                "workingDir": "/base",
                "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            },
        ),
    ],
)
def test_the_jobs_own_fields_win(field: str, base: Any, own: Any, expected: Any) -> None:
    wire = over({field: base}, runtimeRef={"name": "r"}, **{field: own}).wire()
    assert wire[field] == expected


def test_resources_come_from_the_runtime_where_the_job_has_none() -> None:
    base = {"resources": {"limits": {"cpu": "4"}}}
    given = over(base).workers.resources
    assert given is not None
    assert given.wire() == base["resources"]
    own = {"replicas": 2, "resources": {"limits": {"cpu": "8"}}}
    kept = over(base, workers=own).workers.resources
    assert kept is not None
    assert kept.wire() == own["resources"]


@pytest.mark.parametrize(
    ("base", "job", "reason"),
    [
        ({"framework": "Horovod"}, {}, "FrameworkMismatch"),
        ({"command": ["c"]}, {"image": None, "runtimeRef": {"name": "r"}}, "ImageMissing"),
        ({"image": "i"}, {"command": None, "runtimeRef": {"name": "r"}}, "CommandMissing"),
        ({"checkpoint": {"everySteps": 5}}, {}, "StorageMissing"),
        ({}, {"model": {"name": "m"}, "runtimeRef": {"name": "r"}}, "StorageMissing"),
        ({"horovod": {"timeline": {}}}, {"framework": "Horovod"}, "StorageMissing"),
        ({"horovod": {"autotune": {"log": True}}}, {"framework": "Horovod"}, "StorageMissing"),
    ],
)
def test_what_makes_no_job_says_what_to_change(
    base: dict[str, Any], job: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Stuck) as caught:
        over(base, **job)
    assert caught.value.reason == reason


def test_a_snapshot_wins_over_the_runtime_of_today() -> None:
    """An edit of a runtime must not reach jobs that run."""
    status = TrainingJobStatus(runtime={"image": "then"})
    found = snapshot(a_job(runtimeRef={"name": "r"}).spec, status, runtime(image="now"))
    assert found is not None
    assert found.image == "then"


def test_a_runtime_that_does_not_exist_is_named() -> None:
    with pytest.raises(Stuck, match="ClusterTrainingRuntime torch does not exist"):
        snapshot(a_job(runtimeRef={"name": "torch"}).spec, TrainingJobStatus(), None)
