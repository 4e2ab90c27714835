"""The reflector: nothing missed, nothing twice, never dead."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from headway_operator.cluster.client import (
    CONFIGMAP,
    EventType,
    Listing,
    Object,
    Unavailable,
    WatchEvent,
    api_error,
)
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.reflector import (
    LONGEST_DELAY,
    Key,
    Reflector,
    Timing,
    backoff,
    relist_changes,
    watch_changes,
)

NAMESPACE = "team"


class Flaky(MemoryCluster):
    """A cluster whose watches can be cut and whose lists can fail."""

    def __init__(self) -> None:
        super().__init__(lambda: datetime(2026, 1, 1, tzinfo=UTC))
        self.list_failures: list[Exception] = []
        self.watch_failures: list[Exception] = []
        self.repeat = 1
        self.lists = 0
        self.watches = 0
        self._cuts: list[asyncio.Event] = []

    def cut(self) -> None:
        """Break every open watch."""
        for event in self._cuts:
            event.set()
        self._cuts.clear()

    async def list(self, *args: Any, **scope: Any) -> Listing:
        self.lists += 1
        if self.list_failures:
            raise self.list_failures.pop(0)
        return await super().list(*args, **scope)

    async def watch(self, *args: Any, **scope: Any) -> AsyncGenerator[WatchEvent, None]:
        self.watches += 1
        if self.watch_failures:
            raise self.watch_failures.pop(0)
        cut = asyncio.Event()
        self._cuts.append(cut)
        stream = super().watch(*args, **scope)
        while True:
            following = asyncio.ensure_future(anext(stream))
            cutting = asyncio.ensure_future(cut.wait())
            try:
                await asyncio.wait({following, cutting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cutting.cancel()
                if not following.done():
                    following.cancel()
            if cut.is_set():
                raise Unavailable(0, "NoAnswer", "cut")
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            for _ in range(self.repeat):
                yield event

    async def put(self, name: str, **data: str) -> Object:
        return await self.create(
            CONFIGMAP, NAMESPACE, {"metadata": {"name": name}, "data": data or {}}
        )

    async def change(self, name: str, **data: str) -> Object:
        return await self.patch(CONFIGMAP, NAMESPACE, name, {"data": data})

    async def remove(self, name: str) -> None:
        await self.delete(CONFIGMAP, NAMESPACE, name)


class Log:
    """What the handler was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.objects: list[Object] = []
        self.naps: list[float] = []

    def __call__(self, kind: str, item: Object) -> None:
        self.told.append((kind, item["metadata"]["name"]))
        self.objects.append(item)

    async def nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the condition is the reflector's
            await asyncio.sleep(0)


@asynccontextmanager
async def following(
    cluster: Flaky, log: Callable[[str, Object], None], nap: Log, **options: Any
) -> AsyncIterator[Reflector]:
    timing = Timing(sleep=nap.nap, jitter=lambda: 0.0)
    reflector = Reflector(cluster, CONFIGMAP, log, timing=timing, **options)
    task = asyncio.create_task(reflector.run())
    try:
        await until(reflector.synced.is_set)
        yield reflector
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_exists_is_added_before_synced_and_changes_follow_in_order() -> None:
    cluster, log = Flaky(), Log()
    await cluster.put("a")
    async with following(cluster, log, log):
        assert log.told == [("ADDED", "a")]
        await cluster.put("b")
        await cluster.change("a", k="v")
        await cluster.remove("a")
        await until(lambda: len(log.told) == 4)
    assert log.told[1:] == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "a")]
    assert log.objects[3]["data"] == {"k": "v"}


async def test_deletions_in_a_410_gap_are_found_at_the_relist() -> None:
    cluster, log = Flaky(), Log()
    for name in ("gone", "kept", "remade"):
        await cluster.put(name)
    async with following(cluster, log, log):
        await until(lambda: cluster.watches == 1)
        del log.told[:]
        await cluster.remove("gone")
        await cluster.remove("remade")
        await cluster.put("remade")
        await cluster.change("kept", k="v")
        await cluster.put("new")
        cluster.compact()
        cluster.cut()
        await until(lambda: len(log.told) == 5)
        assert cluster.lists == 2
    assert log.told == [
        ("DELETED", "gone"),
        ("DELETED", "remade"),
        ("MODIFIED", "kept"),
        ("ADDED", "new"),
        ("ADDED", "remade"),
    ]


async def test_a_dropped_connection_resumes_without_a_list() -> None:
    cluster, log = Flaky(), Log()
    await cluster.put("a")
    async with following(cluster, log, log):
        await cluster.change("a", k="1")
        await until(lambda: len(log.told) == 2)
        cluster.cut()
        await cluster.change("a", k="2")
        await until(lambda: len(log.told) == 3)
        assert cluster.lists == 1
    assert log.told[1:] == [("MODIFIED", "a"), ("MODIFIED", "a")]
    assert log.naps == [0.2]


async def test_repeated_events_are_told_once() -> None:
    cluster, log = Flaky(), Log()
    cluster.repeat = 3
    async with following(cluster, log, log):
        await cluster.put("a")
        await cluster.change("a", k="v")
        await cluster.remove("a")
        await cluster.put("last")
        await until(lambda: ("ADDED", "last") in log.told)
    told = [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a"), ("ADDED", "last")]
    assert log.told == told


async def test_a_list_that_fails_is_tried_again_after_growing_pauses() -> None:
    cluster, log = Flaky(), Log()
    await cluster.put("a")
    cluster.list_failures = [
        Unavailable(0, "NoAnswer", "down"),
        api_error(403, "Forbidden", "no role yet"),
        ValueError("a bug"),
        api_error(429, "TooManyRequests", "later", retry_after=7),
    ]
    async with following(cluster, log, log):
        assert log.told == [("ADDED", "a")]
    assert log.naps == [0.2, 0.4, 0.8, 7.0]


async def test_a_kind_that_a_cluster_may_lack_is_empty_until_it_comes() -> None:
    cluster, log = Flaky(), Log()
    await cluster.put("a")
    cluster.list_failures = [api_error(404, "NotFound", "no such kind")] * 3
    async with following(cluster, log, log, optional=True):
        assert not log.told
        await until(lambda: bool(log.told))
        cluster.list_failures = [api_error(404, "NotFound", "no such kind any more")]
        cluster.watch_failures = [api_error(404, "NotFound", "no such kind any more")]
        cluster.cut()
        await until(lambda: len(log.told) >= 3)
    assert log.told[:3] == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert log.naps[:3] == [0.2, 0.4, 0.8]


async def test_three_failed_watches_in_a_row_lead_to_a_fresh_list() -> None:
    cluster, log = Flaky(), Log()
    cluster.watch_failures = [Unavailable(504, "Timeout", "Too large resource version")] * 3
    async with following(cluster, log, log):
        await cluster.put("a")
        await until(lambda: bool(log.told))
    assert cluster.lists == 2
    assert cluster.watches == 4


async def test_a_server_that_ends_watches_at_once_is_not_asked_in_a_hot_loop() -> None:
    cluster, log = Flaky(), Log()
    async with following(cluster, log, log, watch_seconds=0.0):
        await until(lambda: len(log.naps) == 5)
    assert log.naps[:3] == [0.2, 0.4, 0.8]


async def test_a_handler_that_raises_is_logged_and_later_events_arrive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster, log = Flaky(), Log()

    def handle(kind: str, item: Object) -> None:
        log(kind, item)
        if item["metadata"]["name"] == "bad":
            raise ValueError("cannot handle this")

    async with following(cluster, handle, log):
        await cluster.put("bad")
        await cluster.put("good")
        await until(lambda: ("ADDED", "good") in log.told)
    assert "cannot handle this" in caplog.text
    assert cluster.lists == 1


async def test_activity_moves_with_events_bookmarks_and_the_end_of_a_watch() -> None:
    cluster, log, ticks = Flaky(), Log(), [0.0]

    def clock() -> float:
        ticks[0] += 10.0
        return ticks[0]

    timing = Timing(clock=clock, sleep=log.nap, jitter=lambda: 0.0)
    reflector = Reflector(cluster, CONFIGMAP, log, watch_seconds=0.05, timing=timing)
    task = asyncio.create_task(reflector.run())
    await until(reflector.synced.is_set)
    seen = reflector.last_activity
    await cluster.put("a")
    await until(lambda: bool(log.told))
    assert reflector.last_activity > seen
    seen = reflector.last_activity
    await until(lambda: reflector.last_activity > seen)
    task.cancel()
    await asyncio.wait([task])
    assert cluster.lists == 1


async def test_managed_fields_are_left_out() -> None:
    cluster, log = Flaky(), Log()
    body = {"metadata": {"name": "a", "managedFields": [{"manager": "x"}], "labels": {"l": "v"}}}
    await cluster.create(CONFIGMAP, NAMESPACE, body)
    async with following(cluster, log, log):
        pass
    assert "managedFields" not in log.objects[0]["metadata"]
    assert log.objects[0]["metadata"]["labels"] == {"l": "v"}


def thing(name: str, version: int, uid: str = "one") -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version), "uid": uid}}


@pytest.mark.parametrize(
    ("kind", "item", "expected"),
    [
        ("ADDED", thing("a", 6), ["MODIFIED"]),
        ("MODIFIED", thing("a", 5), []),
        ("MODIFIED", thing("a", 4), []),
        ("DELETED", thing("a", 4), []),
        ("DELETED", thing("a", 6), ["DELETED"]),
        ("ADDED", thing("a", 6, uid="two"), ["DELETED", "ADDED"]),
        ("DELETED", thing("a", 6, uid="two"), ["DELETED"]),
        ("ADDED", thing("a", 4, uid="zero"), []),
        ("MODIFIED", thing("b", 6), ["ADDED"]),
        ("DELETED", thing("b", 6), []),
        ("BOOKMARK", {"metadata": {"resourceVersion": "9"}}, []),
    ],
)
def test_watch_changes(kind: EventType, item: Object, expected: list[str]) -> None:
    known: dict[Key, Object] = {(None, "a"): thing("a", 5)}
    assert [change for change, _ in watch_changes(known, WatchEvent(kind, item))] == expected


def test_relist_never_goes_back_to_an_older_version() -> None:
    assert relist_changes({(None, "a"): thing("a", 5)}, [thing("a", 4)]) == []


def test_backoff_grows_to_a_bound() -> None:
    delays = [backoff(failures, 0.0) for failures in range(1, 2000)]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_DELAY
    assert backoff(3, 1.0) == delays[2] / 2


@pytest.mark.parametrize("seed", range(20))
async def test_handler_ends_with_the_clusters_state_whatever_breaks(seed: int) -> None:
    """Random writes, cuts and compactions; the state built from events must equal the cluster's."""
    print(f"seed {seed}")
    chance, cluster, log = Random(seed), Flaky(), Log()
    state: dict[str, Object] = {}
    wrong: list[str] = []

    def handle(kind: str, item: Object) -> None:
        name = item["metadata"]["name"]
        if (name in state) is (kind == "ADDED"):
            wrong.append(f"{kind} of {name}")
        if kind == "DELETED":
            del state[name]
        else:
            state[name] = item

    async with following(cluster, handle, log):
        living: set[str] = set()
        for step in range(60):
            name = f"n{chance.randrange(5)}"
            if name not in living:
                await cluster.put(name, step=str(step))
                living.add(name)
            elif chance.random() < 0.5:
                await cluster.change(name, step=str(step))
            else:
                await cluster.remove(name)
                living.discard(name)
            if chance.random() < 0.2:
                cluster.cut()
            if chance.random() < 0.2:
                cluster.compact()
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        now = {
            item["metadata"]["name"]: item
            for item in (await MemoryCluster.list(cluster, CONFIGMAP)).items
        }
        await until(lambda: state == now)
    assert wrong == []
