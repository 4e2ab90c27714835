"""What the cluster in memory does beside what every cluster must (see tests/api)."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from headway_operator.cluster.client import (
    CONFIGMAP,
    POD,
    Conflict,
    Gone,
    NotFound,
    Object,
    Resource,
    Unavailable,
    custom_resource,
)
from headway_operator.cluster.memory import MemoryCluster

WIDGET = custom_resource("Widget")
NAMESPACE = "team"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def cluster(**options: Any) -> MemoryCluster:
    return MemoryCluster(lambda: NOON, **options)


async def put(
    memory: MemoryCluster, name: str, resource: Resource = WIDGET, **fields: Any
) -> Object:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return await memory.create(resource, NAMESPACE, {"metadata": metadata, **fields})


def owner_of(item: Object) -> Object:
    return {
        "ownerReferences": [
            {
                "apiVersion": item["apiVersion"],
                "kind": item["kind"],
                "name": item["metadata"]["name"],
                "uid": item["metadata"]["uid"],
            }
        ]
    }


async def script(memory: MemoryCluster) -> Object:
    """A bit of everything."""
    owner = await put(memory, "owner", spec={"size": 1})
    for index in range(20):
        await put(memory, f"pod-{index}", POD, spec={}, metadata=owner_of(owner))
    await put(memory, "late", metadata={"finalizers": ["headway.dev/a"]})
    await memory.create(CONFIGMAP, NAMESPACE, {"metadata": {"generateName": "x-"}})
    await memory.apply(CONFIGMAP, NAMESPACE, "c", {"data": {"a": "1"}}, field_manager="one")
    memory.bind(NAMESPACE, "pod-3", "node-1")
    await memory.delete(WIDGET, NAMESPACE, "late")
    await memory.delete(WIDGET, NAMESPACE, "owner")
    memory.collect_garbage()
    return memory.snapshot()


async def test_the_same_calls_give_the_same_state_in_every_run() -> None:
    assert json.dumps(await script(cluster())) == json.dumps(await script(cluster()))


async def test_a_snapshot_survives_json_and_restores_everything() -> None:
    first = cluster()
    saved = json.loads(json.dumps(await script(first)))
    second = cluster()
    second.load(saved)
    assert second.snapshot() == first.snapshot()
    owned = await second.apply(CONFIGMAP, NAMESPACE, "c", {"data": {}}, field_manager="one")
    assert "data" not in owned or owned["data"] == {}
    made = await put(second, "new")
    assert int(made["metadata"]["resourceVersion"]) > saved["version"]


async def test_a_loaded_cluster_collects_garbage_left_at_the_snapshot() -> None:
    first = cluster(collect_seconds=None)
    owner = await put(first, "owner")
    await put(first, "child", metadata=owner_of(owner))
    await first.delete(WIDGET, NAMESPACE, "owner")
    second = cluster()
    second.load(first.snapshot())
    async with asyncio.timeout(5):
        while (await second.list(WIDGET)).items:  # noqa: ASYNC110 - the collector sets no event
            await asyncio.sleep(0)


async def test_watches_from_before_a_load_are_gone() -> None:
    first = cluster()
    old = await put(first, "a")
    await put(first, "b")
    second = cluster()
    second.load(first.snapshot())
    with pytest.raises(Gone):
        await anext(second.watch(WIDGET, resource_version=old["metadata"]["resourceVersion"]))


async def test_load_refuses_a_cluster_in_use() -> None:
    used = cluster()
    await put(used, "a")
    with pytest.raises(RuntimeError, match="new cluster"):
        used.load(cluster().snapshot())


async def test_garbage_waits_until_it_is_collected_by_hand() -> None:
    memory = cluster(collect_seconds=None)
    owner = await put(memory, "owner")
    await put(memory, "child", metadata=owner_of(owner))
    await memory.delete(WIDGET, NAMESPACE, "owner")
    await asyncio.sleep(0.01)  # more than enough turns of the loop for a timer of 0 s
    assert await memory.get(WIDGET, NAMESPACE, "child")
    memory.collect_garbage()
    with pytest.raises(NotFound):
        await memory.get(WIDGET, NAMESPACE, "child")


async def test_callers_cannot_change_what_is_stored_through_what_they_sent() -> None:
    memory, spec = cluster(), {"options": {"a": "1"}}
    await put(memory, "a", spec=spec)
    spec["options"]["a"] = "2"
    assert (await memory.get(WIDGET, NAMESPACE, "a"))["spec"] == {"options": {"a": "1"}}


async def test_handed_out_objects_do_not_change_under_their_readers() -> None:
    memory = cluster()
    before = await put(memory, "a", spec={"options": {"a": "1"}})
    frozen = json.dumps(before)
    await memory.patch(WIDGET, NAMESPACE, "a", {"spec": {"options": {"a": "2"}}})
    await memory.delete(WIDGET, NAMESPACE, "a")
    assert json.dumps(before) == frozen


async def test_bind_puts_a_pod_on_a_node_once() -> None:
    memory = cluster()
    await put(memory, "a", POD, spec={})
    assert memory.bind(NAMESPACE, "a", "node-1")["spec"]["nodeName"] == "node-1"
    with pytest.raises(Conflict):
        memory.bind(NAMESPACE, "a", "node-2")


async def test_pod_logs_come_from_where_the_pods_run() -> None:
    memory = cluster(pod_logs=lambda namespace, name, tail: f"{namespace}/{name}/{tail}")
    await put(memory, "a", POD, spec={})
    assert await memory.pod_log(NAMESPACE, "a", tail_lines=3) == "team/a/3"


async def test_history_keeps_a_window_and_forgets_the_rest() -> None:
    memory = cluster(window=10)
    versions = [(await put(memory, f"w{i}"))["metadata"]["resourceVersion"] for i in range(50)]
    with pytest.raises(Gone):
        await anext(memory.watch(WIDGET, resource_version=versions[0]))
    event = await anext(memory.watch(WIDGET, resource_version=versions[-10]))
    assert event.object["metadata"]["name"] == "w41"


async def test_a_reader_too_slow_for_the_window_is_told() -> None:
    memory = cluster(window=5)
    stream = memory.watch(WIDGET, resource_version="1")
    await put(memory, "first")
    await anext(stream)
    for index in range(30):
        await put(memory, f"w{index}")
    with pytest.raises(Gone):
        await anext(stream)


async def test_versions_from_the_future_are_unavailable() -> None:
    memory = cluster()
    with pytest.raises(Unavailable):
        await memory.list(WIDGET, resource_version="99")
    with pytest.raises(Unavailable):
        await anext(memory.watch(WIDGET, resource_version="99"))


async def test_changes_made_by_the_reader_of_a_watch_are_not_lost() -> None:
    memory = cluster()
    await put(memory, "first")
    stream = memory.watch(WIDGET, resource_version="1")
    assert (await anext(stream)).object["metadata"]["name"] == "first"
    await put(memory, "second")
    async with asyncio.timeout(5):
        assert (await anext(stream)).object["metadata"]["name"] == "second"


async def test_bookmarks_come_only_where_something_changed() -> None:
    memory = cluster(bookmark_seconds=0.01)
    await put(memory, "a")
    version = (await memory.list(WIDGET)).resource_version
    quiet = memory.watch(WIDGET, resource_version=version, timeout_seconds=0.05)
    assert [event async for event in quiet] == []
    busy = memory.watch(WIDGET, namespace="else", resource_version="1", timeout_seconds=0.05)
    events = [event async for event in busy]
    assert {event.type for event in events} == {"BOOKMARK"}
    assert events[-1].object["metadata"]["resourceVersion"] == version
