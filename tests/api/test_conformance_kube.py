"""What only a real API server can show of the real client."""

import base64
import json
from pathlib import Path

import pytest

from apiserver import ISSUER, ApiServer
from headway_operator.cluster import kube
from headway_operator.cluster.client import (
    CONFIGMAP,
    CRD,
    NAMESPACE,
    SERVICE_ACCOUNT,
    ApiError,
    Forbidden,
    NotFound,
    custom_resource,
)

pytestmark = pytest.mark.apiserver
GADGET = custom_resource("Gadget", group="fresh.headway.dev", version="v1")


async def make_account(client: kube.KubeApi, namespace: str) -> None:
    await client.create(NAMESPACE, None, {"metadata": {"name": namespace}})
    await client.create(SERVICE_ACCOUNT, namespace, {"metadata": {"name": "worker"}})


async def test_tokens_carry_audience_and_account(api: ApiServer) -> None:
    async with kube.connect(api.kubeconfig) as client:
        await make_account(client, "tokens")
        token = await client.create_token("tokens", "worker", audience="headway")
    body = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    assert claims["aud"] == ["headway"]
    assert claims["iss"] == ISSUER
    assert claims["sub"] == "system:serviceaccount:tokens:worker"


async def test_an_account_without_a_role_is_forbidden(api: ApiServer) -> None:
    async with kube.connect(api.kubeconfig) as client:
        await make_account(client, "roles")
        token = await client.create_token("roles", "worker", audience=ISSUER)
    async with kube.connect(api.kubeconfig_for(token, "worker")) as client:
        with pytest.raises(Forbidden, match="cannot list resource"):
            await client.list(CONFIGMAP, namespace="roles")


async def test_a_kind_can_be_listed_as_soon_as_it_is_known(api: ApiServer) -> None:
    """A fresh CRD is unknown for a moment, then answers 429 for a second: never anything else."""
    version = {
        "name": GADGET.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    names = {"plural": GADGET.plural, "singular": "gadget", "kind": GADGET.kind}
    crd = {
        "metadata": {"name": f"{GADGET.plural}.{GADGET.group}"},
        "spec": {
            "group": GADGET.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [version],
        },
    }
    async with kube.connect(api.kubeconfig) as client:
        await client.create(CRD, None, crd)
        for _ in range(2000):
            try:
                listing = await client.list(GADGET)
            except NotFound:
                continue
            break
        assert listing.items == []


async def test_writes_are_counted_in_the_audit_log(api: ApiServer) -> None:
    async with kube.connect(api.kubeconfig) as client:
        await client.create(NAMESPACE, None, {"metadata": {"name": "audited"}})
        await client.create(CONFIGMAP, "audited", {"metadata": {"name": "a"}})
        await client.get(CONFIGMAP, "audited", "a")
        await client.patch(CONFIGMAP, "audited", "a", {"data": {"k": "v"}})
        await client.delete(CONFIGMAP, "audited", "a")
    verbs = [
        event["verb"] for event in api.writes() if "/namespaces/audited/" in event["requestURI"]
    ]
    assert verbs == ["create", "patch", "delete"]


async def test_a_wrong_certificate_is_no_cluster(api: ApiServer, tmp_path: Path) -> None:
    config = json.loads(api.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority"]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    async with kube.connect(path) as client:
        with pytest.raises(ApiError, match="certificate verify failed"):
            await client.list(NAMESPACE)
