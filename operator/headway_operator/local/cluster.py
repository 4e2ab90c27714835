"""The whole of local mode in one process: API server, operator, endpoint and kubelet."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import json
import os
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headway_api.kinds import KINDS
from headway_api.validation import ValidationError, admit
from headway_operator.cluster.client import SECRET, Invalid, NotFound, Object, Resource
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.core import Core
from headway_operator.local.kubelet import Kubelet
from headway_operator.local.tokens import LocalTokenIssuer
from headway_operator.progress.directory import AlwaysLeads
from headway_operator.progress.identity import load_or_create_file
from headway_operator.progress.routes import Services
from headway_operator.progress.server import Endpoint
from headway_operator.progress.tokens import TokenVerifier
from headway_operator.resources import (
    CLUSTER_TRAINING_RUNTIME,
    SWEEP,
    SWEEP_RECORD,
    TRAINING_JOB,
    TRAINING_RUNTIME,
)
from headway_operator.settings import Settings

HOST = "127.0.0.1"
GRACE_SECONDS = 30
_SAVE_SECONDS = 1.0
_KINDS = {kind.kind: kind for kind in KINDS}


class StateInUseError(Exception):
    """Another process runs on this state folder."""


def _admit(resource: Resource, new: Object, old: Object | None) -> Object:
    kind = _KINDS.get(resource.kind)
    if kind is None:
        return new
    try:
        return dict(admit(kind, new, old))
    except ValidationError as error:
        raise Invalid(422, "Invalid", str(error)) from None


class LocalCluster:
    """A cluster of this process, whose objects live in a folder.

    Attributes:
        client: Its API server.
        core: Its operator.
        pods_folder: Logs and other files of the pods: `<pod name>/<uid>/log`.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._file = state / "cluster.json"
        self.pods_folder = state / "pods"
        self.client = MemoryCluster(
            lambda: datetime.now(UTC), new_uid=lambda _: str(uuid.uuid4()), admit=_admit
        )
        self._issuer = LocalTokenIssuer()
        self._saved = ""
        self.core: Core
        self.kubelet: Kubelet

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run within the context; every process is gone and the state is saved at its end.

        Raises:
            StateInUseError: somebody else runs on the same folder.
        """
        self._state.mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._load()
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(self.save)
                await stack.enter_async_context(self._serving())
                yield

    @contextlib.asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        identity = load_or_create_file(self._state / "identity.json", [HOST])
        port = _free_port()
        settings = Settings(
            queues=False,
            endpoint_url=f"https://{HOST}:{port}",
            endpoint_ca=identity.ca,
            grace_seconds=GRACE_SECONDS,
            progress_seconds=1.0,
        )
        own = (TRAINING_JOB, TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME, SWEEP, SWEEP_RECORD)
        self.core = Core(self.client, settings, own_kinds=own)
        services = Services(self.core.directory, TokenVerifier(self._issuer), identity)
        endpoint = Endpoint(identity, services, AlwaysLeads(), server_hostname=HOST)
        self.kubelet = Kubelet(self.client, self.pods_folder, self._token, self._secret)
        async with endpoint.listening(HOST, port):
            tasks = [
                asyncio.create_task(self.kubelet.run()),
                asyncio.create_task(self.core.run()),
                asyncio.create_task(self._save_for_ever()),
            ]
            try:
                yield
            finally:
                for task in reversed(tasks):
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _token(self, pod: Object, audience: str, seconds: int) -> str:
        meta = pod["metadata"]
        return self._issuer.issue(
            meta["namespace"], meta["name"], meta["uid"], audience, float(seconds)
        )

    async def _secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        try:
            found = await self.client.get(SECRET, namespace, name)
        except NotFound:
            return None
        encoded = (found.get("data") or {}).items()
        data = {key: base64.b64decode(value).decode() for key, value in encoded}
        return data | (found.get("stringData") or {})

    # --- state -----------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the objects to the folder, if they changed; a crash leaves the old or the new."""
        text = json.dumps(self.client.snapshot())
        if text == self._saved:
            return
        temporary = self._file.with_suffix(".new")
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._file)
        self._saved = text

    def _load(self) -> None:
        if self._file.exists():
            self.client.load(json.loads(self._file.read_text()))

    async def _save_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            self.save()

    @contextlib.contextmanager
    def _locked(self) -> Any:
        with (self._state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateInUseError(
                    f"another `headway run` uses {self._state}: wait for it, or choose another "
                    "folder with --state"
                ) from None
            yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
