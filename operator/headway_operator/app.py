"""Start-up and wiring of the operator in a cluster: nothing is decided here.

A replica serves the endpoint and stands by; with the Lease it also watches and acts. It ends by
ending the process: whatever it was about to do, the next one finds done or does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import NoReturn

from headway_operator import probes, watching
from headway_operator.census import Census
from headway_operator.cluster.client import ApiError
from headway_operator.cluster.kube import KubeApi, connect
from headway_operator.configuration import Configuration
from headway_operator.core import Core
from headway_operator.election import Election, LostLeaseError
from headway_operator.progress.identity import load_or_create
from headway_operator.progress.pki import Identity
from headway_operator.progress.routes import Services
from headway_operator.progress.server import Endpoint
from headway_operator.progress.tokens import ClusterKeySource, TokenVerifier
from headway_operator.resources import (
    CLUSTER_TRAINING_RUNTIME,
    SWEEP,
    SWEEP_RECORD,
    TRAINING_JOB,
    TRAINING_RUNTIME,
)
from headway_operator.settings import Settings

OWN_KINDS = (TRAINING_JOB, TRAINING_RUNTIME, CLUSTER_TRAINING_RUNTIME, SWEEP, SWEEP_RECORD)
STALLED_SECONDS = 120.0
"""Work that does not get done, or a watch that is silent beyond its time, for so long: restart."""
RENEWAL_SECONDS = 6 * 3600.0
"""Between two looks at the endpoint's certificate."""
_RETRY_SECONDS = 2.0
_STOP_SECONDS = 5.0

logger = logging.getLogger(__name__)


class StoppedWorkingError(Exception):
    """A part ended that never should: the process has to start anew."""


async def serve(configuration: Configuration) -> NoReturn:
    """Run one replica until it is told to stop, or has to: then the process ends."""
    try:
        async with connect() as api:
            identity = await _identity(api, configuration)
            replica = Replica(api, configuration, identity)
            replica.handle_signals()
            await replica.run()
    except Exception:
        logger.exception("the operator has failed")
    _leave(1)


class Replica:
    """One process of the operator."""

    def __init__(self, api: KubeApi, configuration: Configuration, identity: Identity) -> None:
        self._api = api
        self._configuration = configuration
        self._identity = identity
        self._stop = asyncio.Event()
        settings = Settings(
            pools=configuration.pools,
            endpoint_url=configuration.endpoint_url,
            endpoint_ca=identity.ca,
            namespaces=configuration.watch_namespaces,
        )
        self._settings = settings
        self._core = Core(api, settings)
        self._census = Census(api.raw_get, OWN_KINDS, settings.namespaces, self._core.observe)
        self._election = Election(
            api,
            configuration.namespace,
            configuration.lease_name,
            configuration.identity(),
            configuration.address,
        )
        services = Services(
            self._core.directory, TokenVerifier(ClusterKeySource(api.raw_get)), identity
        )
        self._endpoint = Endpoint(identity, services, self, server_hostname=configuration.hostname)
        self._acting: asyncio.Task[None] | None = None
        self._acting_since = 0.0

    # --- leadership, as the endpoint asks for it -------------------------------------------------

    def leads(self) -> bool:
        """Whether this replica has the Lease and knows everything."""
        return self._core.acting.is_set() and self._election.leads()

    def leader_address(self) -> str | None:
        """Where the leading replica is, if it is another one."""
        return None if self._election.leads() else self._election.leader_address()

    # --- life ------------------------------------------------------------------------------------

    def handle_signals(self) -> None:
        """Stop in order at SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def run(self) -> NoReturn:
        """Serve, stand by and lead, until told to stop or a part fails.

        Raises:
            OSError: an address is in use.
        """
        here = self._configuration
        registry = self._core.controller.metrics.registry
        async with (
            probes.answering(
                here.bind_address,
                here.probes_port,
                healthy=self._unhealthy,
                ready=self._unready,
                registry=registry,
            ),
            self._endpoint.listening(here.bind_address, here.endpoint_port),
        ):
            parts: list[asyncio.Task[object]] = [
                asyncio.create_task(self._stop.wait()),
                asyncio.create_task(self._lead()),
                asyncio.create_task(self._renew_certificate()),
            ]
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            await self._end([error for task in done if (error := task.exception()) is not None])

    async def _end(self, errors: Sequence[BaseException]) -> NoReturn:
        for error in errors:
            known = isinstance(error, LostLeaseError | StoppedWorkingError)
            logger.error("stopping: %s", error, exc_info=None if known else error)
            if isinstance(error, LostLeaseError):
                _leave(1)  # another may act already: not one write more
        if self._acting is not None:
            self._acting.cancel()
            await asyncio.wait({self._acting}, timeout=_STOP_SECONDS)
        await self._election.release()
        logger.info("stopped")
        _leave(1 if errors else 0)

    async def _lead(self) -> None:
        """Stand by, then lead.

        Raises:
            LostLeaseError: another may lead.
            StoppedWorkingError: a part has ended.
        """
        await self._election.acquire()
        holding = asyncio.create_task(self._election.hold())
        parts = {holding, asyncio.create_task(self._census.wait_for_kinds())}
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        _reraise(done)
        self._acting = asyncio.create_task(self._core.run(self._census.synced))
        self._acting_since = time.monotonic()
        parts = {
            holding,
            self._acting,
            asyncio.create_task(self._census.run(self._settings.resync_seconds)),
            asyncio.create_task(self._watch_own_kinds()),
        }
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        _reraise(done)
        if not self._stop.is_set():
            raise StoppedWorkingError("Kopf has ended by itself")

    async def _watch_own_kinds(self) -> None:
        ready = asyncio.Event()
        kopf = asyncio.create_task(
            watching.watch(OWN_KINDS, self._settings.namespaces, self._census.tell, ready)
        )
        started = asyncio.create_task(ready.wait())
        await asyncio.wait({kopf, started}, return_when=asyncio.FIRST_COMPLETED)
        # Kopf has put its own handlers there; its end would wait for tasks that are not its own.
        self.handle_signals()
        await kopf

    async def _renew_certificate(self) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            identity = await _identity(self._api, self._configuration)
            if (identity.ca, identity.secret) != (self._identity.ca, self._identity.secret):
                raise StoppedWorkingError("the endpoint's identity was replaced")
            self._endpoint.use(identity)

    # --- probes ----------------------------------------------------------------------------------

    def _unhealthy(self) -> Sequence[str]:
        if self._acting is None:
            return ()
        found = []
        stalled = self._core.stalled_seconds()
        if stalled > STALLED_SECONDS:
            found.append(f"jobs wait, and none was finished for {stalled:.0f} s")
        for reflector in self._core.reflectors:
            silent = time.monotonic() - max(reflector.last_activity, self._acting_since)
            if silent > reflector.watch_seconds + STALLED_SECONDS:
                found.append(f"a watch of children is silent for {silent:.0f} s")
        behind = self._census.behind_seconds()
        if behind > STALLED_SECONDS:
            found.append(f"Kopf has not told of a change for {behind:.0f} s")
        return found

    def _unready(self) -> Sequence[str]:
        if self.leads() or self.leader_address() is not None:
            return ()
        if self._election.leads():
            return ("leading; waiting for a first list of all kinds",)
        return ("standing by; no replica leads",)


def _leave(code: int) -> NoReturn:
    """End the process without waiting for tasks (Kopf's, requests of pods).

    Once the Lease is lost or released, nothing that is left here may act.
    """
    logging.shutdown()
    os._exit(code)


def _reraise(done: set[asyncio.Task[None]]) -> None:
    for task in done:
        task.result()


async def _identity(api: KubeApi, configuration: Configuration) -> Identity:
    """The endpoint's identity; waits for an API server that does not answer."""
    while True:
        try:
            return await load_or_create(
                api,
                configuration.namespace,
                configuration.endpoint_secret,
                [configuration.hostname],
            )
        except ApiError as error:
            logger.error(
                "can't read the Secret %s/%s: %s",
                configuration.namespace,
                configuration.endpoint_secret,
                error,
            )
        await asyncio.sleep(_RETRY_SECONDS)
