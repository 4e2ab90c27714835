"""Replicas of the operator as real processes, and a test that plays their cluster's kubelet."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from apiserver import ISSUER, ApiServer
from headway_api.contract import LABEL_JOB
from headway_operator.cluster.client import (
    CRD,
    LEASE,
    NAMESPACE,
    POD,
    AlreadyExists,
    ApiError,
    NotFound,
    Object,
    Resource,
)
from headway_operator.cluster.kube import KubeApi
from headway_operator.resources import TRAINING_JOB

ROOT = Path(__file__).parents[2]
SYSTEM = "headway-system"
ACCOUNT = "headway-operator"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
RBAC = "rbac.authorization.k8s.io"
REPLICAS = 2
CLUSTER_ROLE_BINDING = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding")
CHART_KINDS = {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}


async def wait_for(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait until a condition (a function or coroutine function) returns something true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.05)


# --- what an administrator does -----------------------------------------------------------------


async def install_crds(admin: KubeApi) -> None:
    """Apply the chart's CRDs."""
    for path in sorted((ROOT / "charts/headway/crds").glob("*.yaml")):
        body = yaml.safe_load(path.read_text())
        await admin.apply(CRD, None, body["metadata"]["name"], body, field_manager="test")


async def install_account(admin: KubeApi, server: ApiServer, *values: str) -> Path:
    """Apply the chart's account and roles as Helm renders them; a kubeconfig of the account.

    Args:
        admin: who installs.
        server: where.
        values: the chart's, as `name=value`.
    """
    with suppress(AlreadyExists):
        await admin.create(NAMESPACE, None, {"metadata": {"name": SYSTEM}})
    with suppress(NotFound):  # of other values
        await admin.delete(CLUSTER_ROLE_BINDING, None, f"{ACCOUNT}-jobs")
    rendered = await asyncio.to_thread(_rendered_chart, values)
    for item in rendered:
        if item["kind"] in CHART_KINDS:
            group, _, version = item["apiVersion"].rpartition("/")
            resource = Resource(group, version, f"{item['kind'].lower()}s", item["kind"])
            metadata = item["metadata"]
            await admin.apply(
                resource, metadata.get("namespace"), metadata["name"], item, field_manager="test"
            )
    token = await admin.create_token(SYSTEM, ACCOUNT, audience=ISSUER)
    return server.kubeconfig_for(token, ACCOUNT)


def _rendered_chart(values: Iterable[str]) -> list[Object]:
    command = ["helm", "template", "headway", str(ROOT / "charts/headway"), "--namespace", SYSTEM]
    for value in values:
        command += ["--set", value]
    rendered = subprocess.run(command, check=True, capture_output=True).stdout
    return [item for item in yaml.safe_load_all(rendered) if item]


def has_helm() -> bool:
    """Whether the chart can be rendered."""
    return shutil.which("helm") is not None


# --- replicas -----------------------------------------------------------------------------------


@dataclass
class Replica:
    """A running operator process."""

    name: str
    process: subprocess.Popen[bytes]
    probes: int
    endpoint: int
    log: Path

    def answers(self, path: str) -> bool:
        """Whether a probe is answered with 200."""
        return self.get(path)[0] == 200

    def get(self, path: str) -> tuple[int, str]:
        """Code and body of a probe; code 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.probes}{path}", timeout=5) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def replica(name: str, kubeconfig: Path, folder: Path, **environ: str) -> Iterator[Replica]:
    """Run one replica; stopped at the end if it still runs. Its log is shown then."""
    probes, endpoint = _free_ports()
    log = folder / f"{name}.log"
    settings = {
        "KUBECONFIG": str(kubeconfig),
        "HEADWAY_NAMESPACE": SYSTEM,
        "HEADWAY_POD_NAME": name,
        "HEADWAY_POD_IP": "127.0.0.1",
        "HEADWAY_BIND_ADDRESS": "127.0.0.1",
        "HEADWAY_ENDPOINT_URL": "https://headway.test:8443",
        "HEADWAY_ENDPOINT_PORT": str(endpoint),
        "HEADWAY_PROBES_PORT": str(probes),
        "HEADWAY_LOG_FORMAT": "plain",
        "PYTHONPATH": f"{ROOT / 'crds'}{os.pathsep}{ROOT / 'operator'}",
        "PYTHONWARNINGS": "error",
        **environ,
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KUBE", "HEADWAY_"))}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "headway_operator"],
            env=inherited | settings,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Replica(name, process, probes, endpoint, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()
        print(f"--- log of {name}\n{log.read_text()}")


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


async def leader(admin: KubeApi) -> str:
    """Name of the replica that holds the Lease; empty without one."""
    try:
        lease = await admin.get(LEASE, SYSTEM, ACCOUNT)
    except NotFound:
        return ""
    holder: str = lease["spec"].get("holderIdentity") or ""
    return holder.partition("_")[0]


# --- jobs and their pods ------------------------------------------------------------------------


def digits(name: str) -> Object:
    """A small job."""
    spec = {"image": "test", "command": ["true"], "workers": {"replicas": REPLICAS}}
    return {"metadata": {"name": name}, "spec": spec}


async def status_of(admin: KubeApi, namespace: str, name: str) -> Object:
    """A job's status; empty before the first write."""
    found = await admin.get(TRAINING_JOB, namespace, name)
    status: Object = found.get("status", {})
    return status


class Kubelet:
    """Has pods do what their test wants: run as soon as they are there, end when told."""

    def __init__(self, admin: KubeApi, namespace: str) -> None:
        self._admin = admin
        self._namespace = namespace
        self._at_work: set[str] = set()
        self._done: set[str] = set()
        self.finishing: set[str] = set()
        """Names of jobs whose pods end with 0 once they all ran."""

    async def play(self) -> None:
        """Look at all pods once."""
        pods = (await self._admin.list(POD, namespace=self._namespace)).items
        at_work = Counter(_job_of(pod) for pod in pods if pod["metadata"]["uid"] in self._at_work)
        for pod in pods:
            uid, job = pod["metadata"]["uid"], _job_of(pod)
            if uid not in self._at_work:
                await self._patch(pod, _running())
                self._at_work.add(uid)
            elif job in self.finishing and at_work[job] == REPLICAS and uid not in self._done:
                await self._patch(pod, _succeeded())
                self._done.add(uid)

    async def _patch(self, pod: Object, status: Object) -> None:
        with suppress(NotFound):  # it was deleted meanwhile
            name = pod["metadata"]["name"]
            await self._admin.patch(
                POD, self._namespace, name, {"status": status}, subresource="status"
            )


@asynccontextmanager
async def playing(kubelet: Kubelet) -> AsyncIterator[None]:
    """Keep the kubelet at work within the context."""

    async def play_on() -> None:
        while True:
            with suppress(ApiError):
                await kubelet.play()
            await asyncio.sleep(0.02)

    task = asyncio.create_task(play_on())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _job_of(pod: Object) -> str:
    name: str = pod["metadata"]["labels"][LABEL_JOB]
    return name


def _running() -> Object:
    return {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "podIPs": [{"ip": "127.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def _succeeded() -> Object:
    return {"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]}
