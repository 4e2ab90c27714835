"""Who gets in: everything else is refused with a sentence and changes nothing."""

import socket
import ssl

import aiohttp
import jwt
import pytest

from headway_api.contract import job_path, kubeflow_audience, token_audience
from headway_operator.local.tokens import LocalTokenIssuer
from headway_operator.progress.keys import job_key
from headway_operator.progress.ratelimit import RateLimiter

REPORT = {"session": "s", "attempt": 1, "generation": 1, "step": 7}


async def test_a_pod_of_the_job_joins(world, pods):
    world.put_job(
        spec={"workers": {"replicas": 2}, "failurePolicy": {"maxRestarts": 4}},
        status={"generation": 3, "restarts": {"counted": 1}},
    )
    status, body, _ = await pods.join(1)
    assert status == 200
    assert body["jobKey"] == job_key(world.identity.secret, "job-uid")
    assert (body["generation"], body["restartsCounted"], body["replicas"]) == (3, 1, 2)
    assert body["failurePolicy"]["maxRestarts"] == 4
    assert [peer["address"] for peer in body["peers"]] == ["10.0.0.0", "10.0.0.1"]


def other_key(world):
    return LocalTokenIssuer().issue("ns", "job-0", "job-0-uid", token_audience("ns", "job"), 60)


def unsigned(world):
    claims = jwt.decode(world.token(), options={"verify_signature": False})
    kid = jwt.get_unverified_header(world.token())["kid"]
    return jwt.encode(claims, "", algorithm="none", headers={"kid": kid})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda world: None, "projected token"),
        (lambda world: "", "projected token"),
        (lambda world: "junk", "not a JSON Web Token"),
        (lambda world: world.token(audience="https://kubernetes.default.svc"), "audience"),
        (lambda world: world.token(audience=token_audience("ns", "job2")), "audience"),
        (lambda world: world.token(audience=kubeflow_audience("ns", "job")), "audience"),
        (lambda world: world.token(seconds=-60), "expired"),
        (other_key, "lacks"),
        (unsigned, "not signed with"),
    ],
    ids=[
        "none",
        "empty",
        "junk",
        "api",
        "other-job",
        "kubeflow",
        "expired",
        "other-key",
        "unsigned",
    ],
)
async def test_a_token_that_proves_nothing_is_answered_401(world, pods, make, message):
    status, body, _ = await pods.progress(REPORT, token=make(world))
    assert (status, body["kind"], body["code"]) == (401, "Status", 401)
    assert message in body["message"]
    assert world.directory.report("ns", "job") is None


async def test_a_pod_of_another_job_is_refused_even_with_this_jobs_audience(world, pods):
    world.put_job("other")
    world.put_pod(0, "other")
    token = world.token(0, "other", audience=token_audience("ns", "job"))
    status, body, _ = await pods.progress(REPORT, token=token)
    assert status == 403
    assert "other-0" in body["message"]


async def test_another_uid_under_a_pods_name_is_told_to_retry_until_it_is_known(world, pods):
    """A zombie never gets in; a pod faster than the watch does as soon as it is known."""
    status, body, headers = await pods.join(0, token=world.token(0, uid="newer"))
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "newer" in body["message"]
    world.put_pod(0, uid="newer")
    assert (await pods.join(0, token=world.token(0, uid="newer")))[0] == 200
    assert (await pods.join(0, token=world.token(0)))[0] == 503


async def test_a_pod_left_by_a_deleted_namesake_is_refused(world, pods):
    world.delete_job()
    world.put_job(uid="second")
    assert (await pods.progress(REPORT))[0] == 403


async def test_a_pod_of_another_namespace_is_refused(world, pods):
    token = world.issuer.issue("elsewhere", "job-0", "job-0-uid", token_audience("ns", "job"), 600)
    assert (await pods.join(token=token))[0] == 403


async def test_only_the_lead_reports(world, pods):
    status, body, _ = await pods.progress(REPORT, 1)
    assert (status, "worker 0" in body["message"]) == (403, True)
    assert (await pods.progress(REPORT, 0))[0] == 200
    assert world.directory.report("ns", "job").step == 7


async def test_an_unknown_job_is_answered_404(pods):
    status, body, _ = await pods.join(0, "nowhere")
    assert (status, body["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", f"{job_path('ns', 'job')}/join", 405), ("POST", "/apis", 404)],
)
async def test_unknown_paths_and_methods_get_a_status_object(world, pods, method, path, status):
    found, body, _ = await pods.send(method, path, token=world.token())
    assert (found, body["kind"]) == (status, "Status")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b"[]", "object"),
        (b'{"session": "s"}', "attempt"),
        (b'{"session": "s", "attempt": 1, "generation": "x"}', "generation"),
        (b'{"session": "s", "attempt": 1, "generation": 1, "metrics": {"a": 1}}', "metrics.a"),
    ],
)
async def test_junk_is_answered_422_and_names_the_field(world, pods, body, message):
    status, answer, _ = await pods.progress(body)
    assert (status, message in answer["message"]) == (422, True)
    assert world.directory.report("ns", "job") is None


async def test_fields_of_a_newer_agent_are_ignored(world, pods):
    assert (await pods.progress({**REPORT, "flavour": "new"}))[0] == 200


async def test_a_body_over_64_kib_is_answered_413_and_compression_is_no_way_around(world, pods):
    status, body, _ = await pods.progress(b"{" + b" " * 64 * 1024)
    assert (status, body["reason"]) == (413, "RequestEntityTooLarge")
    bomb = {"headers": {"Content-Encoding": "gzip"}}
    assert (await pods.progress(b"\x1f\x8b junk", **bomb))[0] == 422


async def test_a_pod_that_asks_too_often_is_slowed_down_and_no_other(world):
    limiter = RateLimiter(0.001, 3)
    async with world.serve(limiter=limiter) as (url, _), world.client(url) as pods:
        answers = [await pods.join(0) for _ in range(5)]
        assert [status for status, *_ in answers] == [200, 200, 200, 429, 429]
        assert answers[-1][2]["Retry-After"] == "1"
        assert (await pods.join(1))[0] == 200


async def test_strangers_certificates_and_plain_http_are_no_way_in(world):
    async with world.serve() as (url, _), aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))


async def test_old_tls_is_refused(world):
    async with world.serve() as (url, _):
        context = ssl.create_default_context(cadata=world.identity.ca)
        async with aiohttp.ClientSession() as session:
            assert (await session.get(url, ssl=context)).status == 404
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url, ssl=context)


async def test_nothing_secret_is_logged(world, caplog, capfd):
    caplog.set_level("DEBUG")
    async with world.serve() as (url, _), world.client(url) as pods:
        token = world.token()
        await pods.join(token=token)
        await pods.progress(b"junk", token=token)
        await pods.join(token=token[:-4] + "AAAA")
    said = caplog.text + "".join(capfd.readouterr())
    for secret in (token[-20:-4], job_key(world.identity.secret, "job-uid"), "PRIVATE KEY"):
        assert secret not in said


async def test_the_port_is_free_again_after_the_context(world):
    async with world.serve() as (url, _):
        port = int(url.rsplit(":", 1)[1])
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))
