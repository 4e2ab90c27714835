"""What Kopf tells of our own kinds, compared with what the API server has.

Kopf keeps no store to compare a new list with, so what is deleted while its watch is broken is
never told, and nothing says when its first list is through. Both are answered here, by a list of
names and versions only; docs/design/watching.md has the reasons.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import orjson

from headway_operator.cluster.client import ApiError, NotFound, Object, Resource
from headway_operator.cluster.kube import PAGE, path_of
from headway_operator.reflector import Key, key_of, relist_changes

METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_RECHECK: Final = 10.0
"""Seconds between two looks while something has not been told."""

Known = dict[Key, Object]
Wanted = tuple[str, int]
"""UID and version."""

logger = logging.getLogger(__name__)


class RawGet(Protocol):
    """Reads a path of the API server, as `KubeApi.raw_get` does."""

    async def __call__(
        self, path: str, *, query: Mapping[str, str | None] | None = None, accept: str = "*/*"
    ) -> bytes:
        """The body of the answer."""
        ...


class Census:
    """Hands on what Kopf tells, and finds out what it did not tell.

    Args:
        raw_get: reads a path of the API server.
        kinds: our own.
        namespaces: to look at; all when empty.
        observe: takes each change.
        clock: monotonic seconds.

    Attributes:
        synced: set once everything that existed at the start has been told.
    """

    def __init__(
        self,
        raw_get: RawGet,
        kinds: Iterable[Resource],
        namespaces: tuple[str, ...],
        observe: Callable[[Resource, str, Object], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.synced = asyncio.Event()
        self._raw_get = raw_get
        self._known: dict[Resource, Known] = {kind: {} for kind in kinds}
        self._namespaces = namespaces
        self._observe = observe
        self._clock = clock
        self._behind: dict[tuple[Resource, Key], tuple[float, Wanted]] = {}

    def tell(self, resource: Resource, kind: str, item: Object) -> None:
        """Take in one event of Kopf."""
        known, key = self._known[resource], key_of(item)
        if kind != "DELETED":
            known[key] = _identity(item)
        elif key in known and _wanted(known[key])[0] == item["metadata"]["uid"]:
            del known[key]
        self._observe(resource, kind, item)

    def behind_seconds(self) -> float:
        """For how long the oldest change has not been told, as far as is known."""
        since = [since for since, _ in self._behind.values()]
        return self._clock() - min(since) if since else 0.0

    async def wait_for_kinds(self) -> None:
        """Wait until the API server serves our kinds: Kopf looks for them only once."""
        pause = _FIRST_PAUSE
        while True:
            try:
                for kind in self._known:
                    await self._list(kind)
                return
            except NotFound:
                logger.error(
                    "the API server does not know %s: install the CRDs with "
                    "`kubectl apply --server-side -f charts/headway/crds/`; waiting for them",
                    kind.kind,
                )
            except ApiError as error:
                logger.error("can't list %s: %s", kind.plural, error)
            pause = min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def run(self, period: float) -> None:
        """Compare until cancelled.

        Args:
            period: seconds between two comparisons, once all is in step.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                await self.compare()
            except ApiError as error:
                logger.warning("can't compare with the API server: %s", error)
            else:
                if not self._behind and not self.synced.is_set():
                    logger.info("all TrainingJobs and runtimes are known")
                    self.synced.set()
            pause = min(2 * pause, _LONGEST_PAUSE)
            in_step = _RECHECK if self._behind else period
            await asyncio.sleep(in_step if self.synced.is_set() else pause)

    async def compare(self) -> None:
        """Tell of deletions that were missed; note what has not been told yet."""
        behind = {}
        for resource, known in self._known.items():
            before = dict(known)
            for kind, item in relist_changes(before, await self._list(resource)):
                key = key_of(item)
                if kind == "DELETED":
                    if known.get(key) is before[key]:  # not told or made anew meanwhile
                        logger.warning("%s %s/%s was deleted unseen", resource.kind, *key)
                        self.tell(resource, kind, item)
                elif not _is_told(known.get(key), _wanted(item)):
                    behind[resource, key] = (self._clock(), _wanted(item))
        for (resource, key), entry in self._behind.items():
            if (resource, key) in behind and not _is_told(self._known[resource].get(key), entry[1]):
                behind[resource, key] = entry
        self._behind = behind

    async def _list(self, resource: Resource) -> list[Object]:
        found: list[Object] = []
        for namespace in (self._namespaces if resource.namespaced else ()) or (None,):
            query: dict[str, str | None] = {"limit": str(PAGE)}
            while True:
                page = orjson.loads(
                    await self._raw_get(
                        path_of(resource, namespace), query=query, accept=METADATA_ONLY
                    )
                )
                found += map(_identity, page["items"] or ())
                if not page["metadata"].get("continue"):
                    break
                query["continue"] = page["metadata"]["continue"]
        return found


def _identity(item: Object) -> Object:
    """What tells one state of an object from another, and what a deletion needs."""
    metadata = item["metadata"]
    fields = ("name", "namespace", "uid", "resourceVersion")
    return {"metadata": {name: metadata[name] for name in fields if name in metadata}}


def _wanted(item: Object) -> Wanted:
    return item["metadata"]["uid"], int(item["metadata"]["resourceVersion"])


def _is_told(known: Object | None, wanted: Wanted) -> bool:
    """Whether Kopf has told of this state of an object, or of a later object of its name."""
    if known is None:
        return False
    # Versions grow across objects, too: a namesake made later has a higher one.
    return _wanted(known)[1] >= wanted[1]
