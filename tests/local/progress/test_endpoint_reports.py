"""Long polls, reports, Kubeflow's protocol, replicas, and certificates that change."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from datetime import UTC, datetime

import aiohttp
import pytest
from progress_world import HOST, eventually

from headway_api.contract import job_path
from headway_operator.progress.forward import FORWARDED
from headway_operator.progress.pki import create_identity, renewed

REPORT = {"session": "s", "attempt": 1, "generation": 5, "step": 7, "totalSteps": 70}


def waiting(world):
    return bool(world.cache._waiting.get(("ns", "job")))


async def test_peers_answer_at_once_when_the_version_differs(pods):
    status, body, _ = await pods.peers()
    assert (status, len(body["peers"])) == (200, 2)
    status, body, _ = await pods.peers(after="something else", timeout=30)
    assert (status, len(body["peers"])) == (200, 2)


async def test_a_long_poll_wakes_when_a_pod_moves(world, pods):
    version = (await pods.peers())[1]["version"]
    poll = asyncio.create_task(pods.peers(after=version, timeout=30))
    await eventually(lambda: waiting(world))
    world.put_pod(0, uid="newer", address="10.9.9.9")
    status, body, _ = await asyncio.wait_for(poll, 5)
    assert status == 200
    assert body["version"] != version
    assert body["peers"][0] == {"index": 0, "uid": "newer", "address": "10.9.9.9"}


async def test_a_long_poll_sleeps_through_changes_that_matter_to_nobody(world, pods):
    version = (await pods.peers())[1]["version"]
    poll = asyncio.create_task(pods.peers(after=version, timeout=30))
    await eventually(lambda: waiting(world))
    world.put_job(status={"phase": "Running"})
    await eventually(lambda: waiting(world))  # it went back to waiting
    assert not poll.done()
    world.put_job(spec={"workers": {"replicas": 3}})
    assert (await asyncio.wait_for(poll, 5))[1]["replicas"] == 3


async def test_the_pods_of_a_large_group_are_told_together(world, pods):
    world.put_job(spec={"workers": {"replicas": 400}})
    version = (await pods.peers())[1]["version"]
    poll = asyncio.create_task(pods.peers(after=version, timeout=30))
    await eventually(lambda: waiting(world))
    world.put_pod(2)
    await pods.peers(0)  # a round trip: time enough to answer the poll, too
    world.put_pod(3)
    assert len((await asyncio.wait_for(poll, 5))[1]["peers"]) == 4


async def test_a_long_poll_ends_with_204_and_no_wait_is_possible(pods):
    version = (await pods.peers())[1]["version"]
    for timeout in (0, -1, 0.05, "nan"):
        status, body, _ = await pods.peers(after=version, timeout=timeout)
        assert (status, body) == (204, None)
    assert (await pods.peers(after=version, timeout="soon"))[0] == 400


async def test_a_long_poll_ends_when_the_job_goes(world, pods):
    version = (await pods.peers())[1]["version"]
    poll = asyncio.create_task(pods.peers(after=version, timeout=30))
    await eventually(lambda: waiting(world))
    world.delete_job()
    assert (await asyncio.wait_for(poll, 5))[0] == 404


async def test_a_long_poll_leaves_nothing_behind_when_its_client_goes(world, pods):
    version = (await pods.peers())[1]["version"]
    poll = asyncio.create_task(pods.peers(after=version, timeout=30))
    await eventually(lambda: waiting(world))
    poll.cancel()
    await eventually(lambda: not waiting(world))


async def test_stopping_does_not_wait_for_long_polls(world):
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(10), world.serve() as (url, _):
            pods = await stack.enter_async_context(world.client(url))
            version = (await pods.peers())[1]["version"]
            poll = asyncio.create_task(pods.peers(after=version, timeout=30))
            await eventually(lambda: waiting(world))
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(poll, 10)


async def test_a_report_is_recorded_and_the_answer_tells_of_a_suspension(world, pods):
    assert (await pods.progress(REPORT))[1]["suspend"] is False
    recorded = world.directory.report("ns", "job")
    assert (recorded.session, recorded.step, recorded.total_steps) == ("s", 7, 70)
    world.put_job(spec={"workers": {"replicas": 2}, "suspend": True})
    assert (await pods.progress(REPORT))[1]["suspend"] is True


async def test_joining_knows_the_generation_of_the_latest_report(pods):
    await pods.progress(REPORT)
    assert (await pods.join(1))[1]["generation"] == 5


DOCUMENTED = {
    "trainerStatus": {
        "progressPercentage": 67,
        "estimatedRemainingSeconds": 3600,
        "metrics": [{"name": "loss", "value": "0.12"}, {"name": "epoch", "value": "2"}],
        "lastUpdatedTime": "2026-11-21T12:00:00Z",
    }
}


async def test_kubeflows_documented_payload_is_echoed_and_recorded(world, pods):
    await pods.progress({**REPORT, "step": None, "totalSteps": None, "restartsTotal": 2})
    status, body, headers = await pods.kubeflow(DOCUMENTED)
    assert (status, body) == (200, DOCUMENTED)
    assert headers["Content-Type"].startswith("application/json")
    recorded = world.directory.report("ns", "job")
    assert (recorded.step, recorded.total_steps, recorded.eta_seconds) == (67, 100, 3600)
    assert recorded.metrics == {"loss": "0.12", "epoch": "2"}
    assert (recorded.session, recorded.restarts_total) == ("s", 2)


async def test_kubeflows_progress_survives_the_agents_own_reports(world, pods):
    await pods.kubeflow(DOCUMENTED)
    session = world.directory.report("ns", "job").session
    await pods.progress({"session": session, "attempt": 1, "generation": 5, "state": "Training"})
    assert world.directory.report("ns", "job").step == 67


async def test_an_empty_kubeflow_payload_is_fine_and_changes_nothing(world, pods):
    assert (await pods.kubeflow({}))[:2] == (200, {})
    assert world.directory.report("ns", "job") is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"junk", "JSON"),
        (b'{"trainerStatus": {"progressPercentage": 101}}', "progressPercentage"),
        (b'{"trainerStatus": {"progressPercentage": -1}}', "progressPercentage"),
        (b'{"trainerStatus": {"estimatedRemainingSeconds": -5}}', "estimatedRemainingSeconds"),
        (b'{"trainerStatus": {"metrics": [{"name": "a", "value": 1}]}}', "value"),
        (b'{"trainerStatus": {"lastUpdatedTime": "yesterday"}}', "lastUpdatedTime"),
    ],
)
async def test_an_invalid_kubeflow_payload_is_answered_422_as_a_status(world, pods, body, message):
    status, answer, _ = await pods.kubeflow(body)
    assert (status, answer["kind"], answer["reason"]) == (422, "Status", "Invalid")
    assert message in answer["message"]
    assert world.directory.report("ns", "job") is None


async def test_kubeflow_answers_403_to_wrong_tokens_and_404_to_unknown_jobs(world, pods):
    for token in (None, "junk", world.token()):
        status, body, _ = await pods.kubeflow(DOCUMENTED, token=token)
        assert (status, body["reason"]) == (403, "Forbidden")
    assert (await pods.kubeflow(DOCUMENTED, job="nowhere"))[0] == 404
    assert (await pods.kubeflow(DOCUMENTED, 1))[0] == 403


class Follows:
    """A replica that does not lead."""

    def __init__(self, leader):
        self.leader = leader

    def leads(self):
        return False

    def leader_address(self):
        return self.leader


class KnowsNothing:
    """A standby's directory: must never be asked."""

    def __getattr__(self, name):
        raise AssertionError(f"a standby answered by itself: {name}")


async def test_a_standby_hands_everything_on_to_the_leader(world):
    async with world.serve() as (leader, _):
        standby = world.serve(leadership=Follows(leader), directory=KnowsNothing())
        async with standby as (url, _), world.client(url) as pods:
            status, joined, _ = await pods.join(1)
            assert (status, len(joined["peers"])) == (200, 2)
            code, answer, *_ = await pods.progress(REPORT)
            assert (code, answer["suspend"]) == (200, False)
            assert world.directory.report("ns", "job").step == 7
            assert (await pods.kubeflow(DOCUMENTED))[:2] == (200, DOCUMENTED)
            assert (await pods.join(token="junk"))[0] == 401
            unknown = await pods.join(token=world.token(uid="newer"))
            assert (unknown[0], unknown[2]["Retry-After"]) == (503, "1")
            assert (await pods.progress(b" " * 70_000))[0] == 413


async def test_a_long_poll_through_a_standby_wakes_and_ends_with_its_client(world):
    async with world.serve() as (leader, _):
        standby = world.serve(leadership=Follows(leader), directory=KnowsNothing())
        async with standby as (url, _), world.client(url) as pods:
            version = (await pods.peers())[1]["version"]
            assert (await pods.peers(after=version, timeout=0))[:2] == (204, None)
            poll = asyncio.create_task(pods.peers(after=version, timeout=30))
            await eventually(lambda: waiting(world))
            world.put_pod(1, address="10.7.7.7")
            assert (await asyncio.wait_for(poll, 5))[1]["peers"][1]["address"] == "10.7.7.7"
            version = (await pods.peers())[1]["version"]
            poll = asyncio.create_task(pods.peers(after=version, timeout=30))
            await eventually(lambda: waiting(world))
            poll.cancel()
            await eventually(lambda: not waiting(world))


async def test_two_standbys_that_think_the_other_leads_do_not_loop(world):
    first, second = Follows(None), Follows(None)
    nothing = KnowsNothing()
    async with (
        world.serve(leadership=first, directory=nothing) as (url, _),
        world.serve(leadership=second, directory=nothing) as (other, _),
        world.client(url) as pods,
    ):
        first.leader, second.leader = other, url
        status, body, headers = await pods.join()
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "no replica" in body["message"]


async def test_without_a_leader_or_with_a_dead_one_pods_are_told_to_retry(world):
    async with world.serve() as (gone, _):
        pass
    for leader in (None, gone):
        standby = world.serve(leadership=Follows(leader), directory=KnowsNothing())
        async with standby as (url, _), world.client(url) as pods:
            status, _, headers = await pods.join()
            assert (status, headers["Retry-After"]) == (503, "1")


async def test_a_token_is_never_sent_to_a_leader_that_is_not_ours(world):
    """An address may be stale: whoever is there now has another authority's certificate."""
    impostor_heard = []

    class Impostor(type(world)):
        pass

    impostor = Impostor()
    impostor.identity = create_identity([HOST], datetime.now(UTC))
    impostor.put_job()

    class Listening(KnowsNothing):
        def job(self, namespace, name):
            impostor_heard.append(name)

    async with impostor.serve(directory=Listening()) as (address, _):
        standby = world.serve(leadership=Follows(address), directory=KnowsNothing())
        async with standby as (url, _), world.client(url) as pods:
            assert (await pods.join())[0] == 503
    assert impostor_heard == []


async def test_a_client_can_not_bypass_a_leader_with_the_marker(world, pods):
    assert (await pods.join(headers={FORWARDED: "1"}))[0] == 200


async def test_a_renewed_certificate_is_served_to_new_connections_without_a_restart(world):
    async with world.serve() as (url, endpoint):
        before = await presented(world, url)
        endpoint.use(renewed(world.identity, [HOST, "127.0.0.1"], datetime.now(UTC)))
        after = await presented(world, url)
        assert before != after
        async with world.client(url) as pods:
            assert (await pods.join())[0] == 200


async def presented(world, url):
    context = ssl.create_default_context(cadata=world.identity.ca)
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=HOST)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return found


async def test_a_body_that_never_comes_is_given_up(world, monkeypatch):
    monkeypatch.setattr("headway_operator.progress.routes.BODY_SECONDS", 0.05)

    async def slowly():
        yield b"{"
        await asyncio.sleep(60)

    async with world.serve() as (url, _), world.client(url) as pods:
        path = f"{job_path('ns', 'job')}/progress"
        status, body, _ = await pods.send("POST", path, token=world.token(), data=slowly())
        assert (status, body["reason"]) == (408, "Timeout")
