"""What the endpoint assumes of a cluster, checked against a real API server."""

import asyncio
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from headway_operator.cluster.client import NAMESPACE, POD, SERVICE_ACCOUNT
from headway_operator.cluster.kube import connect
from headway_operator.progress.identity import load_or_create
from headway_operator.progress.tokens import (
    JWKS_PATH,
    Caller,
    ClusterKeySource,
    TokenError,
    TokenVerifier,
)

sys.path.insert(0, str(Path(__file__).parents[3]))

from hack.apiserver import api_server, missing_binaries

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.skipif(bool(missing_binaries()), reason="needs etcd and kube-apiserver"),
]
AUDIENCE = "headway.dev/v1alpha1/namespaces/ns/trainingjobs/job"
SANS = ["headway-operator.ns.svc"]


@pytest.fixture(scope="module")
def server():
    with api_server() as running:
        yield running


@pytest.fixture
async def cluster(server):
    async with connect(server.kubeconfig) as client:
        yield client


@pytest.fixture
async def http(server):
    context = ssl.create_default_context(cafile=server.ca_file)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(server.url, connector=connector) as session:
        yield session


async def token_of(http, server, account, *, pod=None, audience=AUDIENCE):
    """A token as a kubelet requests it for a projected volume."""
    spec = {"audiences": [audience], "expirationSeconds": 600}
    if pod is not None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/ns/serviceaccounts/{account}/token"
    headers = {"Authorization": f"Bearer {server.token}"}
    async with http.post(path, json=body, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        return (await answer.json())["status"]["token"]


@pytest.fixture
async def pod(cluster):
    await _make(cluster, NAMESPACE, None, {"metadata": {"name": "ns"}})
    await _make(cluster, SERVICE_ACCOUNT, "ns", {"metadata": {"name": "trainer"}})
    spec = {
        "serviceAccountName": "trainer",
        "automountServiceAccountToken": False,
        "containers": [{"name": "trainer", "image": "none"}],
    }
    return await _make(cluster, POD, "ns", {"metadata": {"name": "job-0"}, "spec": spec})


async def _make(cluster, resource, namespace, body):
    name = body["metadata"]["name"]
    found = await cluster.list(resource, namespace=namespace)
    known = [item for item in found.items if item["metadata"]["name"] == name]
    return known[0] if known else await cluster.create(resource, namespace, body)


def raw_get(http, token):
    async def get(path):
        headers = {"Authorization": f"Bearer {token}", "Accept": "*/*"}
        async with http.get(path, headers=headers) as answer:
            answer.raise_for_status()
            return await answer.read()

    return get


async def test_a_projected_token_is_verified_with_keys_read_by_a_mere_service_account(
    server, http, pod
):
    """The operator needs no role of its own to read the keys."""
    token = await token_of(http, server, "trainer", pod=pod)
    own = await token_of(http, server, "trainer", audience="https://kubernetes.default.svc")
    verifier = TokenVerifier(ClusterKeySource(raw_get(http, own)))
    caller = await verifier.verify(token, AUDIENCE)
    assert caller == Caller("ns", "job-0", pod["metadata"]["uid"], "trainer")


async def test_a_token_without_a_pod_is_refused(server, http, pod):
    verifier = TokenVerifier(ClusterKeySource(raw_get(http, server.token)))
    with pytest.raises(TokenError, match="not bound to a pod"):
        await verifier.verify(await token_of(http, server, "trainer"), AUDIENCE)


async def test_the_keys_are_not_served_as_plain_json(server, http):
    """Why `raw_get` must accept any content type."""
    headers = {"Authorization": f"Bearer {server.token}", "Accept": "application/json"}
    async with http.get(JWKS_PATH, headers=headers) as answer:
        assert answer.status == 406


async def test_replicas_that_start_together_share_one_identity(cluster, pod):
    found = await asyncio.gather(
        *(load_or_create(cluster, "ns", "identity", SANS) for _ in range(4))
    )
    assert len({identity.ca for identity in found}) == 1
    assert await load_or_create(cluster, "ns", "identity", SANS) == found[0]


async def test_replicas_that_renew_together_share_one_certificate(cluster, pod):
    old = await load_or_create(cluster, "ns", "identity", SANS)

    def next_year():
        now = datetime.now(UTC)
        return now.replace(year=now.year + 1, day=min(now.day, 28))

    found = await asyncio.gather(
        *(load_or_create(cluster, "ns", "identity", SANS, now=next_year) for _ in range(3))
    )
    assert len({identity.certificate for identity in found}) == 1
    assert found[0].certificate != old.certificate
