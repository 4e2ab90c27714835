"""The real client against a server that misbehaves: refusals, lost connections, expired tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio.config import ConfigException

from headway_operator.cluster import kube
from headway_operator.cluster.client import (
    CONFIGMAP,
    POD,
    ApiError,
    Forbidden,
    Gone,
    TooManyRequests,
    Unavailable,
    custom_resource,
)
from headway_operator.cluster.connection import open_connection
from headway_operator.cluster.kube import KubeApi, path_of, split_lines
from headway_operator.cluster.retry import ATTEMPTS, retry_delay

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
MISSING = {"metadata": {"name": "a"}}


class Lab:
    """A client, what its server was asked, and how long it slept."""

    def __init__(self) -> None:
        self.requests: list[web.BaseRequest] = []
        self.naps: list[float] = []
        self.client: KubeApi
        self.kubeconfig: Path

    async def nap(self, seconds: float) -> None:
        self.naps.append(seconds)


@asynccontextmanager
async def lab(folder: Path, answer: Handler, token: str = "first") -> AsyncIterator[Lab]:
    room = Lab()

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        room.requests.append(request)
        return await answer(request)

    server = web.Server(serve)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    room.kubeconfig = folder / "kubeconfig"
    write_kubeconfig(room.kubeconfig, port, token)
    try:
        async with open_connection(room.kubeconfig) as connection:
            room.client = KubeApi(connection, sleep=room.nap, jitter=lambda: 0.0)
            yield room
    finally:
        await runner.cleanup()


def write_kubeconfig(path: Path, port: int, token: str) -> None:
    config = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "c", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    }
    path.write_text(json.dumps(config))


def answers(*responses: Callable[[], web.StreamResponse]) -> Handler:
    """Each in turn, the last one ever after."""
    left = list(responses)

    async def answer(_request: web.BaseRequest) -> web.StreamResponse:
        return (left.pop(0) if len(left) > 1 else left[0])()

    return answer


def busy() -> web.Response:
    return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "2"})


def broken() -> web.Response:
    return web.Response(status=503, text="<html>upstream is away</html>")


def found() -> web.Response:
    return web.json_response({"kind": "Pod", **MISSING})


async def test_a_429_is_obeyed_for_its_retry_after_even_on_create(tmp_path: Path) -> None:
    async with lab(tmp_path, answers(busy, busy, found)) as room:
        await room.client.create(POD, "team", MISSING)
        assert room.naps == [2.0, 2.0]


async def test_retries_end(tmp_path: Path) -> None:
    async with lab(tmp_path, answers(busy)) as room:
        with pytest.raises(TooManyRequests) as refused:
            await room.client.get(POD, "team", "a")
        assert refused.value.retry_after == 2.0
        assert len(room.requests) == ATTEMPTS


async def test_reads_and_patches_are_repeated_after_a_5xx(tmp_path: Path) -> None:
    async with lab(tmp_path, answers(broken, found, broken, found)) as room:
        await room.client.get(POD, "team", "a")
        await room.client.patch(POD, "team", "a", {})
        assert len(room.requests) == 4
        assert room.naps == [0.1, 0.1]


async def test_a_create_in_doubt_is_not_repeated(tmp_path: Path) -> None:
    async with lab(tmp_path, answers(broken)) as room:
        with pytest.raises(Unavailable, match="upstream is away"):
            await room.client.create(POD, "team", MISSING)
        assert len(room.requests) == 1


async def test_a_refusal_is_not_repeated(tmp_path: Path) -> None:
    def refuse() -> web.Response:
        status = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no role"}
        return web.json_response(status, status=403)

    async with lab(tmp_path, answers(refuse)) as room:
        with pytest.raises(Forbidden, match="no role"):
            await room.client.get(POD, "team", "a")
        assert len(room.requests) == 1


async def test_a_lost_connection_is_unavailable_after_a_few_tries(tmp_path: Path) -> None:
    async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with lab(tmp_path, hang_up) as room:
        with pytest.raises(Unavailable):
            await room.client.get(POD, "team", "a")
        assert len(room.naps) == ATTEMPTS - 1


async def test_an_expired_token_is_read_anew_and_the_request_repeated(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["Authorization"] == "Bearer second":
            return found()
        return web.json_response({"message": "expired"}, status=401)

    async with lab(tmp_path, answer) as room:
        assert room.requests == []
        text = room.kubeconfig.read_text()
        room.kubeconfig.write_text(text.replace("first", "second"))
        await room.client.get(POD, "team", "a")
        assert len(room.requests) == 2


async def test_a_token_that_stays_refused_is_an_error(tmp_path: Path) -> None:
    def refuse() -> web.Response:
        return web.json_response({"message": "who are you"}, status=401)

    async with lab(tmp_path, answers(refuse)) as room:
        with pytest.raises(ApiError) as refused:
            await room.client.get(POD, "team", "a")
        assert refused.value.status == 401
        assert len(room.requests) == 2


def page(names: str, version: str, more: str = "") -> web.Response:
    items = [{"metadata": {"name": name}} for name in names]
    return web.json_response(
        {"items": items, "metadata": {"resourceVersion": version, "continue": more}}
    )


async def test_a_list_forgotten_between_two_pages_is_read_again_in_one(tmp_path: Path) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "continue" in request.query:
            status = {"code": 410, "reason": "Expired", "message": "continue token too old"}
            return web.json_response(status, status=410)
        return page("ab", "7", "more") if "limit" in request.query else page("abc", "9")

    async with lab(tmp_path, answer) as room:
        listing = await room.client.list(CONFIGMAP)
        assert [item["metadata"]["name"] for item in listing.items] == ["a", "b", "c"]
        assert listing.resource_version == "9"


def stream(*parts: bytes, cut: bool = False) -> Handler:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        if cut:
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


EVENT = json.dumps({"type": "ADDED", "object": MISSING}).encode() + b"\n"


async def test_a_watch_cut_in_the_middle_gives_what_it_had_then_is_unavailable(
    tmp_path: Path,
) -> None:
    async with lab(tmp_path, stream(EVENT, EVENT[:10], cut=True)) as room:
        watch = room.client.watch(POD)
        assert (await anext(watch)).type == "ADDED"
        with pytest.raises(Unavailable):
            await anext(watch)


async def test_an_error_inside_a_watch_is_raised_as_its_kind(tmp_path: Path) -> None:
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
    line = json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
    async with lab(tmp_path, stream(line)) as room:
        with pytest.raises(Gone, match="too old"):
            await anext(room.client.watch(POD, resource_version="1"))


async def test_watch_lines_may_be_longer_than_any_buffer(tmp_path: Path) -> None:
    body = {"metadata": {"name": "a", "annotations": {"k": "x" * 5_000_000}}}
    line = json.dumps({"type": "ADDED", "object": body}).encode() + b"\n"
    async with lab(tmp_path, stream(line, EVENT)) as room:
        events = [event async for event in room.client.watch(POD)]
    assert [event.object for event in events] == [body, MISSING]


async def test_a_watch_that_the_server_forgets_to_end_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "WATCH_GRACE", 0.05)
    released = asyncio.Event()

    async def silence(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await released.wait()
        return response

    async with lab(tmp_path, silence) as room:
        with pytest.raises(Unavailable):
            await anext(room.client.watch(POD, timeout_seconds=0.1))
        released.set()


@given(parts=st.lists(st.binary(max_size=6), max_size=8))
def test_lines_do_not_depend_on_where_chunks_are_cut(parts: list[bytes]) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    async def lines() -> list[bytes]:
        return [line async for line in split_lines(chunks())]

    assert asyncio.run(lines()) == b"".join(parts).split(b"\n")[:-1]


@pytest.mark.parametrize(
    ("error", "attempt", "idempotent", "expected"),
    [
        (TooManyRequests(429, "", ""), 1, False, 0.1),
        (TooManyRequests(429, "", "", 3.0), 1, False, 3.0),
        (TooManyRequests(429, "", "", 60.0), 1, False, None),
        (TooManyRequests(429, "", ""), ATTEMPTS, True, None),
        (Unavailable(503, "", ""), 3, True, 0.4),
        (Unavailable(503, "", ""), 1, False, None),
        (Forbidden(403, "", ""), 1, True, None),
    ],
)
def test_retry_delay(
    error: ApiError, attempt: int, idempotent: bool, expected: float | None
) -> None:
    delay = retry_delay(error, attempt=attempt, idempotent=idempotent, jitter=0.0)
    assert delay == expected


def test_paths() -> None:
    job = custom_resource("TrainingJob")
    assert path_of(POD, None) == "/api/v1/pods"
    assert path_of(POD, "team", "a") == "/api/v1/namespaces/team/pods/a"
    jobs = "/apis/headway.dev/v1alpha1/namespaces/team/trainingjobs"
    assert path_of(job, "team", "a", "status") == f"{jobs}/a/status"
    assert path_of(job, "../x", "a/b").endswith("/namespaces/..%2Fx/trainingjobs/a%2Fb")


async def test_a_missing_kubeconfig_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigException, match="Set KUBECONFIG"):
        async with open_connection(tmp_path / "nowhere"):
            pass
