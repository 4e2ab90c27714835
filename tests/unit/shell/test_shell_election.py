"""Leader election on virtual time: who leads when, and never two at once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import pytest
from virtual import run

from headway_operator.cluster.client import LEASE, Object, Unavailable
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.election import Election, LostLeaseError


class Flaky:
    """A cluster that one replica may be cut off from."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self.cut = False
        self.forget_answers = 0
        """So many writes arrive, but their answers don't."""

    async def get(self, *args: Any) -> Object:
        self._check()
        return await self._cluster.get(*args)

    async def create(self, *args: Any) -> Object:
        self._check()
        return await self._cluster.create(*args)

    async def patch(self, *args: Any) -> Object:
        self._check()
        answer = await self._cluster.patch(*args)
        if self.forget_answers:
            self.forget_answers -= 1
            raise Unavailable(0, "NoAnswer", "the answer got lost")
        return answer

    def _check(self) -> None:
        if self.cut:
            raise Unavailable(0, "NoAnswer", "cut off")


class Place:
    """A Lease that replicas compete for."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster(lambda: datetime.now(UTC))

    def replica(self, name: str) -> tuple[Election, Flaky]:
        client = Flaky(self.cluster)
        clock = asyncio.get_running_loop().time
        address = f"https://{name}:8443"
        return Election(client, "ns", "lease", name, address, clock=clock), client  # type: ignore[arg-type]

    async def spec(self) -> Object:
        spec: Object = (await self.cluster.get(LEASE, "ns", "lease"))["spec"]
        return spec


async def seconds_for(work: Coroutine[Any, Any, None]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work
    return loop.time() - began


def test_first_replica_leads_at_once_and_the_others_know_its_address() -> None:
    async def scenario() -> None:
        place = Place()
        (a, _), (b, _) = place.replica("a"), place.replica("b")
        assert await seconds_for(a.acquire()) == 0
        assert a.leads()
        standby = asyncio.create_task(b.acquire())
        await asyncio.sleep(1)
        assert not b.leads()
        assert b.leader_address() == "https://a:8443"
        standby.cancel()

    run(scenario())


def test_standby_takes_over_a_dead_leaders_lease_only_after_its_whole_term() -> None:
    async def scenario() -> None:
        place = Place()
        (a, _), (b, _) = place.replica("a"), place.replica("b")
        await a.acquire()  # and never renews: killed
        took = await seconds_for(b.acquire())
        assert 15 <= took <= 15 + 2 * 2.4
        assert not a.leads(), "the old leader knows that its time is up before the new one starts"
        assert b.leads()
        assert (await place.spec())["leaseTransitions"] == 1

    run(scenario())


def test_standby_leaves_a_leader_alone_that_renews() -> None:
    async def scenario() -> None:
        place = Place()
        (a, _), (b, _) = place.replica("a"), place.replica("b")
        await a.acquire()
        holding, standby = asyncio.create_task(a.hold()), asyncio.create_task(b.acquire())
        await asyncio.sleep(600)
        assert a.leads()
        assert not standby.done()
        assert not holding.done()
        holding.cancel()
        standby.cancel()

    run(scenario())


def test_released_lease_is_taken_at_the_next_look() -> None:
    async def scenario() -> None:
        place = Place()
        (a, _), (b, _) = place.replica("a"), place.replica("b")
        await a.acquire()
        standby = asyncio.create_task(b.acquire())
        await asyncio.sleep(1)
        await a.release()
        assert not a.leads()
        assert await seconds_for(standby) <= 2.4  # type: ignore[arg-type]

    run(scenario())


def test_release_is_not_stopped_by_a_write_that_came_between() -> None:
    """A renewal on its way at SIGTERM must not cost the standby a whole term."""

    async def scenario() -> None:
        place = Place()
        a, _ = place.replica("a")
        await a.acquire()
        renewed = {"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}
        await place.cluster.patch(LEASE, "ns", "lease", renewed)
        await a.release()
        assert (await place.spec())["holderIdentity"] == ""

    run(scenario())


def test_release_never_takes_the_lease_from_another() -> None:
    async def scenario() -> None:
        place = Place()
        a, _ = place.replica("a")
        await a.acquire()
        await place.cluster.patch(LEASE, "ns", "lease", {"spec": {"holderIdentity": "b"}})
        await a.release()
        assert (await place.spec())["holderIdentity"] == "b"

    run(scenario())


def test_leader_that_is_cut_off_stops_before_a_standby_may_start() -> None:
    async def scenario() -> None:
        place = Place()
        (a, client), (b, _) = place.replica("a"), place.replica("b")
        await a.acquire()
        holding, standby = asyncio.create_task(a.hold()), asyncio.create_task(b.acquire())
        await asyncio.sleep(20)
        client.cut = True
        with pytest.raises(LostLeaseError, match="not renewed within 10 s"):
            await holding
        assert not standby.done()
        await standby
        assert not a.leads()

    run(scenario())


def test_renewal_whose_answer_was_lost_does_not_end_the_leader() -> None:
    async def scenario() -> None:
        place = Place()
        a, client = place.replica("a")
        await a.acquire()
        client.forget_answers = 2
        holding = asyncio.create_task(a.hold())
        await asyncio.sleep(60)
        assert not holding.done()
        assert a.leads()
        holding.cancel()

    run(scenario())


def test_leader_stops_when_another_holds_the_lease() -> None:
    async def scenario() -> None:
        place = Place()
        a, _ = place.replica("a")
        await a.acquire()
        await place.cluster.patch(LEASE, "ns", "lease", {"spec": {"holderIdentity": "thief"}})
        with pytest.raises(LostLeaseError, match="thief holds the Lease"):
            await a.hold()

    run(scenario())


def test_two_that_see_a_free_lease_together_do_not_both_lead() -> None:
    async def scenario() -> None:
        place = Place()
        elections = [place.replica(name)[0] for name in "abcde"]
        tasks = [asyncio.create_task(one.acquire()) for one in elections]
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert sum(one.leads() for one in elections) <= 1
        assert sum(one.leads() for one in elections) == 1
        for task in tasks:
            task.cancel()

    run(scenario())
