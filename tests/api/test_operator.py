"""The operator as real processes on a real API server, as its own account, without kubelets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import aiohttp
import pytest
from operators import (
    SYSTEM,
    USER,
    Kubelet,
    digits,
    has_helm,
    install_account,
    install_crds,
    leader,
    playing,
    replica,
    status_of,
    wait_for,
)

from apiserver import ApiServer, api_server, missing_binaries
from headway_api.contract import job_path, token_audience
from headway_operator.cluster.client import LEASE, NAMESPACE, POD, SECRET, Object
from headway_operator.cluster.kube import KubeApi, connect
from headway_operator.resources import CLUSTER_TRAINING_RUNTIME, TRAINING_JOB

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(180)]
START_SECONDS = 30.0
TAKEOVER_SECONDS = 40.0
"""A Lease of 15 s, two looks of the standby, its first lists; twice, as machines are busy."""


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """A control plane of our own: what is installed there, and what is not, is these tests'."""
    missing = missing_binaries("etcd", "kube-apiserver", "kube-controller-manager")
    if missing:
        pytest.skip(f"not on PATH or in HEADWAY_KUBE_BIN: {', '.join(missing)}")
    if not has_helm():
        pytest.skip("the operator's roles come from the chart: helm is not on PATH")
    with api_server(
        controllers=["garbage-collector-controller", "serviceaccount-controller"]
    ) as server:
        yield server


@pytest.fixture
async def admin(server: ApiServer) -> AsyncIterator[KubeApi]:
    async with connect(server.kubeconfig) as client:
        yield client


@pytest.fixture
async def account(admin: KubeApi, server: ApiServer) -> Path:
    return await install_account(admin, server)


@pytest.fixture
async def namespace(admin: KubeApi, request: pytest.FixtureRequest) -> str:
    name = request.node.name.removeprefix("test_").translate(str.maketrans("_[", "--", "]"))[:60]
    await admin.create(NAMESPACE, None, {"metadata": {"name": name}})
    return str(name)


def writes(server: ApiServer, namespace: str) -> list[Object]:
    """The operator's writes in a namespace, refused ones too."""
    return [
        entry
        for entry in server.writes()
        if entry["user"]["username"] == USER and entry["objectRef"].get("namespace") == namespace
    ]


def succeeded(entries: list[Object]) -> Counter[str]:
    """Writes that were not refused, by what they did."""
    return Counter(
        "/".join(
            filter(None, (e["verb"], e["objectRef"]["resource"], e["objectRef"].get("subresource")))
        )
        for e in entries
        if e["responseStatus"]["code"] < 300
    )


async def phase_is(admin: KubeApi, namespace: str, name: str, phase: str) -> bool:
    return (await status_of(admin, namespace, name)).get("phase") == phase


async def test_without_crds_it_says_so_and_goes_on_when_they_come(
    server: ApiServer, admin: KubeApi, account: Path, tmp_path: Path
) -> None:
    """Runs first in this file: the others install the CRDs."""
    with replica("early", account, tmp_path) as early:
        await wait_for(
            lambda: "install the CRDs with" in early.log.read_text(), START_SECONDS, "a clear word"
        )
        assert not early.answers("/readyz")
        assert early.answers("/healthz"), "a restart would not bring the CRDs"
        await install_crds(admin)
        await wait_for(lambda: early.answers("/readyz"), START_SECONDS, "it is ready")
        assert early.process.poll() is None
        assert "Traceback" not in early.log.read_text()


async def test_healthy_job_costs_its_pods_and_three_writes(
    server: ApiServer, admin: KubeApi, account: Path, namespace: str, tmp_path: Path
) -> None:
    """With the chart's role alone: not one write is refused."""
    await install_crds(admin)
    kubelet = Kubelet(admin, namespace)
    with replica("only", account, tmp_path) as only:
        await wait_for(lambda: only.answers("/readyz"), START_SECONDS, "it is ready")
        await admin.create(TRAINING_JOB, namespace, digits("cheap"))
        async with playing(kubelet):
            await wait_for(lambda: phase_is(admin, namespace, "cheap", "Running"), 20, "it runs")
            kubelet.finishing.add("cheap")
            await wait_for(
                lambda: phase_is(admin, namespace, "cheap", "Succeeded"), 20, "it has succeeded"
            )
        metrics = only.get("/metrics")[1]
        assert "process_resident_memory_bytes" in metrics
    entries = writes(server, namespace)
    assert {e["responseStatus"]["code"] for e in entries} <= {200, 201}
    assert succeeded(entries) == {"create/pods": 2, "patch/trainingjobs/status": 3}


@pytest.mark.parametrize("after", [1, 10, 25], ids=lambda after: f"after-{after}-writes")
async def test_standby_carries_on_when_the_leader_is_killed(
    server: ApiServer, admin: KubeApi, account: Path, namespace: str, tmp_path: Path, after: int
) -> None:
    """Eight jobs of two pods start while the leader dies: all end well, nothing is made twice."""
    await install_crds(admin)
    names = [f"job-{number}" for number in range(8)]
    kubelet = Kubelet(admin, namespace)
    kubelet.finishing.update(names)
    with replica("a", account, tmp_path) as a, replica("b", account, tmp_path) as b:
        both = {"a": a, "b": b}
        # The one that does not lead is ready as well: it knows who does.
        await wait_for(lambda: all(r.answers("/readyz") for r in both.values()), 60, "both ready")
        first: str = await wait_for(lambda: _one_of(admin, both), 40, "one of them leads")
        async with playing(kubelet), asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(admin.create(TRAINING_JOB, namespace, digits(name)))
            await wait_for(lambda: len(writes(server, namespace)) >= after, 20, f"{after} writes")
            both[first].kill()
            await wait_for(
                lambda: _all_are(admin, namespace, names, "Succeeded"),
                TAKEOVER_SECONDS,
                "all jobs have succeeded under the other replica",
            )
        assert await leader(admin) == ({"a", "b"} - {first}).pop()
    # Nothing was taken away, so that what is there is all that was ever made.
    assert not [e for e in writes(server, namespace) if e["verb"] == "delete"]
    pods = (await admin.list(POD, namespace=namespace)).items
    expected = sorted(f"{name}-{index}" for name in names for index in range(2))
    assert sorted(pod["metadata"]["name"] for pod in pods) == expected
    for name in names:
        restarts = (await status_of(admin, namespace, name)).get("restarts", {})
        assert restarts.get("total", 0) == 0, f"{name}: a change of leader is no restart"


async def _one_of(admin: KubeApi, names: Collection[str]) -> str | None:
    found = await leader(admin)
    return found if found in names else None


async def _all_are(admin: KubeApi, namespace: str, names: list[str], phase: str) -> bool:
    found = (await admin.list(TRAINING_JOB, namespace=namespace)).items
    reached = [item for item in found if item.get("status", {}).get("phase") == phase]
    return len(reached) == len(names)


async def test_sigterm_hands_over_at_once_and_a_standby_forwards_to_the_leader(
    server: ApiServer, admin: KubeApi, account: Path, namespace: str, tmp_path: Path
) -> None:
    await install_crds(admin)
    await admin.create(TRAINING_JOB, namespace, digits("asked"))
    with replica("a", account, tmp_path) as a:
        await wait_for(lambda: a.answers("/readyz"), START_SECONDS, "a is ready")
        with replica("b", account, tmp_path) as b:
            await wait_for(lambda: b.answers("/readyz"), START_SECONDS, "b is ready")
            assert await leader(admin) == "a"
            async with playing(Kubelet(admin, namespace)):
                await wait_for(lambda: phase_is(admin, namespace, "asked", "Running"), 20, "runs")
            through_leader = await join(admin, namespace, "asked", a.endpoint)
            through_standby = await join(admin, namespace, "asked", b.endpoint)
            assert through_leader == through_standby
            assert through_leader["replicas"] == 2
            assert a.terminate() == 0
            # A lease that was not released would take 15 s.
            await wait_for(lambda: _leads(admin, "b"), 8, "b leads")
            await wait_for(lambda: b.answers("/readyz"), START_SECONDS, "b knows all")
            assert await join(admin, namespace, "asked", b.endpoint) == through_leader


async def _leads(admin: KubeApi, name: str) -> bool:
    return await leader(admin) == name


async def join(admin: KubeApi, namespace: str, job: str, port: int) -> Object:
    """What the endpoint answers to the job's first pod, with a token as the kubelet gets it.

    But for the certificate of the lead, which is made anew at each request.
    """
    pod = await admin.get(POD, namespace, f"{job}-0")
    token = await admin.create_token(
        namespace,
        "default",
        audience=token_audience(namespace, job),
        pod=(pod["metadata"]["name"], pod["metadata"]["uid"]),
    )
    env = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
    context = ssl.create_default_context(cadata=env["HEADWAY_ENDPOINT_CA"])
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{port}{job_path(namespace, job)}/join",
            json={},
            ssl=context,
            server_hostname="headway.test",
            headers={"Authorization": f"Bearer {token}"},
        ) as answer,
    ):
        text = await answer.text()
        assert answer.status == 200, text
        found: Object = json.loads(text)
        assert "BEGIN CERTIFICATE" in found.pop("certificate")
        return found


async def test_one_that_looks_at_some_namespaces_needs_no_rights_beyond(
    server: ApiServer, admin: KubeApi, namespace: str, tmp_path: Path
) -> None:
    """The chart binds its roles in the given namespaces only; cluster-wide runtimes are seen."""
    await install_crds(admin)
    account = await install_account(admin, server, f"watchNamespaces={{{namespace}}}")
    runtime = {"metadata": {"name": "base"}, "spec": {"image": "from-the-runtime"}}
    await admin.create(CLUSTER_TRAINING_RUNTIME, None, runtime)
    based = digits("based")
    del based["spec"]["image"]
    based["spec"]["runtimeRef"] = {"kind": "ClusterTrainingRuntime", "name": "base"}
    await admin.create(TRAINING_JOB, namespace, based)
    await admin.create(TRAINING_JOB, "default", digits("elsewhere"))
    with replica("some", account, tmp_path, HEADWAY_WATCH_NAMESPACES=namespace) as some:
        await wait_for(lambda: some.answers("/readyz"), START_SECONDS, "it is ready")
        async with playing(Kubelet(admin, namespace)):
            await wait_for(lambda: phase_is(admin, namespace, "based", "Running"), 20, "it runs")
        pod = await admin.get(POD, namespace, "based-0")
        assert pod["spec"]["containers"][0]["image"] == "from-the-runtime"
        assert "forbidden" not in some.log.read_text()
    assert not await status_of(admin, "default", "elsewhere")


async def test_leader_that_loses_its_lease_ends_at_once(
    server: ApiServer, admin: KubeApi, account: Path, tmp_path: Path
) -> None:
    await install_crds(admin)
    with replica("old", account, tmp_path) as old:
        await wait_for(lambda: old.answers("/readyz"), START_SECONDS, "it is ready")
        thief = {"spec": {"holderIdentity": "thief_1"}}
        await admin.patch(LEASE, SYSTEM, "headway-operator", thief)
        await wait_for(lambda: old.process.poll() is not None, 15, "the process has ended")
        assert old.process.returncode == 1
        assert "thief_1 holds the Lease" in old.log.read_text()
    await admin.delete(LEASE, SYSTEM, "headway-operator")


async def test_restarted_operator_keeps_the_endpoints_identity(
    server: ApiServer, admin: KubeApi, account: Path, tmp_path: Path
) -> None:
    """Pods hold the authority's certificate in their environment: it must outlive the operator."""
    await install_crds(admin)
    kept = []
    for name in ("before", "after"):
        with replica(name, account, tmp_path) as one:
            await wait_for(lambda one=one: one.answers("/readyz"), START_SECONDS, "it is ready")
            kept.append((await admin.get(SECRET, SYSTEM, "headway-endpoint"))["data"])
            assert one.terminate() == 0
    assert kept[0] == kept[1]


def test_wrong_environment_is_told_in_one_sentence(tmp_path: Path) -> None:
    with replica("wrong", tmp_path / "none", tmp_path, HEADWAY_LOG_LEVEL="loud") as wrong:
        assert wrong.process.wait(30) == 1
        assert wrong.log.read_text().startswith("headway-operator: HEADWAY_LOG_LEVEL has to be")
