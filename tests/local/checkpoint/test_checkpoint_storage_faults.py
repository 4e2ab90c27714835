"""Saves, restores and deletions through a proxy that breaks requests to a real S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from checkpoint_world import Memory, contents, make_state, restore, save
from hack import fault_proxy as faults
from hack.fault_proxy import Fault, FaultProxy
from hack.seaweed import SeaweedServer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headway.checkpoint import fence
from headway.checkpoint.errors import (
    CheckpointError,
    NoValidCheckpoint,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits, restore_newest
from headway.checkpoint.retention import prune
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store, open_store

OLDER = CheckpointId(generation=1, step=10)
NEWER = CheckpointId(generation=1, step=20)
PATIENT = RetryPolicy(deadline=60, request_timeout=2, first_backoff=0.02, max_backoff=0.2)
# For pieces of 16 MiB on a busy machine.
SLOW = RetryPolicy(deadline=60, request_timeout=10, first_backoff=0.02, max_backoff=0.2)
HASTY = RetryPolicy(deadline=0.5, request_timeout=1, first_backoff=0.02, max_backoff=0.1)
SECRET = "test-secret"

# Three pieces for each of two ranks: enough to break an upload in the middle.
LARGE = [("model.weight", "F32", (17, 1024, 1024)), ("optimizer.step", "I64", ())]


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.endpoint) as proxy:
        yield proxy


@pytest.fixture
def opened(
    proxy: FaultProxy, seaweed: SeaweedServer, request: pytest.FixtureRequest
) -> Callable[[RetryPolicy], Store]:
    """Opens the test's own root through the proxy."""
    uri = f"{seaweed.make_bucket('faults')}/{abs(hash(request.node.name))}"

    def open_with(policy: RetryPolicy) -> Store:
        return open_store(
            uri,
            endpoint=proxy.endpoint,
            access_key=seaweed.access_key,
            secret_key=SECRET,
            retry=policy,
        )

    return open_with


def newest(store: Store) -> tuple[CheckpointId, dict[str, bytes]]:
    restored, found = restore(store)
    return restored.commit.id, found


# --- what passes --------------------------------------------------------------------------------

PASSING: dict[str, Fault] = {
    "slow down": faults.answer(503, "SlowDown"),
    "internal error": faults.answer(500, "InternalError"),
    "too many requests": faults.answer(429, "TooManyRequests"),
    "reset before": faults.reset_before,
    "reset after": faults.reset_after,
    "reset in the request": faults.reset_in_request(after=100),
    "reset in the answer": faults.reset_in_response(after=10),
    "stall": faults.stall(after=10),
}


def times(fault: str) -> int:
    """How often it happens: more often than the library below tries by itself, if that is quick."""
    return 1 if fault == "stall" else 4


SENT = {
    "a part": ("PUT", "/part-"),
    "a rank's state": ("PUT", "/rank-"),
    "the look for parts": ("HEAD", "/part-"),
    "the marker": ("GET", "/generation.json"),
    "the commit": ("PUT", "/COMMIT.json"),
}
READ = {
    "the list": ("GET", "list-type"),
    "the commit": ("GET", "/COMMIT.json"),
    "a rank's state": ("GET", "/rank-"),
    "a part": ("GET", "/part-"),
}


@pytest.mark.parametrize("what", SENT)
@pytest.mark.parametrize("fault", PASSING)
def test_a_save_outlives_what_passes(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], fault: str, what: str
) -> None:
    store = opened(PATIENT)
    fence.claim(store, 1, "pod")
    method, path = SENT[what]
    rule = proxy.fail(PASSING[fault], method=method, path=path, times=times(fault))
    save(store, NEWER, make_state(20))
    assert rule.hits, "the fault did not happen"
    assert newest(store) == (NEWER, contents(make_state(20)))


@pytest.mark.parametrize("what", READ)
@pytest.mark.parametrize("fault", PASSING)
def test_a_restore_outlives_what_passes_and_takes_the_newest(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], fault: str, what: str
) -> None:
    store = opened(PATIENT)
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    method, path = READ[what]
    rule = proxy.fail(PASSING[fault], method=method, path=path, times=times(fault))
    restored, found = restore(store)
    assert rule.hits, "the fault did not happen"
    assert (restored.commit.id, restored.fallbacks) == (NEWER, ())
    assert found == contents(make_state(20))


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId")],
    ids=["beginning", "a piece", "completing"],
)
@pytest.mark.parametrize("fault", ["slow down", "reset before", "reset after"])
def test_an_upload_in_pieces_outlives_what_passes(
    proxy: FaultProxy,
    opened: Callable[[RetryPolicy], Store],
    fault: str,
    method: str,
    path: str,
) -> None:
    store = opened(SLOW)
    rule = proxy.fail(PASSING[fault], method=method, path=path, times=1)
    state = make_state(1, LARGE)
    save(store, NEWER, state, world_size=1)
    assert rule.hits == 1, "the fault did not happen"
    assert newest(store) == (NEWER, contents(state))


@pytest.mark.parametrize("what", sorted(READ.keys() - {"the list"}))
def test_a_byte_that_changes_on_the_way_costs_no_checkpoint(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], what: str
) -> None:
    store = opened(PATIENT)
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    method, path = READ[what]
    rule = proxy.fail(faults.corrupt(at=30), method=method, path=path, times=1)
    restored, found = restore(store)
    assert rule.hits == 1, "the fault did not happen"
    assert (restored.commit.id, restored.fallbacks) == (NEWER, ())
    assert found == contents(make_state(20))


def test_a_slow_store_is_waited_for(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store]
) -> None:
    store = opened(PATIENT)
    save(store, NEWER, make_state(20))
    rule = proxy.fail(faults.slow(latency=0.3, bytes_per_second=50_000), method="GET")
    assert newest(store) == (NEWER, contents(make_state(20)))
    assert rule.hits > 0


# --- what stays ---------------------------------------------------------------------------------

STAYING: dict[str, tuple[Fault, type[StoreError], str]] = {
    "failing": (faults.answer(503, "SlowDown"), StoreUnavailable, "HTTP 503"),
    "cut off": (faults.reset_before, StoreUnavailable, "network"),
    "silent": (faults.stall(), StoreUnavailable, "did not answer in time|connection broke"),
    "unknown key": (
        faults.answer(403, "InvalidAccessKeyId"),
        StoreDenied,
        "HTTP 403.*Check the given access key",
    ),
    "expired": (
        faults.answer(400, "ExpiredToken"),
        StoreDenied,
        "HTTP 400.*Check the given access key",
    ),
}


@pytest.mark.parametrize("staying", STAYING)
@pytest.mark.parametrize("after", range(0, 9, 2))
def test_a_store_that_stays_away_during_a_save_loses_nothing_that_was_committed(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], staying: str, after: int
) -> None:
    store = opened(HASTY)
    save(store, OLDER, make_state(10))
    fault, error, message = STAYING[staying]
    before = len(proxy.requests)
    proxy.fail(fault, skip=after)
    with pytest.raises(error, match=message) as raised:
        save(store, NEWER, make_state(20))
    is_one_sentence(raised.value)
    assert len(proxy.requests) - before > after
    proxy.heal()
    store = opened(PATIENT)
    assert newest(store) == (OLDER, contents(make_state(10)))
    save(store, NEWER, make_state(20))
    assert newest(store) == (NEWER, contents(make_state(20)))


@pytest.mark.parametrize("staying", STAYING)
@pytest.mark.parametrize("what", READ)
def test_a_store_that_stays_away_during_a_restore_is_no_bad_checkpoint(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], staying: str, what: str
) -> None:
    store = opened(HASTY)
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    fault, error, message = STAYING[staying]
    method, path = READ[what]
    proxy.fail(fault, method=method, path=path)
    with pytest.raises(error, match=message) as raised:
        restore_newest(store, Memory(), 0)
    is_one_sentence(raised.value)


def test_credentials_that_expire_in_the_middle_of_an_upload_are_named(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store]
) -> None:
    store = opened(SLOW)
    save(store, OLDER, make_state(10))
    proxy.fail(faults.answer(403, "ExpiredToken"), method="PUT", path="partNumber=2")
    with pytest.raises(StoreDenied, match=r"part-.*HTTP 403, ExpiredToken") as raised:
        save(store, NEWER, make_state(1, LARGE), world_size=1)
    is_one_sentence(raised.value)
    assert newest(store)[0] == OLDER


def is_one_sentence(error: CheckpointError) -> None:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400, text
    assert SECRET not in text
    assert "Generic" not in text, "the library's own words"


# --- deleting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fails_at", range(9))
def test_retention_that_is_cut_off_anywhere_leaves_only_whole_checkpoints(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store], fails_at: int
) -> None:
    store = opened(HASTY)
    steps = [CheckpointId(1, step) for step in (10, 20, 30)]
    for each in steps:
        save(store, each, make_state(each.step))
    proxy.fail(faults.reset_before, method="DELETE|POST", skip=fails_at)
    with pytest.raises(StoreUnavailable):
        prune(store, generation=1, keep_last=1)
    proxy.heal()
    store = opened(PATIENT)
    for each in list_commits(store):
        skip = [other for other in steps if other != each]
        restored, found = restore(store, skip=skip)
        assert (restored.commit.id, found) == (each, contents(make_state(each.step)))
    prune(store, generation=1, keep_last=1)
    assert list_commits(store) == [steps[-1]]
    assert all(key.startswith(steps[-1].directory) for key in store.list("ckpt"))


def test_a_restore_beside_retention_ends_with_a_whole_checkpoint(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store]
) -> None:
    """A slow reader loses the checkpoint that it reads to the retention of a live job."""
    store = opened(PATIENT)
    save(store, OLDER, make_state(10))
    reading = proxy.fail(faults.slow(latency=0.5), method="GET", path="/part-", times=1)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(newest, opened(PATIENT))
        wait_until(lambda: reading.hits == 1)
        save(store, NEWER, make_state(20))
        prune(store, generation=1, keep_last=1)
        assert slow.result() in [
            (OLDER, contents(make_state(10))),
            (NEWER, contents(make_state(20))),
        ]


# --- two groups at once -------------------------------------------------------------------------


def test_generations_that_write_at_once_through_a_bad_network_do_not_touch_each_other(
    proxy: FaultProxy, opened: Callable[[RetryPolicy], Store]
) -> None:
    proxy.fail(faults.reset_after, method="PUT", skip=3, times=3)
    proxy.fail(faults.answer(503, "SlowDown"), skip=5, times=5)
    ready = threading.Barrier(2)

    def group(generation: int) -> None:
        store = opened(PATIENT)
        ready.wait()
        for step in (10, 20, 30):
            save(store, CheckpointId(generation, step), make_state(generation * 100 + step))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(group, generation) for generation in (1, 2)]:
            done.result()
    store = opened(PATIENT)
    for each in list_commits(store):
        skip = [other for other in list_commits(store) if other != each]
        restored, found = restore(store, skip=skip)
        assert (restored.commit.id, restored.fallbacks) == (each, ())
        assert found == contents(make_state(each.generation * 100 + each.step))
    assert newest(store)[0] == CheckpointId(2, 30)


# --- what is in the bucket ----------------------------------------------------------------------


@pytest.fixture
def saved(opened: Callable[[RetryPolicy], Store]) -> tuple[Store, dict[str, bytes]]:
    """Two checkpoints, and the objects of the newer one."""
    store = opened(PATIENT)
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    return store, {key: store.get(key) for key in store.list(NEWER.directory)}


@settings(
    max_examples=60,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_bit_that_flips_anywhere_in_the_bucket_is_noticed(
    saved: tuple[Store, dict[str, bytes]], data: st.DataObject
) -> None:
    store, objects = saved
    key = data.draw(st.sampled_from(sorted(objects)))
    at = data.draw(st.integers(0, len(objects[key]) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(objects[key])
    damaged[at] ^= 1 << bit
    store.put(key, bytes(damaged))
    try:
        for_rank = 1 if key == NEWER.rank_key(1) else 0
        restored, found = restore(store, rank=for_rank)
        assert restored.commit.id == OLDER
        assert [fallback.id for fallback in restored.fallbacks] == [NEWER]
        assert found == contents(make_state(10))
    finally:
        store.put(key, objects[key])


@pytest.mark.parametrize("keep", ["nothing", "a byte", "all but one byte"])
def test_an_object_that_is_cut_short_or_gone_is_noticed_whichever_it_is(
    saved: tuple[Store, dict[str, bytes]], keep: str
) -> None:
    store, objects = saved
    for key, whole in objects.items():
        left = {"nothing": b"", "a byte": whole[:1], "all but one byte": whole[:-1]}[keep]
        for damage in (partial(store.put, key, left), partial(store.delete, key)):
            damage()
            rank = 1 if key == NEWER.rank_key(1) else 0
            restored, _ = restore(store, rank=rank)
            assert restored.commit.id == OLDER
            assert [each.id for each in restored.fallbacks] == [NEWER], key
            store.put(key, whole)


def test_only_damaged_checkpoints_are_an_error_that_says_what_is_wrong_with_each(
    saved: tuple[Store, dict[str, bytes]],
) -> None:
    store, _ = saved
    store.delete(NEWER.part_key(0, 2))
    store.put(OLDER.commit_key, b"{}")
    with pytest.raises(NoValidCheckpoint, match=r"part-00000-of-00002.*missing.*step 10"):
        restore_newest(store, Memory(), 0)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, without a fixed sleep."""
    tick = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        tick.wait(0.01)
    raise AssertionError("it did not happen in time")
