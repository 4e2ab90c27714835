"""`headway sweep show` and its like, reading a real API server as somebody who may only read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from operators import RBAC, install_crds, wait_for

from apiserver import ISSUER, ApiServer
from headway_operator.cluster.client import NAMESPACE, SERVICE_ACCOUNT, NotFound, Object, Resource
from headway_operator.cluster.kube import KubeApi, connect
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.sweep import records
from headway_operator.sweep.making import training_job
from headway_operator.sweep.view import parse_run, parse_sweep

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(180)]
ROLE = Resource(RBAC, "v1", "roles", "Role")
ROLE_BINDING = Resource(RBAC, "v1", "rolebindings", "RoleBinding")
SPACE = "sweep-results"
SPEC = {
    "parameters": [{"name": "x", "float": {"min": 0, "max": 1}}],
    "objectives": [{"metric": "loss"}],
    "maxTrials": 3,
    "template": {"spec": {"image": "i", "command": ["train", "--x=${params.x}"]}},
}


@pytest.fixture
async def admin(api: ApiServer) -> AsyncIterator[KubeApi]:
    async with connect(api.kubeconfig) as client:
        yield client


def show(kubeconfig: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "from headway_operator.sweep_command import app; app()"
    environment = {k: v for k, v in os.environ.items() if k != "KUBERNETES_SERVICE_HOST"}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**environment, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def reader(admin: KubeApi, api: ApiServer, name: str, kinds: list[str]) -> Path:
    """The kubeconfig of an account that may get and list some kinds."""
    meta = {"metadata": {"name": name}}
    await admin.create(SERVICE_ACCOUNT, SPACE, meta)
    rule = {"apiGroups": ["headway.dev"], "resources": kinds, "verbs": ["get", "list"]}
    await admin.create(ROLE, SPACE, {**meta, "rules": [rule]})
    bound: Object = {
        **meta,
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": SPACE}],
    }
    await admin.create(ROLE_BINDING, SPACE, bound)
    token = await admin.create_token(SPACE, name, audience=ISSUER)
    return api.kubeconfig_for(token, name)


async def served(admin: KubeApi) -> bool:
    try:
        for kind in (SWEEP, TRAINING_JOB, SWEEP_RECORD):
            await admin.list(kind)
    except NotFound:
        return False
    return True


async def a_trained_sweep(admin: KubeApi) -> None:
    """Three trials, of which the first is only a record any more."""
    await admin.create(NAMESPACE, None, {"metadata": {"name": SPACE}})
    item = await admin.create(SWEEP, SPACE, {"metadata": {"name": "s"}, "spec": SPEC})
    sweep = parse_sweep(item)
    for index, value in enumerate((0.5, 0.25, 1.0)):
        body = training_job(sweep, index, 0, {"x": value}, {}, None)
        await admin.create(TRAINING_JOB, SPACE, body)
        point = {"step": 9, "value": str(value)}
        course: dict[str, Any] = {"metric": "loss", "last": point, "min": point, "max": point}
        status = {"phase": "Succeeded", "progress": {"step": 9}, "observations": [course]}
        name = body["metadata"]["name"]
        job = await admin.patch(TRAINING_JOB, SPACE, name, {"status": status}, subresource="status")
        if index == 0:
            run = parse_run(job)
            assert run is not None
            kept = records.record(sweep, 0, dict([records.entry(run)]))
            await admin.create(SWEEP_RECORD, SPACE, kept)
            await admin.delete(TRAINING_JOB, SPACE, name)


async def test_a_reader_of_the_namespace_sees_all_trials_and_is_told_what_is_missing(
    admin: KubeApi, api: ApiServer
) -> None:
    await install_crds(admin)
    await wait_for(lambda: served(admin), 30, "the API server serves the kinds")
    await a_trained_sweep(admin)
    kinds = ["sweeps", "trainingjobs", "sweeprecords"]
    allowed = await reader(admin, api, "allowed", kinds)

    told = show(allowed, "show", "s", "-n", SPACE, "-o", "json")
    assert told.returncode == 0, told.stderr
    trials = json.loads(told.stdout)["trials"]
    assert [(trial["state"], trial["values"]) for trial in trials] == [
        ("Complete", [0.5]),
        ("Complete", [0.25]),
        ("Complete", [1.0]),
    ]
    assert json.loads(told.stdout)["best"] == 1

    other = show(allowed, "show", "t", "-n", SPACE)
    assert (other.returncode, "there is no Sweep t in namespace" in other.stderr) == (2, True)
    half = await reader(admin, api, "half", kinds[:2])
    refused = show(half, "show", "s", "-n", SPACE)
    assert refused.returncode == 2
    assert "the role needs get and list of sweeps, trainingjobs and sweeprecords" in refused.stderr
