"""The endpoint's view of the operator: the cache to read, the controller to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress

from headway_api.messages import ProgressReport
from headway_operator.cache import Cache
from headway_operator.cluster.client import Object
from headway_operator.controller import Controller
from headway_operator.trainingjob.view import Pod


class CacheDirectory:
    """`progress.directory.Directory` over one operator's cache and controller."""

    def __init__(self, cache: Cache, controller: Controller) -> None:
        self._cache = cache
        self._controller = controller

    def job(self, namespace: str, name: str) -> Object | None:
        """The TrainingJob, or None where there is none of this name."""
        return self._cache.job((namespace, name))

    def pods(self, namespace: str, name: str) -> Sequence[Pod]:
        """The pods labelled with this job's name, in any state."""
        return self._cache.pods((namespace, name))

    def wait_changed(self, namespace: str, name: str, timeout: float) -> Awaitable[None]:
        """Return when the job or one of its pods has changed, or after `timeout` seconds."""
        # The future exists from this call on, so that no change is missed before it is awaited.
        return _no_longer_than(self._cache.changed((namespace, name)), timeout)

    def report(self, namespace: str, name: str) -> ProgressReport | None:
        """The latest report of this job that was recorded, if any is remembered."""
        return self._controller.latest_progress((namespace, name))

    def record(self, namespace: str, name: str, report: ProgressReport) -> None:
        """Take over a report of the job's lead."""
        self._controller.record_progress((namespace, name), report)


async def _no_longer_than(future: asyncio.Future[None], seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(future, seconds)
