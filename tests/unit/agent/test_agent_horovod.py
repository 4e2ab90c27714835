"""Horovod's variables and rendezvous, as the agents of a group serve them."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psutil
import pytest

from headway.agent.config import PodConfig
from headway.agent.horovod.environment import LOOPBACK, Slot, environment, interface_of
from headway.agent.horovod.meeting import Meeting
from headway.agent.horovod.rendezvous import Rendezvous, Store
from headway_api import contract


def pod(index: int, replicas: int = 2, processes: int = 2) -> PodConfig:
    env = {
        contract.ENV_POD_NAME: f"job-{index}",
        contract.ENV_POD_IP: f"127.0.3.{index + 1}",
        contract.ENV_INDEX: str(index),
        contract.ENV_REPLICAS: str(replicas),
        contract.ENV_PROCESSES: str(processes),
        contract.ENV_FRAMEWORK: "Horovod",
    }
    return PodConfig.from_env(env, ["python", "train.py"])


async def request(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    def ask() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


# --- places --------------------------------------------------------------------------------------


def test_ranks_follow_the_stable_index_of_their_pod() -> None:
    slots = [Slot.of(index, 3, local, 2) for index in range(3) for local in range(2)]
    assert [slot.rank for slot in slots] == list(range(6))
    assert {(slot.size, slot.local_size, slot.cross_size) for slot in slots} == {(6, 2, 3)}
    assert [(slot.local_rank, slot.cross_rank) for slot in slots] == [
        (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2),
    ]  # fmt: skip
    assert slots[3].answer == "3,6,1,2,1,3"


def test_the_interface_is_the_one_that_has_the_pods_address() -> None:
    loopback = interface_of(LOOPBACK)
    assert loopback is not None
    for name, addresses in psutil.net_if_addrs().items():
        for each in addresses:
            if each.family.name == "AF_INET":
                assert interface_of(each.address) == name
    assert interface_of("127.1.2.3") == loopback  # a pod of local mode
    assert interface_of("192.0.2.1") is None


def test_a_pod_whose_address_no_interface_has_leaves_the_choice_to_gloo() -> None:
    env = environment(Slot.of(0, 1, 0, 1), "job-0", "192.0.2.1", 1, {})
    assert "HOROVOD_GLOO_IFACE" not in env
    assert env["HOROVOD_CONTROLLER"] == env["HOROVOD_CPU_OPERATIONS"] == "gloo"


def test_an_interface_that_the_user_names_counts() -> None:
    given = {"HOROVOD_GLOO_IFACE": "ib0"}
    env = environment(Slot.of(0, 1, 0, 1), "job-0", LOOPBACK, 1, given)
    assert "HOROVOD_GLOO_IFACE" not in env
    assert env["NCCL_SOCKET_IFNAME"] == interface_of(LOOPBACK)


# --- the store -----------------------------------------------------------------------------------


@pytest.fixture
async def served() -> AsyncIterator[tuple[Rendezvous, int, list[tuple[str, bytes | None]]]]:
    shared: list[tuple[str, bytes | None]] = []
    rendezvous = Rendezvous(Store(), lambda path, value: shared.append((path, value)))
    yield rendezvous, await rendezvous.open(), shared
    rendezvous.close()


async def test_what_a_rank_puts_is_there_and_shared(served: Any) -> None:
    _, port, shared = served
    value = bytes(range(256)) * 600
    assert await request(port, "GET", "/global/0") == (404, b"")
    assert await request(port, "PUT", "/global/0", value) == (200, b"")
    assert await request(port, "GET", "/global/0") == (200, value)
    assert await request(port, "DELETE", "/global/0") == (200, b"")
    assert await request(port, "GET", "/global/0") == (404, b"")
    assert shared == [("global/0", value), ("global/0", None)]


@pytest.mark.parametrize("path", ["/", "/global", "/a/b/c", "global/0"])
async def test_what_horovod_never_asks_is_refused(served: Any, path: str) -> None:
    _, port, shared = served
    assert (await request(port, "PUT", path, b"x"))[0] == 400
    assert not shared


async def test_a_client_that_says_nothing_holds_nobody_up(served: Any) -> None:
    rendezvous, port, _ = served
    _, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(b"GET /global/0 HT")
    await writer.drain()
    assert (await request(port, "PUT", "/global/0", b"x"))[0] == 200
    rendezvous.close()
    writer.close()


# --- a group -------------------------------------------------------------------------------------


class Group:
    """Meetings of several pods, and a lead that passes on what they say."""

    def __init__(self, pods: int) -> None:
        self.meetings = [
            Meeting(pod(i, pods), lambda m, i=i: self.pass_on(i, m)) for i in range(pods)
        ]  # type: ignore[misc]

    def pass_on(self, index: int, message: Mapping[str, Any]) -> None:
        for other, meeting in enumerate(self.meetings):
            if other != index:
                meeting.hear(dict(message))

    def port(self, index: int) -> int:
        return int(self.meetings[index].environment(0)["HOROVOD_GLOO_RENDEZVOUS_PORT"])


@pytest.fixture
def group() -> Any:
    made = Group(2)
    yield made
    for meeting in made.meetings:
        meeting.close()


async def test_ranks_of_different_pods_find_each_other_at_their_own_agents(group: Group) -> None:
    for meeting in group.meetings:
        await meeting.open(1)
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await request(group.port(1), "PUT", "/global/2", b"two")
    assert await request(group.port(1), "GET", "/global/0") == (200, b"zero")
    assert await request(group.port(0), "GET", "/global/2") == (200, b"two")
    await request(group.port(0), "DELETE", "/global/0")
    assert (await request(group.port(1), "GET", "/global/0"))[0] == 404


async def test_a_pod_that_is_slow_to_start_hears_what_was_said_before(group: Group) -> None:
    await group.meetings[0].open(1)
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await group.meetings[1].open(1)
    assert await request(group.port(1), "GET", "/global/0") == (200, b"zero")


async def test_nothing_of_a_generation_is_left_in_the_next_one(group: Group) -> None:
    for generation in (1, 2):
        for meeting in group.meetings:
            await meeting.open(generation)
        assert (await request(group.port(1), "GET", "/global/0"))[0] == 404
        await request(group.port(0), "PUT", "/global/0", b"zero")
    late = {"type": "meet", "generation": 1, "path": "global/3", "value": "eA=="}
    group.meetings[1].hear(late)
    assert (await request(group.port(1), "GET", "/global/3"))[0] == 404


async def test_ranks_that_have_not_come_are_known(group: Group) -> None:
    for meeting in group.meetings:
        await meeting.open(1)
    assert group.meetings[0].absent() == []  # nobody: it may be no script of Horovod's
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await request(group.port(1), "PUT", "/global/3", b"three")
    assert group.meetings[0].absent() == group.meetings[1].absent() == [1, 2]
