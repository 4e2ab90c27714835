"""Agents tell the endpoint of peers that they don't hear: real clients, a real endpoint."""

import asyncio
import errno
from contextlib import asynccontextmanager

import pytest
from progress_world import eventually

from headway.agent.config import PodConfig
from headway.agent.endpoint import Endpoint
from headway.agent.peers import Peers, is_silence
from headway.agent.reporting import Reporter
from headway_api import contract
from headway_api.messages import Directions

LEAD, WORKER = "job-0-uid", "job-1-uid"
REPORT = {"session": "s", "attempt": 1, "generation": 5}


def silent(world, *, hold=0.0):
    now = asyncio.get_running_loop().time()
    return world.controller._silences.lasting(("ns", "job"), hold, now)


def peer(index, uid):
    return {"index": index, "uid": uid, "since": "2026-11-21T12:00:00Z"}


async def test_a_leads_report_names_who_it_does_not_hear_and_the_next_withdraws_it(world, pods):
    await pods.progress({**REPORT, "silent": [peer(1, WORKER)]})
    assert silent(world) == {WORKER}
    await pods.progress(REPORT)
    assert silent(world) == set()


async def test_a_member_names_the_lead_when_it_asks_for_its_address(world, pods):
    path = f"{contract.job_path('ns', 'job')}/peers"
    asked = {"params": {"silent": LEAD}, "token": world.token(1)}
    assert (await pods.send("GET", path, **asked))[0] == 200
    assert silent(world) == {LEAD}


async def test_who_is_missed_speaks_by_any_request_even_its_scripts(world, pods):
    for speak in (pods.join, pods.peers, lambda index: pods.progress(REPORT, index), pods.kubeflow):
        path = f"{contract.job_path('ns', 'job')}/peers"
        await pods.send("GET", path, params={"silent": LEAD}, token=world.token(1))
        assert silent(world) == {LEAD}
        arguments = ({}, 0) if speak == pods.kubeflow else (0,)
        assert (await speak(*arguments))[0] == 200
        assert silent(world) == set()
        world.controller._silences.forget(("ns", "job"))


async def test_words_about_strangers_and_among_workers_count_for_nothing(world, pods):
    world.put_pod(2)
    path = f"{contract.job_path('ns', 'job')}/peers"
    for uid in ("job-2-uid", "nobody", ""):
        await pods.send("GET", path, params={"silent": uid}, token=world.token(1))
    await pods.progress({**REPORT, "silent": [peer(9, "nobody"), peer(0, LEAD)]})
    assert silent(world) == set()


@asynccontextmanager
async def an_agent(world, index, tmp_path):
    """What an agent knows and uses of the endpoint."""
    async with world.serve() as (url, _):
        token = tmp_path / "token"
        token.write_text(world.token(index))
        env = {
            contract.ENV_JOB_NAME: "job",
            contract.ENV_JOB_NAMESPACE: "ns",
            contract.ENV_POD_NAME: f"job-{index}",
            contract.ENV_POD_UID: f"job-{index}-uid",
            contract.ENV_POD_IP: f"10.0.0.{index}",
            contract.ENV_INDEX: str(index),
            contract.ENV_REPLICAS: "2",
            contract.ENV_ENDPOINT: url,
            contract.ENV_ENDPOINT_CA: world.identity.ca,
            contract.ENV_TOKEN_FILE: str(token),
        }
        config = PodConfig.from_env(env, ["python", "train.py"])
        async with Endpoint(config) as endpoint:
            yield config, endpoint


async def test_a_member_that_hears_nothing_of_its_lead_says_so_until_it_learns_of_another(
    world, tmp_path
):
    async with an_agent(world, 1, tmp_path) as (config, endpoint):
        peers = Peers(config, endpoint, await endpoint.join())
        assert await peers.lead_address() == "10.0.0.0"
        assert silent(world) == set(), "it has not tried yet"
        assert await peers.lead_address() == "10.0.0.0"
        assert silent(world) == set(), "it was refused, not left without an answer"
        assert await peers.lead_address(silent=True) == "10.0.0.0"
        assert silent(world) == {LEAD}
        asking = asyncio.create_task(peers.lead_address(silent=True))
        world.put_pod(0, uid="newer", address="10.9.9.9")
        assert await asyncio.wait_for(asking, 5) == "10.9.9.9"
        assert await peers.lead_address(silent=True) == "10.9.9.9"
        assert "newer" in silent(world)


async def test_a_lead_repeats_whom_it_does_not_hear_until_it_does(world, tmp_path):
    async with an_agent(world, 0, tmp_path) as (_, endpoint):
        reporter = Reporter(attempt=1)
        sending = asyncio.create_task(reporter.run(endpoint, lambda _: None))
        await eventually(lambda: world.directory.report("ns", "job") is not None)
        reporter.lost(1, WORKER)
        await eventually(lambda: silent(world) == {WORKER}, 3)
        await eventually(lambda: silent(world, hold=1.5) == {WORKER}, 5)
        reporter.found(1)
        await eventually(lambda: silent(world) == set(), 3)
        assert world.directory.report("ns", "job").silent == []
        sending.cancel()


async def test_a_lead_hears_with_each_answer_what_the_job_wants_now(world, tmp_path):
    async with an_agent(world, 0, tmp_path) as (_, endpoint):
        assert (await endpoint.join()).directions == Directions()
        heard, reporter = [], Reporter(attempt=1)
        spec = {"workers": {"replicas": 2}, "pauseAtStep": 30, "observe": {"metrics": ["loss"]}}
        world.put_job(spec=spec)
        sending = asyncio.create_task(reporter.run(endpoint, heard.append))
        await eventually(lambda: heard == [Directions(pause_at_step=30, observe=["loss"])], 3)
        world.put_job(spec={"workers": {"replicas": 2}})
        reporter.event("Any", "news are reported at once")
        await eventually(lambda: heard[1:] == [Directions()], 3)
        sending.cancel()


async def test_a_report_tells_where_the_state_came_from_and_what_was_passed_over(world, tmp_path):
    async with an_agent(world, 0, tmp_path) as (_, endpoint):
        reporter = Reporter(attempt=1)
        reporter.restored({"step": 7, "source": "peer", "fallbacks": ["step 9: cut off"] * 100})
        reporter.skipped()
        reporter.skipped()
        assert await endpoint.report(reporter.report)
        told = world.directory.report("ns", "job")
        assert (told.resumed_from_step, told.restored_from, told.saves_skipped) == (7, "Peer", 2)
        assert told.fallback.startswith("step 9: cut off; step 9")
        assert len(told.fallback) <= 400, "a final report has to fit the termination log"
        reporter.restored({"step": 8, "source": "memory"})
        assert await endpoint.report(reporter.report)
        assert world.directory.report("ns", "job").fallback is None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), True),
        (OSError(errno.EHOSTUNREACH, "No route to host"), True),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset"), False),
    ],
)
def test_a_host_that_refuses_is_not_silent(error, told):
    assert is_silence(error) is told
