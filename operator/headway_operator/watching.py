"""The Kopf shell: events of our own kinds in, nothing decided here.

docs/design/watching.md says which settings differ from Kopf's own, and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import kopf

from headway_api.contract import GROUP
from headway_operator.cluster.client import Object, Resource
from headway_operator.cluster.connection import new_connection

Tell = Callable[[Resource, str, Object], None]
"""Takes the kind of object, ADDED, MODIFIED or DELETED, and the object."""

_IDENTITY: Final[Any] = "headway"
"""For peering, which we don't use; Kopf's default needs a user name, and containers have none."""


async def watch(
    kinds: Iterable[Resource], namespaces: tuple[str, ...], tell: Tell, ready: asyncio.Event
) -> None:
    """Run Kopf until cancelled or signalled (it takes over SIGTERM and SIGINT).

    Args:
        kinds: to watch; the API server has to serve them already.
        namespaces: to look at; all when empty.
        tell: called for each event, the first list's included.
        ready: set when Kopf has started.
    """
    await kopf.operator(
        registry=_registry(kinds, tell),
        settings=_settings(),
        standalone=True,
        identity=_IDENTITY,
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=ready,
    )


def _registry(kinds: Iterable[Resource], tell: Tell) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(_log_in)
    for kind in kinds:
        _register(registry, kind, tell)
    return registry


def _register(registry: kopf.OperatorRegistry, resource: Resource, tell: Tell) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)
    async def on_event(event: Any, **_: Any) -> None:
        # Objects of a list come without a type.
        tell(resource, event["type"] or "ADDED", event["object"])


async def _log_in(**_: Any) -> kopf.AiohttpSession:
    """A session like our own client's; Kopf asks for another when its token has expired."""
    connection = await new_connection()
    return kopf.AiohttpSession(server=connection.host, aiohttp_session=await connection.session())


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.scanning.disabled = True
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.2
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = 30
    settings.execution.max_workers = 1
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.diffbase_storage = _NoDiffBase()
    return settings


class _NoDiffBase(kopf.DiffBaseStorage):
    """Kopf copies every object to compare it with the last one it handled; we never ask."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        pass


logging.getLogger("kopf.activities.authentication").setLevel(logging.WARNING)
