"""The operator without its shell: cache, controller and the watches that feed them.

The same in a cluster and in local mode; what differs is the client, and who watches our own
kinds (Kopf in a cluster, a reflector like that of the pods in local mode).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from headway_api.contract import LABEL_JOB
from headway_operator.cache import Cache
from headway_operator.cluster.client import NODE, POD, KubeClient, Object, Resource
from headway_operator.controller import Controller
from headway_operator.metrics import Metrics
from headway_operator.progress.directory import CachedDirectory
from headway_operator.reflector import Reflector
from headway_operator.resources import RESOURCE_FLAVOR, SWEEP, SWEEP_RECORD, WORKLOAD
from headway_operator.settings import Settings
from headway_operator.sweep.chooser import ProcessChooser
from headway_operator.sweep.controller import SweepController


class Core:
    """Everything that decides, and the watches of children.

    Args:
        client: The cluster.
        settings: Of the operator.
        metrics: Where it counts.
        own_kinds: Kinds of ours to watch by reflectors; the others are fed by `observe`.

    Attributes:
        acting: Set once everything is known, and the controller works.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        own_kinds: Iterable[Resource] = (),
    ) -> None:
        self.cache = Cache()
        metrics = metrics or Metrics()
        self.controller = Controller(client, self.cache, settings, metrics=metrics)
        self.sweeps = SweepController(client, settings, metrics, ProcessChooser())
        self.directory = CachedDirectory(self.cache, self.controller)
        self.acting = asyncio.Event()
        self._client = client
        self._namespaces = settings.namespaces
        self.reflectors = [one for kind in own_kinds for one in self._follow(kind)]
        self.reflectors += [*self._follow(POD, LABEL_JOB), *self._follow(NODE)]
        if settings.queues:
            self.reflectors += self._follow(WORKLOAD, LABEL_JOB, optional=True)
            self.reflectors += self._follow(RESOURCE_FLAVOR, optional=True)

    def _follow(
        self, resource: Resource, selector: str | None = None, *, optional: bool = False
    ) -> Iterator[Reflector]:
        def observe(kind: str, item: Object) -> None:
            self.observe(resource, kind, item)

        for namespace in self._namespaces if resource.namespaced and self._namespaces else (None,):
            yield Reflector(
                self._client,
                resource,
                observe,
                namespace=namespace,
                label_selector=selector,
                optional=optional,
            )

    def observe(self, resource: Resource, kind: str, item: Object) -> None:
        """Take in one change: ADDED, MODIFIED or DELETED."""
        if resource not in {SWEEP, SWEEP_RECORD}:
            self.controller.observe(resource, kind, item)
        self.sweeps.observe(resource, kind, item)

    def stalled_seconds(self) -> float:
        """How long there has been work and none of it was finished: for the liveness probe."""
        return max(self.controller.stalled_seconds(), self.sweeps.stalled_seconds())

    async def run(self, *ready: asyncio.Event) -> None:
        """Watch and act until cancelled.

        Args:
            ready: Further conditions before anything is decided: a kind that is not listed yet
                would make its objects look lost.
        """
        async with asyncio.TaskGroup() as tasks:
            for reflector in self.reflectors:
                tasks.create_task(reflector.run())
            for event in (*ready, *(reflector.synced for reflector in self.reflectors)):
                await event.wait()
            self.acting.set()
            tasks.create_task(self.controller.run())
            tasks.create_task(self.sweeps.run())
