"""The census: what Kopf did not tell is found out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

import orjson
import pytest
from virtual import run

from headway_operator.census import METADATA_ONLY, Census
from headway_operator.cluster.client import NotFound, Object, Resource
from headway_operator.resources import CLUSTER_TRAINING_RUNTIME, TRAINING_JOB


def job(name: str, version: int, uid: str = "", namespace: str = "ns") -> Object:
    return {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"uid-{name}",
            "resourceVersion": str(version),
        }
    }


class Desk:
    """A census between a server and a cache; the test is Kopf."""

    def __init__(self, *, namespaces: tuple[str, ...] = (), page: int = 2) -> None:
        self.jobs: list[Object] = []
        self.served = True
        self.paths: list[str] = []
        self.seen: list[tuple[str, str]] = []
        self._page = page
        clock = asyncio.get_running_loop().time
        self.census = Census(
            self._raw_get,
            (TRAINING_JOB, CLUSTER_TRAINING_RUNTIME),
            namespaces,
            self._observe,
            clock=clock,
        )

    async def _raw_get(
        self, path: str, *, query: Mapping[str, str | None] | None = None, accept: str = "*/*"
    ) -> bytes:
        assert accept == METADATA_ONLY
        if not self.served:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        self.paths.append(unquote(path))
        found = self.jobs if path.endswith("/trainingjobs") else []
        start = int((query or {}).get("continue") or 0)
        end = start + self._page
        more = str(end) if end < len(found) else ""
        return orjson.dumps({"metadata": {"continue": more}, "items": found[start:end]})

    def _observe(self, resource: Resource, kind: str, item: Object) -> None:
        self.seen.append((kind, item["metadata"]["name"]))

    def kopf(self, kind: str, item: Object) -> None:
        self.census.tell(TRAINING_JOB, kind, item)


def test_synced_only_when_kopf_has_told_of_all_that_is_listed() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.jobs = [job(f"j{n}", n) for n in range(1, 6)]  # more than a page
        running = asyncio.create_task(desk.census.run(300))
        for item in desk.jobs[:4]:
            desk.kopf("ADDED", item)
        await asyncio.sleep(60)
        assert not desk.census.synced.is_set()
        desk.kopf("ADDED", desk.jobs[4])
        await asyncio.wait_for(desk.census.synced.wait(), 10)
        running.cancel()

    run(scenario())


def test_empty_cluster_is_synced_at_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        running = asyncio.create_task(desk.census.run(300))
        await asyncio.wait_for(desk.census.synced.wait(), 0.01)
        running.cancel()

    run(scenario())


def test_deletion_that_kopf_missed_is_told_once() -> None:
    async def scenario() -> None:
        desk = Desk()
        gone, kept = job("gone", 1), job("kept", 2)
        desk.kopf("ADDED", gone)
        desk.kopf("ADDED", kept)
        desk.jobs = [kept]
        await desk.census.compare()
        await desk.census.compare()
        assert desk.seen == [("ADDED", "gone"), ("ADDED", "kept"), ("DELETED", "gone")]

    run(scenario())


def test_deleted_and_made_anew_under_its_name_is_told_as_deleted() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.kopf("ADDED", job("same", 1, "old"))
        desk.jobs = [job("same", 5, "new")]
        await desk.census.compare()
        assert desk.seen[-1] == ("DELETED", "same")
        desk.kopf("ADDED", job("same", 5, "new"))
        await desk.census.compare()
        assert desk.seen[-1] == ("ADDED", "same")

    run(scenario())


def test_object_told_while_the_list_was_read_is_not_taken_for_deleted() -> None:
    """It was made after the list: the list lacks it, but it lives."""

    async def scenario() -> None:
        desk = Desk()
        made = job("made", 9)
        reading = desk.census._raw_get

        async def slow(path: str, **more: object) -> bytes:
            answer = await reading(path, **more)  # type: ignore[arg-type]
            if not desk.seen:
                desk.kopf("ADDED", made)
            return answer

        desk.census._raw_get = slow  # type: ignore[assignment]
        await desk.census.compare()
        assert desk.seen == [("ADDED", "made")]

    run(scenario())


@pytest.mark.parametrize("told_after", [None, 30.0])
def test_behind_tells_for_how_long_a_change_was_not_told(told_after: float | None) -> None:
    async def scenario() -> None:
        desk = Desk()
        running = asyncio.create_task(desk.census.run(300))
        await desk.census.synced.wait()
        desk.jobs = [job("silent", 7)]
        await asyncio.sleep(320)  # one resync finds it
        if told_after is not None:
            await asyncio.sleep(told_after)
            desk.kopf("ADDED", desk.jobs[0])
        await asyncio.sleep(150)
        assert (desk.census.behind_seconds() > 120) == (told_after is None)
        running.cancel()

    run(scenario())


def test_later_state_counts_as_told() -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.jobs = [job("moving", 7)]
        desk.kopf("ADDED", job("moving", 8))  # the list is older than the event
        await desk.census.compare()
        assert desk.census.behind_seconds() == 0

    run(scenario())


def test_waits_for_missing_crds_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        desk = Desk()
        desk.served = False
        waiting = asyncio.create_task(desk.census.wait_for_kinds())
        await asyncio.sleep(30)
        assert not waiting.done()
        desk.served = True
        await asyncio.wait_for(waiting, 10)

    run(scenario())
    assert "kubectl apply --server-side -f charts/headway/crds/" in caplog.text


def test_only_the_given_namespaces_are_listed() -> None:
    async def scenario() -> None:
        desk = Desk(namespaces=("one", "two"))
        await desk.census.compare()
        base = "/apis/headway.dev/v1alpha1"
        assert desk.paths == [
            f"{base}/namespaces/one/trainingjobs",
            f"{base}/namespaces/two/trainingjobs",
            f"{base}/clustertrainingruntimes",
        ]

    run(scenario())
