"""One invocation: submit or resume what a manifest has, follow it to its end or to Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from headway_operator.cluster.client import AlreadyExists, ApiError, NotFound, Object, Resource
from headway_operator.local.cluster import LocalCluster
from headway_operator.local.logs import LogFollower
from headway_operator.local.manifest import Manifest, ManifestError
from headway_operator.resources import TRAINING_JOB

SUCCEEDED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Shows(Protocol):
    """What a person sees of it."""

    def show(self, item: Mapping[str, Any], /) -> None:
        """Show the latest state."""

    def say(self, text: str, /) -> None:
        """Print a line above the display."""


class EndOf(Protocol):
    """The exit status that a state means."""

    def __call__(self, item: Object, /, *, interrupted: bool) -> int | None:
        """None while it goes on."""


class Session:
    """Runs one object of ours on this machine.

    Args:
        cluster: Of this process.
        manifest: What to run, and what it refers to.
        display: Told each state.
        follower: Shows the pods' logs; None for none.
        read: Reads the manifest anew.
        end_of: The exit status that a state means; None while it goes on.

    Attributes:
        resource: Of what is run.
        last: Its latest state.
        interrupted: Whether Ctrl-C was pressed.
    """

    def __init__(
        self,
        cluster: LocalCluster,
        manifest: Manifest,
        display: Shows,
        follower: LogFollower | None,
        read: Callable[[], Manifest],
        end_of: EndOf,
    ) -> None:
        self._cluster, self._manifest, self._read = cluster, manifest, read
        self._display, self._follower, self._end_of = display, follower, end_of
        self.resource: Resource = manifest.resource
        self.interrupted = False
        self.last: Object = manifest.job

    @property
    def _place(self) -> tuple[str, str]:
        meta = self._manifest.job["metadata"]
        return meta["namespace"], meta["name"]

    async def run(self) -> int:
        """Run to the end; the exit status."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        changed = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, changed.set)
        async with self._cluster.running():
            await self._submit()
            follower = self._follower
            tasks = [asyncio.create_task(follower.run())] if follower else []
            tasks.append(asyncio.create_task(self._suspend_on(stop)))
            tasks.append(asyncio.create_task(self._apply_on(changed)))
            try:
                code = await self._follow()
                if (self.last.get("status") or {}).get("phase") == "Succeeded":
                    # Trials that a sweep has stopped save before their pods end.
                    await self._cluster.kubelet.drained()
            finally:
                for task in tasks:
                    task.cancel()
                if follower:
                    follower.poll()
        return code

    async def _submit(self) -> None:
        client = self._cluster.client
        for resource, item in self._manifest.others:
            name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
            await client.apply(resource, namespace, name, item, field_manager="headway-run")
        try:
            self.last = await client.create(self.resource, self._place[0], self._manifest.job)
        except AlreadyExists:
            await self._resume()

    async def _resume(self) -> None:
        """Go on with what was suspended, or a sweep that has ended, as the manifest has it now."""
        client = self._cluster.client
        known = await client.get(self.resource, *self._place)
        phase = (known.get("status") or {}).get("phase")
        if self.resource == TRAINING_JOB and phase in ("Succeeded", "Failed"):
            self.last = known
            self._display.say(
                f"this job has {phase.lower()} before, see below; to run it anew, delete its "
                "state folder or choose another with --state"
            )
            return
        body = {"spec": {**self._manifest.patch, "suspend": False}}
        self.last = await client.patch(self.resource, *self._place, body)

    async def _apply_on(self, changed: asyncio.Event) -> None:
        """Take over what the manifest says now, as `kubectl apply` would."""
        while True:
            await changed.wait()
            changed.clear()
            try:
                body = {"spec": self._read().patch}
                await self._cluster.client.patch(self.resource, *self._place, body)
            except (ManifestError, ApiError) as error:
                self._display.say(f"headway: {error}")

    async def _suspend_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        stop.clear()
        self.interrupted = True
        self._display.say("suspending with a checkpoint; press Ctrl-C again to stop at once")
        try:
            await self._cluster.client.patch(
                self.resource, *self._place, {"spec": {"suspend": True}}
            )
        except NotFound:
            return
        await stop.wait()
        self._display.say("stopping without waiting")
        await self._cluster.kubelet.stop_all(0)

    async def _follow(self) -> int:
        if (code := self._end_of(self.last, interrupted=self.interrupted)) is not None:
            return code
        stream = self._cluster.client.watch(self.resource, namespace=self._place[0])
        async with aclosing(stream):
            async for event in stream:
                if event.type == "BOOKMARK" or event.object["metadata"]["name"] != self._place[1]:
                    continue
                if event.type != "DELETED":
                    self.last = event.object
                    self._display.show(self.last)
                if (code := self._end_of(self.last, interrupted=self.interrupted)) is not None:
                    return code
                if event.type == "DELETED":
                    return FAILED
        return FAILED


def seen(item: Object) -> bool:
    """Whether the status is about the spec as it is now."""
    status = item.get("status") or {}
    return bool(status.get("observedGeneration") == item["metadata"].get("generation"))


def stalled(item: Object) -> bool:
    """Whether only the user can help: nobody else will change anything on this machine."""
    conditions = (item.get("status") or {}).get("conditions") or ()
    return seen(item) and any(c["type"] == "Stalled" and c["status"] == "True" for c in conditions)
