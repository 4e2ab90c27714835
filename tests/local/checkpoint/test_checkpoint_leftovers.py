"""What killed uploads leave in a bucket, on a real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from checkpoint_world import contents, make_state, restore, save
from hack import fault_proxy as faults
from hack.fault_proxy import FaultProxy
from hack.seaweed import SeaweedServer

from headway.checkpoint.errors import StoreDenied, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.leftovers import abort_stale_uploads
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.state import CHUNK
from headway.checkpoint.stores import Store, open_store

HASTY = RetryPolicy(deadline=0.3, request_timeout=10, first_backoff=0.02)
LARGE = [("model.weight", "U8", (2 * CHUNK,))]
HOUR = timedelta(hours=1)


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.endpoint) as proxy:
        yield proxy


@pytest.fixture
def opened(proxy: FaultProxy, seaweed: SeaweedServer) -> Callable[[str], Store]:
    bucket = seaweed.make_bucket("leftovers")

    def open_job(job: str) -> Store:
        return open_store(
            f"{bucket}/{job}",
            endpoint=proxy.endpoint,
            access_key=seaweed.access_key,
            secret_key=seaweed.secret_key,
            retry=HASTY,
        )

    return open_job


def die_while_uploading(proxy: FaultProxy, store: Store, key: str) -> None:
    """Leave an upload as a process does that is killed after its first piece: nothing follows."""
    second = proxy.fail(faults.reset_before, method="PUT", path="partNumber=2")
    clean_up = proxy.fail(faults.reset_before, method="DELETE", path="uploadId")
    with pytest.raises(StoreUnavailable):
        store.put(key, [bytes(CHUNK)] * 3, size=3 * CHUNK)
    assert second.hits
    assert clean_up.hits
    proxy.heal()


def test_uploads_that_nobody_will_complete_are_aborted_and_no_others(
    proxy: FaultProxy, opened: Callable[[str], Store]
) -> None:
    job, neighbour = opened("job"), opened("job-2")
    committed, next_step = CheckpointId(2, 20), CheckpointId(2, 30)
    killed = [CheckpointId(1, 30), CheckpointId(2, 10), committed, next_step]
    for checkpoint in killed:
        die_while_uploading(proxy, job, checkpoint.part_key(0, 1))
    die_while_uploading(proxy, job, "ckpt/somebody's own.bin")
    die_while_uploading(proxy, neighbour, committed.part_key(0, 1))
    state = make_state(20, LARGE)
    save(job, committed, state, world_size=1)
    begun = {upload.key for upload in job.uploads("ckpt")}

    soon = datetime.now(UTC) + timedelta(minutes=1)
    assert abort_stale_uploads(job, 2, now=soon) == [], "too young"
    aborted = abort_stale_uploads(job, 2, now=soon + HOUR)

    gone = {checkpoint.part_key(0, 1) for checkpoint in killed if checkpoint != next_step}
    assert {upload.key for upload in aborted} == gone
    assert {upload.key for upload in job.uploads("ckpt")} == begun - gone
    assert len(neighbour.uploads("ckpt")) >= 1
    assert abort_stale_uploads(job, 2, now=soon + HOUR) == []
    for upload in aborted:
        job.abort_upload(upload)  # a second time is harmless
    assert restore(job)[1] == contents(state)


def test_a_permission_that_is_missing_is_named(
    proxy: FaultProxy, opened: Callable[[str], Store]
) -> None:
    proxy.fail(faults.answer(403, "AccessDenied"), method="GET", path="uploads")
    with pytest.raises(StoreDenied, match=r"cannot list the uploads of 'ckpt'.*AccessDenied"):
        abort_stale_uploads(opened("denied"), 1, now=datetime.now(UTC))


def test_a_store_that_fails_for_a_moment_is_asked_again(
    proxy: FaultProxy, opened: Callable[[str], Store]
) -> None:
    for fault in (faults.answer(503, "SlowDown"), faults.reset_before, faults.reset_in_response(5)):
        rule = proxy.fail(fault, method="GET", path="uploads", times=1)
        assert opened("moment").uploads("ckpt") == []
        assert rule.hits == 1


def test_elsewhere_than_on_s3_there_is_nothing_to_do(tmp_path: object) -> None:
    assert abort_stale_uploads(open_store(str(tmp_path)), 1, now=datetime.now(UTC)) == []


def test_the_credentials_of_the_environment_do_too(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.secret_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed.endpoint)
    store = open_store(f"{seaweed.make_bucket('environment')}/job", retry=HASTY)
    assert store.uploads("ckpt") == []
