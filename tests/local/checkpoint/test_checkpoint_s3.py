"""The checkpoint protocol on a real S3 server."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from checkpoint_world import (
    NOW,
    Memory,
    State,
    contents,
    make_state,
    restore,
    save,
    write_parts,
)
from hack.seaweed import SeaweedServer

from headway.checkpoint import fence
from headway.checkpoint.errors import BucketMissing, ObjectMissing, StoreDenied, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits, read_tensors, restore_newest
from headway.checkpoint.retention import prune
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.state import CHUNK, TensorSpec
from headway.checkpoint.stores import Store, check, open_store
from headway.checkpoint.writer import commit, write_part

OLDER = CheckpointId(generation=1, step=10)
NEWER = CheckpointId(generation=1, step=20)
PATIENT = RetryPolicy(deadline=60, request_timeout=10, first_backoff=0.05, max_backoff=0.5)
HASTY = RetryPolicy(deadline=1.0, request_timeout=2.0, first_backoff=0.05)


def root(seaweed: SeaweedServer, name: str, policy: RetryPolicy = PATIENT) -> Store:
    return open_store(
        f"{seaweed.make_bucket('jobs')}/team/{name}",
        endpoint=seaweed.endpoint,
        access_key=seaweed.access_key,
        secret_key=seaweed.secret_key,
        retry=policy,
    )


@pytest.mark.parametrize("world_size", [1, 3])
def test_a_state_comes_back_from_s3(seaweed: SeaweedServer, world_size: int) -> None:
    store = root(seaweed, f"roundtrip-{world_size}")
    check(store)
    save(store, OLDER, make_state(10), world_size)
    restored, found = restore(store, rank=0)
    assert found == contents(make_state(10))
    assert restored.rank_state == {"rng": [0, 2**70], "cursor": 10}
    assert restored.fallbacks == ()


def test_a_part_above_one_request_is_sent_in_pieces_and_comes_back(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "multipart")
    state = make_state(4, [("big", "F32", (CHUNK // 4 * 2 + 3,)), ("small", "U8", (3,))])
    record = save(store, OLDER, state, world_size=1)
    assert store.size(record.parts[0].key) == record.parts[0].size > 2 * CHUNK
    assert restore(store)[1] == contents(state)


def test_the_server_keeps_the_bytes_as_they_are(seaweed: SeaweedServer) -> None:
    """SeaweedFS gzips what has no type, and would unpack it at each restore."""
    store, before = root(seaweed, "plain"), stored_bytes(seaweed)
    store.put("part", [bytes(CHUNK)] * 3, size=3 * CHUNK)
    assert stored_bytes(seaweed) - before >= 3 * CHUNK


def stored_bytes(seaweed: SeaweedServer) -> int:
    return sum(file.stat().st_size for file in seaweed.data_dir.rglob("*.dat"))


def test_damaged_objects_on_s3_are_passed_over(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "damage")
    save(store, OLDER, make_state(10))
    record = save(store, NEWER, make_state(20))
    part, whole = record.parts[1].key, store.get(record.parts[1].key)
    for bad, reason in (
        (whole[:-1] + bytes([whole[-1] ^ 1]), "of tensor"),
        (whole[:-1], "cut off"),
        (b"", "cut off"),
        (None, "is missing"),
    ):
        if bad is None:
            store.delete(part)
        else:
            store.put(part, bad)
        restored, found = restore(store)
        assert (restored.commit.id, found) == (OLDER, contents(make_state(10)))
        assert reason in restored.fallbacks[0].reason
    store.put(part, whole)
    assert restore(store)[0].commit.id == NEWER


def test_generations_and_retention_work_on_s3(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "retention")
    fence.claim(store, 1, "pod-a")
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    assert prune(store, generation=1, keep_last=1) == [OLDER]
    assert list_commits(store) == [NEWER]
    assert store.list(OLDER.directory) == []
    fence.claim(store, 2, "pod-b")
    assert fence.current(store) == fence.Marker(generation=2, holder="pod-b")


def test_the_protocols_small_operations_on_s3(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "objects")
    store.put("a/b", b"hello")
    store.put("ab", b"")
    assert store.get("a/b") == b"hello"
    assert store.get("ab") == b""
    assert store.list("a") == ["a/b"]
    assert bytes(store.get_range("a/b", 3, 10)) == b"lo"
    assert bytes(store.get_range("a/b", 5, 10)) == b""
    store.delete("a/b")
    store.delete("a/b")
    with pytest.raises(ObjectMissing):
        store.get("a/b")
    with pytest.raises(ObjectMissing):
        store.size("a/b")


@pytest.mark.parametrize(
    ("access_key", "secret_key"), [("test-access", "wrong"), ("nobody", "test-secret")]
)
def test_wrong_credentials_are_refused_at_once_and_never_printed(
    seaweed: SeaweedServer, access_key: str, secret_key: str
) -> None:
    uri = f"{seaweed.make_bucket('jobs')}/team/denied"
    store = open_store(uri, endpoint=seaweed.endpoint, access_key=access_key, secret_key=secret_key)
    for ask in (lambda: check(store), lambda: restore_newest(store, Memory(), 0)):
        began = time.monotonic()
        with pytest.raises(StoreDenied, match=r"HTTP 403.*access key") as raised:
            ask()
        assert time.monotonic() - began < 5
        assert secret_key not in str(raised.value)


def test_a_missing_bucket_is_named(seaweed: SeaweedServer) -> None:
    store = open_store(
        "s3://nowhere/job",
        endpoint=seaweed.endpoint,
        access_key=seaweed.access_key,
        secret_key=seaweed.secret_key,
    )
    for ask in (lambda: check(store), lambda: list_commits(store)):
        with pytest.raises(BucketMissing, match=r"s3://nowhere/job.*does not exist"):
            ask()


def test_a_dead_server_is_unavailable_within_the_deadline(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "dead", HASTY)
    seaweed.stop()
    try:
        for ask in (lambda: check(store), lambda: restore_newest(store, Memory(), 0)):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="connection was refused"):
                ask()
            assert time.monotonic() - began < HASTY.deadline + 2 * HASTY.request_timeout
    finally:
        seaweed.start()


def test_a_save_outlives_a_server_that_dies_and_comes_back(seaweed: SeaweedServer) -> None:
    store = root(seaweed, "revived")
    save(store, OLDER, make_state(10))
    seaweed.stop()
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save, store, NEWER, make_state(20))
        seaweed.start()
        saving.result(timeout=PATIENT.deadline)
    restored, found = restore(store)
    assert (restored.commit.id, found) == (NEWER, contents(make_state(20)))


def test_an_upload_in_pieces_outlives_a_server_that_dies_in_the_middle(
    seaweed: SeaweedServer,
) -> None:
    """The server is taken away between two pieces, and forgets them all."""
    store = root(seaweed, "cut-off")
    piece = random.Random(5).randbytes(CHUNK)
    reads = 0
    revival = threading.Thread(target=seaweed.start)

    class Pieces:
        def __iter__(self) -> Iterator[bytes]:
            nonlocal reads
            for index in range(4):
                reads += 1
                if reads == 3:
                    seaweed.stop()
                    revival.start()
                yield bytes([index]) + piece[1:]

    store.put("big", Pieces(), size=4 * CHUNK)
    revival.join()
    assert reads > 4, "the test must have interrupted it"
    assert store.get("big") == b"".join(bytes([index]) + piece[1:] for index in range(4))


def test_many_threads_save_and_restore_64_megabytes(seaweed: SeaweedServer) -> None:
    """One uploader sends several ranks' parts at once; the figures are for the reader."""
    store = root(seaweed, "threads")
    state: State = make_state(9, [(f"layer{i}.weight", "F32", (1 << 20,)) for i in range(16)])
    memory: dict[str, bytearray] = {name: bytearray(s.nbytes) for name, (s, _) in state.items()}

    def into(spec: TensorSpec) -> memoryview:
        return memoryview(memory[spec.name])

    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        receipts = list(
            pool.map(lambda rank: write_part(store, NEWER, rank, 4, state, {}), range(4))
        )
    record = commit(store, NEWER, receipts, created=NOW)
    saved = time.perf_counter()
    read_tensors(store, record, into)
    done = time.perf_counter()
    assert {name: bytes(data) for name, data in memory.items()} == contents(state)
    size = 64 * 1.048576
    print(f"save {size / (saved - began):.0f} MB/s, restore {size / (done - saved):.0f} MB/s")


def test_writing_the_same_part_twice_is_harmless(seaweed: SeaweedServer) -> None:
    """A process that died after sending may find its part there already."""
    store = root(seaweed, "twice")
    write_parts(store, OLDER, make_state(10), 2)
    save(store, OLDER, make_state(10), 2)
    assert restore(store)[1] == contents(make_state(10))
