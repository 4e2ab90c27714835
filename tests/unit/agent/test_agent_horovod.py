"""Horovod's variables and rendezvous, as the agents of a group serve them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import os
import pickle
import struct
import sys
import time
import types
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psutil
import pytest

from headway.agent.config import PodConfig
from headway.agent.horovod.environment import LOOPBACK, Slot, environment, interface_of
from headway.agent.horovod.meeting import Meeting
from headway.agent.horovod.notification import Listener, NotificationError, notify
from headway.agent.horovod.rendezvous import Rendezvous, Store
from headway.agent.placement import place
from headway_api import contract

PLACES = place(range(2), 2)


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
    slots = [Slot.of(place(range(3), 2), index, local) for index in range(3) for local in range(2)]
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
    env = environment(Slot.of(place([0], 1), 0, 0), "job-0", "192.0.2.1", 1, {})
    assert "HOROVOD_GLOO_IFACE" not in env
    assert env["HOROVOD_CONTROLLER"] == env["HOROVOD_CPU_OPERATIONS"] == "gloo"


def test_an_interface_that_the_user_names_counts() -> None:
    given = {"HOROVOD_GLOO_IFACE": "ib0"}
    env = environment(Slot.of(place([0], 1), 0, 0), "job-0", LOOPBACK, 1, given)
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
        self.said: list[tuple[int, dict[str, Any]]] = []
        self.meetings = [
            Meeting(pod(i, pods), lambda m, i=i: self.pass_on(i, m)) for i in range(pods)
        ]  # type: ignore[misc]

    def pass_on(self, index: int, message: Mapping[str, Any]) -> None:
        self.said.append((index, dict(message)))
        for other, meeting in enumerate(self.meetings):
            if other != index and message["type"] == "meet":
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
        await meeting.open(1, PLACES)
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await request(group.port(1), "PUT", "/global/2", b"two")
    assert await request(group.port(1), "GET", "/global/0") == (200, b"zero")
    assert await request(group.port(0), "GET", "/global/2") == (200, b"two")
    await request(group.port(0), "DELETE", "/global/0")
    assert (await request(group.port(1), "GET", "/global/0"))[0] == 404


async def test_a_pod_that_is_slow_to_start_hears_what_was_said_before(group: Group) -> None:
    await group.meetings[0].open(1, PLACES)
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await group.meetings[1].open(1, PLACES)
    assert await request(group.port(1), "GET", "/global/0") == (200, b"zero")


async def test_nothing_of_a_generation_is_left_in_the_next_one(group: Group) -> None:
    for generation in (1, 2):
        for meeting in group.meetings:
            await meeting.open(generation, PLACES)
        assert (await request(group.port(1), "GET", "/global/0"))[0] == 404
        await request(group.port(0), "PUT", "/global/0", b"zero")
    late = {"type": "meet", "generation": 1, "path": "global/3", "value": "eA=="}
    group.meetings[1].hear(late)
    assert (await request(group.port(1), "GET", "/global/3"))[0] == 404


async def test_ranks_that_have_not_come_are_known(group: Group) -> None:
    for meeting in group.meetings:
        await meeting.open(1, PLACES)
    assert group.meetings[0].absent() == []  # nobody: it may be no script of Horovod's
    await request(group.port(0), "PUT", "/global/0", b"zero")
    await request(group.port(1), "PUT", "/global/3", b"three")
    assert group.meetings[0].absent() == group.meetings[1].absent() == [1, 2]


# --- processes that go on -------------------------------------------------------------------------


async def waiting(meeting: Meeting, local_rank: int) -> None:
    while local_rank not in meeting.waiting:
        await meeting.news(10)


async def test_a_process_that_goes_on_hears_its_new_place_when_the_next_generation_begins(
    group: Group,
) -> None:
    meeting = group.meetings[1]
    await meeting.open(1, PLACES)
    before = group.port(1)
    asked = asyncio.create_task(request(before, "GET", "/rank_and_size/job-1:1"))
    await waiting(meeting, 1)
    assert not asked.done()
    shrunk = place([1], 2, {1: {1}})
    await meeting.open(2, shrunk, {1})
    assert await asked == (200, b"0,2,1,2,0,1")  # rank 0, since it alone has a state
    assert group.port(1) == before  # which it can't be told to change
    assert meeting.environment(0)["HOROVOD_RANK"] == "1"
    assert meeting.waiting == set()


async def test_who_has_died_does_not_wait_any_more(group: Group) -> None:
    meeting = group.meetings[0]
    await meeting.open(1, PLACES)
    asked = asyncio.create_task(request(group.port(0), "GET", "/rank_and_size/job-0:0"))
    await waiting(meeting, 0)
    meeting.ended(0)
    assert meeting.waiting == set()
    meeting.close()
    with pytest.raises((http.client.HTTPException, OSError)):
        await asked


async def test_where_a_rank_listens_stays_in_its_pod(group: Group) -> None:
    for meeting in group.meetings:
        await meeting.open(1, PLACES)
    value = base64.b64encode(pickle.dumps(({"lo": [(LOOPBACK, 4711)]}, b"key")))
    await request(group.port(1), "PUT", "/worker_addresses/job-1:0", value)
    assert group.meetings[1].resizable == {0}
    assert group.meetings[0].resizable == set()
    assert group.said == [(1, {"type": "resizable", "generation": 1, "rank": 2})]
    await group.meetings[1].open(2, PLACES)  # nobody went on
    assert group.meetings[1].resizable == set()


async def test_a_rank_is_told_of_another_size_in_horovods_own_words() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = await reader.readexactly(32)
        body = await reader.readexactly(struct.unpack("i", await reader.readexactly(4))[0])
        writer.write(bytes(40))
        await writer.drain()
        heard.set_result((digest, body))
        writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    port = server.sockets[0].getsockname()[1]
    listener = Listener.told(base64.b64encode(pickle.dumps(({"lo": [(LOOPBACK, port)]}, b"key"))))
    await notify(listener)
    digest, body = await heard
    assert digest == hmac.new(b"key", body, hashlib.sha256).digest()
    called: list[str] = []
    worker = types.ModuleType("horovod.runner.elastic.worker")
    vars(worker)["HostUpdateResult"] = lambda value: called.append(f"added {value}") or value
    vars(worker)["HostsUpdatedRequest"] = lambda when, what: (when, what)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("horovod", "horovod.runner", "horovod.runner.elastic"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setitem(sys.modules, worker.__name__, worker)
        when, what = pickle.loads(body)
    assert time.time() - 60 < when <= time.time()
    assert (what, called) == (2, ["added 2"])
    server.close()


@pytest.mark.parametrize(
    "value",
    [
        b"not base64!",
        base64.b64encode(b"no pickle"),
        base64.b64encode(pickle.dumps(("not a dict", b"key"))),
        base64.b64encode(pickle.dumps(({}, b"key"))),
        base64.b64encode(pickle.dumps(os.system)),
    ],
)
def test_what_is_no_address_is_not_believed_and_runs_nothing(value: bytes) -> None:
    with pytest.raises(NotificationError):
        Listener.told(value)
