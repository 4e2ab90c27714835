"""A real endpoint over TLS on 127.0.0.1, the operator's cache and controller behind it."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aiohttp

from headway_api.contract import (
    LABEL_ATTEMPT,
    LABEL_INDEX,
    LABEL_JOB,
    job_path,
    kubeflow_audience,
    kubeflow_status_path,
    token_audience,
)
from headway_operator.cache import Cache
from headway_operator.cluster.client import POD
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.controller import Controller
from headway_operator.local.tokens import LocalTokenIssuer
from headway_operator.progress.directory import AlwaysLeads, CachedDirectory
from headway_operator.progress.pki import create_identity
from headway_operator.progress.ratelimit import RateLimiter
from headway_operator.progress.routes import Services
from headway_operator.progress.server import Endpoint
from headway_operator.progress.tokens import TokenVerifier
from headway_operator.resources import TRAINING_JOB
from headway_operator.settings import Settings

HOST = "headway-operator.headway-system.svc"
CREATED = "2026-11-21T12:00:00Z"


class World:
    """What the operator knows, and pods that call its endpoint."""

    def __init__(self):
        self.cache = Cache()
        client = MemoryCluster(lambda: datetime.now(UTC))
        self.controller = Controller(client, self.cache, Settings())
        self.directory = CachedDirectory(self.cache, self.controller)
        self.issuer = LocalTokenIssuer()
        self.identity = create_identity([HOST, "127.0.0.1"], datetime.now(UTC))
        self._version = 0

    def put_job(self, name="job", *, uid=None, spec=None, status=None):
        self._observe(
            TRAINING_JOB,
            {
                "metadata": {"namespace": "ns", "name": name, "uid": uid or f"{name}-uid"},
                "spec": spec if spec is not None else {"workers": {"replicas": 2}},
                "status": status or {},
            },
        )

    def put_pod(self, index, job="job", *, uid=None, address="10.0.0.{}", **metadata):
        labels = {LABEL_JOB: job, LABEL_INDEX: str(index), LABEL_ATTEMPT: "1"}
        owner = {"kind": "TrainingJob", "name": job, "uid": f"{job}-uid", "controller": True}
        pod = {
            "metadata": {
                "namespace": "ns",
                "name": f"{job}-{index}",
                "uid": uid or f"{job}-{index}-uid",
                "labels": labels,
                "ownerReferences": [owner],
                "creationTimestamp": CREATED,
                **metadata,
            },
            "status": {"phase": "Running", "podIP": address.format(index)},
        }
        self._observe(POD, pod)
        return pod

    def delete_job(self, name="job"):
        job = {"metadata": {"namespace": "ns", "name": name, "uid": f"{name}-uid"}}
        self.cache.remove(TRAINING_JOB, job)

    def _observe(self, resource, item):
        self._version += 1
        item["metadata"]["resourceVersion"] = str(self._version)
        self.cache.put(resource, item)

    def token(self, index=0, job="job", *, audience=None, uid=None, seconds=600):
        return self.issuer.issue(
            "ns",
            f"{job}-{index}",
            uid or f"{job}-{index}-uid",
            audience or token_audience("ns", job),
            seconds,
        )

    def kubeflow_token(self, index=0, job="job"):
        return self.token(index, job, audience=kubeflow_audience("ns", job))

    @asynccontextmanager
    async def serve(self, *, leadership=None, directory=None, limiter=None):
        """An endpoint; gives its base URL, and the endpoint."""
        services = Services(
            directory=directory or self.directory,
            verifier=TokenVerifier(self.issuer),
            identity=self.identity,
            limiter=limiter or RateLimiter(20, 40),
        )
        endpoint = Endpoint(
            self.identity, services, leadership or AlwaysLeads(), server_hostname=HOST
        )
        async with endpoint.listening("127.0.0.1", 0) as port:
            yield f"https://127.0.0.1:{port}", endpoint

    @asynccontextmanager
    async def client(self, url):
        """A pod's HTTP client, which trusts the operator's authority alone."""
        context = ssl.create_default_context(cadata=self.identity.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        async with aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=20),
        ) as session:
            yield Pods(self, session)


class Pods:
    """Requests as pods send them; the answer as (status, JSON body, headers)."""

    def __init__(self, world, session):
        self.world, self.session = world, session

    async def send(self, method, path, *, token=None, **arguments):
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= arguments.pop("headers", {})
        async with self.session.request(method, path, headers=headers, **arguments) as answer:
            body = await answer.json() if await answer.read() else None
            return answer.status, body, answer.headers

    async def join(self, index=0, job="job", **arguments):
        arguments.setdefault("token", self.world.token(index, job))
        return await self.send("POST", f"{job_path('ns', job)}/join", **arguments)

    async def peers(self, index=1, job="job", *, after=None, timeout=None, **arguments):
        arguments.setdefault("token", self.world.token(index, job))
        params = {"after": after, "timeout": timeout}
        params = {key: str(value) for key, value in params.items() if value is not None}
        path = f"{job_path('ns', job)}/peers"
        return await self.send("GET", path, params=params, **arguments)

    async def progress(self, report, index=0, job="job", **arguments):
        arguments.setdefault("token", self.world.token(index, job))
        if isinstance(report, bytes):
            arguments["data"] = report
        else:
            arguments["json"] = report
        return await self.send("POST", f"{job_path('ns', job)}/progress", **arguments)

    async def kubeflow(self, payload, index=0, job="job", **arguments):
        arguments.setdefault("token", self.world.kubeflow_token(index, job))
        if isinstance(payload, bytes):
            arguments["data"] = payload
        else:
            arguments["json"] = payload
        return await self.send("POST", kubeflow_status_path("ns", job), **arguments)


async def eventually(condition, seconds=10.0):
    """Wait until a condition holds; fails after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "condition never held"
        await asyncio.sleep(0.005)
