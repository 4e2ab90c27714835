"""Follows one kind of object without missing anything: list, watch, and a diff at each relist."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from headway_operator.cluster.client import (
    ApiError,
    KubeClient,
    NotFound,
    Object,
    Resource,
    TooManyRequests,
    Unavailable,
    WatchEvent,
)

Change: TypeAlias = tuple[Literal["ADDED", "MODIFIED", "DELETED"], Object]
Key: TypeAlias = tuple[str | None, str]
"""Namespace and name."""

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 30.0
FAILURES_TO_RELIST: Final = 3
"""Failed watches in a row after which the version to resume from is no longer trusted."""
SHORT_WATCH: Final = 1.0
"""Seconds; a watch that ends sooner with nothing to say counts as a failure."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a reflector's time and chance come from; simulations bring their own.

    Attributes:
        clock: seconds, for `last_activity`.
        sleep: waits between failures.
        jitter: from 0 to 1; spreads clients that failed together.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random


REAL_TIME: Final = Timing()


class Reflector:
    """Calls a handler for every change of a kind, from the first list on.

    Each object's changes come in order and once. A deletion that nobody watched (the API server
    was away, or forgot: 410) is found at the next list and told as DELETED with the last state
    known. Never ends of itself: whatever goes wrong is logged, and tried again after a growing,
    jittered pause.

    Attributes:
        synced: set once the first list has been handled.
        last_activity: `clock` when the API server was last heard of. While all is well it moves
            at least every `watch_seconds`; bookmarks count, but quiet kinds have none.
        watch_seconds: after which the server is asked to end a watch.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        on_event: Callable[[str, Object], None],
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        optional: bool = False,
        watch_seconds: float = 240.0,
        timing: Timing = REAL_TIME,
    ) -> None:
        """Nothing happens before `run`.

        Args:
            client: cluster to ask.
            resource: kind to follow.
            on_event: told "ADDED", "MODIFIED" or "DELETED" and the object (read-only, without
                managed fields); an exception is logged and the event counts as handled.
            namespace: to follow alone; all without.
            label_selector: objects to follow alone.
            optional: whether the cluster may lack the kind: then there are no objects of it, until
                it comes.
            watch_seconds: see above.
            timing: clock, sleep and randomness.
        """
        self.synced = asyncio.Event()
        self.watch_seconds = watch_seconds
        self.last_activity = timing.clock()
        self._client = client
        self._resource = resource
        self._on_event = on_event
        self._namespace = namespace
        self._label_selector = label_selector
        self._optional = optional
        self._timing = timing
        self._known: dict[Key, Object] = {}
        self._version: str | None = None
        self._failures = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            retry_after = 0.0
            try:
                if self._version is None:
                    await self._relist()
                await self._follow()
            except NotFound as error:
                if not self._optional:
                    logger.warning("watching %s: %s", self._resource.plural, error)
                self._lacking()
            except ApiError as error:
                logger.warning("watching %s: %s", self._resource.plural, error)
                self._failed(resume=isinstance(error, Unavailable | TooManyRequests))
                retry_after = error.retry_after or 0.0
            except Exception:
                logger.exception("watching %s: will list it anew", self._resource.plural)
                self._failed(resume=False)
            if self._failures:
                await self._timing.sleep(
                    max(retry_after, backoff(self._failures, self._timing.jitter()))
                )

    def _lacking(self) -> None:
        """The API server does not know the kind, or no longer."""
        if self._optional:
            self._heard()
            for item in list(self._known.values()):
                self._tell(("DELETED", item))
            self.synced.set()
        self._failed(resume=False)

    async def _relist(self) -> None:
        listing = await self._client.list(
            self._resource, namespace=self._namespace, label_selector=self._label_selector
        )
        self._heard()
        for change in relist_changes(self._known, map(without_managed_fields, listing.items)):
            self._tell(change)
        self._version = listing.resource_version
        self.synced.set()

    async def _follow(self) -> None:
        """Hand on one watch's changes until the server ends it."""
        begun, heard_of_any = self._timing.clock(), False
        stream = self._client.watch(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            resource_version=self._version,
            timeout_seconds=self.watch_seconds,
        )
        async with aclosing(stream):
            async for event in stream:
                self._heard()
                heard_of_any, self._failures = True, 0
                for change in watch_changes(self._known, event):
                    self._tell(change)
                self._version = event.object["metadata"]["resourceVersion"]
        self._heard()
        if heard_of_any or self._timing.clock() - begun >= SHORT_WATCH:
            self._failures = 0
        else:
            self._failed(resume=True)

    def _tell(self, change: Change) -> None:
        kind, item = change
        if kind == "DELETED":
            self._known.pop(key_of(item), None)
        else:
            self._known[key_of(item)] = item
        try:
            self._on_event(kind, item)
        except Exception:
            namespace, name = key_of(item)
            logger.exception("handling %s of %s %s/%s", kind, self._resource.kind, namespace, name)

    def _heard(self) -> None:
        self.last_activity = self._timing.clock()

    def _failed(self, *, resume: bool) -> None:
        self._failures += 1
        if not resume or self._failures >= FAILURES_TO_RELIST:
            self._version = None


def relist_changes(known: Mapping[Key, Object], items: Iterable[Object]) -> list[Change]:
    """What must have happened between what was known and a fresh list.

    Deletions come first, so that an object made anew under an old name is DELETED, then ADDED.
    """
    listed = {key_of(item): item for item in items}
    gone: list[Change] = [
        ("DELETED", item)
        for key, item in known.items()
        if key not in listed or _uid(listed[key]) != _uid(item)
    ]
    fresh: list[Change] = []
    for key, item in listed.items():
        held = known.get(key)
        if held is None or _uid(held) != _uid(item):
            fresh.append(("ADDED", item))
        elif _version(item) > _version(held):
            fresh.append(("MODIFIED", item))
    return gone + fresh


def watch_changes(known: Mapping[Key, Object], event: WatchEvent) -> list[Change]:
    """What an event adds to what is known; nothing for bookmarks, repeated and stale ones.

    Versions are compared as numbers, as Kubernetes allows:
    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    if event.type == "BOOKMARK":
        return []
    item = without_managed_fields(event.object)
    held = known.get(key_of(item))
    if held is None:
        return [] if event.type == "DELETED" else [("ADDED", item)]
    if _version(item) <= _version(held):
        return []
    if _uid(item) == _uid(held):
        return [("DELETED" if event.type == "DELETED" else "MODIFIED", item)]
    missed: Change = ("DELETED", held)  # the end of the one that had the name before
    return [missed] if event.type == "DELETED" else [missed, ("ADDED", item)]


def backoff(failures: int, jitter: float) -> float:
    """Seconds to wait after failures in a row; `jitter` from 0 to 1 takes off up to half."""
    return float(min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))) * (1 - jitter / 2)


def without_managed_fields(item: Object) -> Object:
    """An object without the server's book-keeping, which is half of its size."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def key_of(item: Object) -> Key:
    """Namespace and name of an object."""
    return item["metadata"].get("namespace"), item["metadata"]["name"]


def _uid(item: Object) -> str:
    return str(item["metadata"]["uid"])


def _version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])
