"""The operator beside the real Kueue: quota, preemption and the end, by a real API server."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from operators import (
    Kubelet,
    install_account,
    install_crds,
    leader,
    playing,
    replica,
    status_of,
    wait_for,
)

import kueue
from apiserver import ApiServer
from headway_operator.cluster.client import (
    CRD,
    NAMESPACE,
    POD,
    PRIORITY_CLASS,
    SERVICE_ACCOUNT,
    ApiError,
    Object,
    Resource,
    custom_resource,
)
from headway_operator.cluster.kube import KubeApi, connect
from headway_operator.resources import RESOURCE_FLAVOR, TRAINING_JOB, WORKLOAD

CLUSTER_QUEUE = custom_resource(
    "ClusterQueue", group="kueue.x-k8s.io", version="v1beta2", namespaced=False
)
LOCAL_QUEUE = custom_resource("LocalQueue", group="kueue.x-k8s.io", version="v1beta2")
TEAM = "team"
pytestmark = pytest.mark.skipif(
    not kueue.BINARY.exists() or shutil.which("openssl") is None or shutil.which("helm") is None,
    reason="needs openssl, helm, and Kueue's manager: python hack/kueue.py build",
)


@pytest.fixture
async def admin(api: ApiServer) -> AsyncIterator[KubeApi]:
    async with connect(api.kubeconfig) as client:
        yield client


async def install_queues(admin: KubeApi) -> None:
    """Quota for two workers at a time; what is more important takes it from others."""
    for body in kueue.crds():
        await admin.apply(CRD, None, body["metadata"]["name"], body, field_manager="test")
    flavor = {"spec": {"nodeLabels": {"pool": "spot"}}}
    resource = {"name": "cpu", "nominalQuota": "2"}
    flavors = [{"name": "spot", "resources": [resource]}]
    groups = [{"coveredResources": ["cpu"], "flavors": flavors}]
    cluster_queue = {
        "spec": {
            "namespaceSelector": {},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": groups,
        }
    }
    await wait_for(lambda: served(admin, RESOURCE_FLAVOR), 20, "the kinds are served")
    await admin.create(RESOURCE_FLAVOR, None, {"metadata": {"name": "spot"}, **flavor})
    await admin.create(CLUSTER_QUEUE, None, {"metadata": {"name": "all"}, **cluster_queue})
    await admin.create(
        LOCAL_QUEUE, TEAM, {"metadata": {"name": "queue"}, "spec": {"clusterQueue": "all"}}
    )
    high = {"metadata": {"name": "high"}, "value": 1000}
    await admin.create(PRIORITY_CLASS, None, high)


async def served(admin: KubeApi, resource: Resource) -> bool:
    try:
        await admin.list(resource)
    except ApiError:  # not yet
        return False
    return True


def a_job(name: str, priority: str | None = None) -> Object:
    spec = {
        "image": "test",
        "command": ["true"],
        "workers": {"replicas": 2, "resources": {"requests": {"cpu": "1"}}},
        "scheduling": {"queueName": "queue"},
    }
    if priority:
        spec["scheduling"] = {"queueName": "queue", "priorityClassName": priority}
    return {"metadata": {"name": name}, "spec": spec}


async def phase(admin: KubeApi, name: str) -> str:
    return (await status_of(admin, TEAM, name)).get("phase") or ""


async def becomes(admin: KubeApi, **phases: str) -> None:
    async def there() -> bool:
        return {name: await phase(admin, name) for name in phases} == phases

    try:
        await wait_for(there, 40, f"{phases}")
    except AssertionError:
        for name in phases:
            print(name, json.dumps(await status_of(admin, TEAM, name), indent=1))
        for item in (await admin.list(WORKLOAD, namespace=TEAM)).items:
            print(json.dumps({**item, "spec": None}, indent=1))
        raise


async def test_jobs_share_quota_and_the_more_important_one_preempts(
    api: ApiServer, admin: KubeApi, tmp_path: Path
) -> None:
    await install_crds(admin)
    account = await install_account(admin, api)
    await admin.create(NAMESPACE, None, {"metadata": {"name": TEAM}})
    await admin.create(SERVICE_ACCOUNT, TEAM, {"metadata": {"name": "default"}})
    kubelet = Kubelet(admin, TEAM)
    with replica("only", account, tmp_path) as only:
        await wait_for(lambda: only.answers("/readyz"), 60, "it is ready without Kueue")
        assert await leader(admin) == "only"
        await admin.create(TRAINING_JOB, TEAM, a_job("first"))

        async def said() -> bool:
            return "there is no Kueue here" in (
                (await status_of(admin, TEAM, "first")).get("message") or ""
            )

        await wait_for(said, 20, "a clear word")
        await install_queues(admin)
        with kueue.manager(api.kubeconfig, tmp_path, free_ports()):
            async with playing(kubelet):
                await becomes(admin, first="Running")
                pod = await admin.get(POD, TEAM, "first-0")
                assert pod["spec"]["nodeSelector"] == {"pool": "spot"}
                await admin.create(TRAINING_JOB, TEAM, a_job("second"))
                await becomes(admin, first="Running", second="Queued")

                async def tells_why() -> bool:
                    told = (await status_of(admin, TEAM, "second")).get("message") or ""
                    return "quota" in told

                await wait_for(tells_why, 20, "why it waits")
                await admin.create(TRAINING_JOB, TEAM, a_job("urgent", "high"))
                await becomes(admin, first="Queued", second="Queued", urgent="Running")
                kubelet.finishing.add("urgent")
                await becomes(admin, urgent="Succeeded")
                kubelet.finishing |= {"first", "second"}  # whichever is next
                await becomes(admin, first="Succeeded", second="Succeeded")
                status = await status_of(admin, TEAM, "first")
                assert status["attempt"] == 2
                assert not (status.get("restarts") or {}).get("total")

                await admin.create(TRAINING_JOB, TEAM, a_job("resting"))
                await becomes(admin, resting="Running")
                await admin.patch(TRAINING_JOB, TEAM, "resting", {"spec": {"suspend": True}})
                await becomes(admin, resting="Suspended")

                async def finished() -> bool:
                    kept = (await admin.list(WORKLOAD, namespace=TEAM)).items
                    return len(kept) == 3 and all(map(is_finished, kept))

                await wait_for(finished, 20, "quota is given back by who ended or rests")
        refused = [
            e["responseStatus"]
            for e in api.writes()
            if e["responseStatus"]["code"] == 403 and e["objectRef"].get("namespace") == TEAM
        ]
        assert not refused


def is_finished(workload: Object) -> bool:
    conditions = workload["status"]["conditions"]
    return any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)


def free_ports() -> int:
    """A port that is free, and the next one, too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return int(port)
