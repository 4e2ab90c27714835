"""All that the endpoint knows of the operator around it."""

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import Protocol

from headway_api.messages import ProgressReport
from headway_operator.cache import Cache
from headway_operator.cluster.client import Object
from headway_operator.controller import Controller
from headway_operator.trainingjob.view import Pod


class Directory(Protocol):
    """Jobs and pods as the operator's cache has them, and where reports go.

    Objects are read-only. Nothing here calls the API server.
    """

    def job(self, namespace: str, name: str) -> Object | None:
        """The TrainingJob, or None where there is none of this name."""
        ...

    def pods(self, namespace: str, name: str) -> Sequence[Pod]:
        """The pods labelled with this job's name, in any state."""
        ...

    def wait_changed(self, namespace: str, name: str, timeout: float) -> Awaitable[None]:
        """Return when the job or one of its pods has changed, or after `timeout` seconds.

        A change after the call is not missed, even before the result is awaited for the first
        time. Waking without a change is harmless.
        """
        ...

    def report(self, namespace: str, name: str) -> ProgressReport | None:
        """The latest report of this job that was recorded, if any is remembered."""
        ...

    def record(self, namespace: str, name: str, report: ProgressReport) -> None:
        """Take over a report of the job's lead. Returns at once."""
        ...

    def heard(
        self, namespace: str, name: str, uid: str, silent: Collection[str] | None = None
    ) -> None:
        """Take note that a pod speaks, and of all its peers that it says it hears nothing of."""
        ...


class CachedDirectory:
    """The directory of a replica that leads."""

    def __init__(self, cache: Cache, controller: Controller) -> None:
        self._cache = cache
        self._controller = controller

    def job(self, namespace: str, name: str) -> Object | None:
        """See `Directory`."""
        return self._cache.job((namespace, name))

    def pods(self, namespace: str, name: str) -> Sequence[Pod]:
        """See `Directory`."""
        return self._cache.pods((namespace, name))

    def wait_changed(self, namespace: str, name: str, timeout: float) -> Awaitable[None]:
        """See `Directory`."""
        return _within(self._cache.changed((namespace, name)), timeout)

    def report(self, namespace: str, name: str) -> ProgressReport | None:
        """See `Directory`."""
        return self._controller.latest_progress((namespace, name))

    def record(self, namespace: str, name: str, report: ProgressReport) -> None:
        """See `Directory`."""
        self._controller.record_progress((namespace, name), report)

    def heard(
        self, namespace: str, name: str, uid: str, silent: Collection[str] | None = None
    ) -> None:
        """See `Directory`."""
        self._controller.heard((namespace, name), uid, silent)


class Leadership(Protocol):
    """Which replica of the operator holds the lease."""

    def leads(self) -> bool:
        """Whether it is this one, with a directory that is complete."""
        ...

    def leader_address(self) -> str | None:
        """`https://<ip>:<port>` of the replica that leads; None while that is unknown."""
        ...


class AlwaysLeads:
    """The only operator there is, as in local mode."""

    def leads(self) -> bool:
        """True."""
        return True

    def leader_address(self) -> None:
        """None: there is no other."""


async def _within(change: asyncio.Future[None], timeout: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(change, timeout)
