"""`headway run`: a TrainingJob on this machine, by the operator's own code."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headway_api.contract import pod_name
from headway_operator.cluster.client import AlreadyExists, ApiError, Invalid, NotFound, Object
from headway_operator.local.cluster import LocalCluster, StateInUseError
from headway_operator.local.display import Display
from headway_operator.local.logs import LogFollower
from headway_operator.local.manifest import (
    Manifest,
    ManifestError,
    Overrides,
    parse,
    with_overrides,
)
from headway_operator.resources import TRAINING_JOB

SUCCEEDED, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Output(StrEnum):
    """Formats of the result."""

    text = "text"
    json = "json"


class Logs(StrEnum):
    """Whose output is shown."""

    all = "all"
    lead = "lead"
    none = "none"


def run(
    file: Annotated[str, typer.Option("-f", "--file", help="Manifest of the job; - for stdin.")],
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for the job's state, logs and files; by default .headway/NAME."),
    ] = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="json: the final object on stdout.")
    ] = Output.text,
    logs: Annotated[Logs, typer.Option(help="Whose output to show.")] = Logs.lead,
    storage: Annotated[
        str | None, typer.Option(help="Storage URI or folder instead of the manifest's.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of the S3 server instead of the manifest's.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("-p", "--param", help="NAME=VALUE of a parameter.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the result.")] = False,
) -> None:
    """Run a TrainingJob on this machine.

    The manifest is the one that a cluster takes: the same operator runs it, on an API server in
    memory, with pods as processes. `image` is not needed. **Ctrl-C** suspends the job with a
    checkpoint; the same command goes on with it. **SIGHUP** has it take over what the manifest says
    now, such as another number of workers. The exit status is 0 only when it succeeded.

    Examples:
        headway run -f job.yaml

        headway run -f job.yaml -p lr=0.01 -o json > result.json

        headway run -f job.yaml --storage ./checkpoints --state ./state
    """
    console = Console(stderr=True)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="headway: %(message)s")
    logging.getLogger("headway_operator").setLevel(logging.ERROR)

    def read() -> Manifest:
        overrides = Overrides(_storage_uri(storage), endpoint, _parameters(param or []))
        return with_overrides(parse(_text(file)), overrides)

    try:
        manifest = read()
    except ManifestError as error:
        console.print(f"headway: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    folder = state or Path(".headway") / manifest.job["metadata"]["name"]
    with Display(console, quiet=quiet) as display:
        for note in manifest.notes:
            display.say(f"note: {note}")
        session = _Session(LocalCluster(folder.absolute()), manifest, display, logs, read)
        try:
            code = asyncio.run(session.run())
        except (Invalid, StateInUseError) as error:
            text = error.message if isinstance(error, ApiError) else str(error)
            display.say(f"headway: {text}")
            raise typer.Exit(USAGE) from None
    if output is Output.json:
        sys.stdout.write(json.dumps(session.last, indent=2) + "\n")
    elif not quiet:
        _summary(console, session.last, folder)
    raise typer.Exit(code)


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ManifestError(f"can't read {file}: {why}") from None


def _storage_uri(text: str | None) -> str | None:
    if text is None or "://" in text:
        return text
    return str(Path(text).absolute())


def _parameters(pairs: list[str]) -> dict[str, str]:
    parameters = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not (name and separator):
            raise ManifestError(f"--param {pair}: write NAME=VALUE")
        parameters[name] = value
    return parameters


class _Session:
    """One invocation: submit or resume the job, follow it to its end or to Ctrl-C."""

    def __init__(
        self,
        cluster: LocalCluster,
        manifest: Manifest,
        display: Display,
        logs: Logs,
        read: Callable[[], Manifest],
    ) -> None:
        self._cluster, self._manifest, self._read = cluster, manifest, read
        self._display, self._logs = display, logs
        self._interrupted = False
        self.last: Object = manifest.job

    @property
    def _place(self) -> tuple[str, str]:
        meta = self._manifest.job["metadata"]
        return meta["namespace"], meta["name"]

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        changed = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, changed.set)
        async with self._cluster.running():
            await self._submit()
            follower = self._log_follower()
            tasks = [asyncio.create_task(follower.run())] if follower else []
            tasks.append(asyncio.create_task(self._suspend_on(stop)))
            tasks.append(asyncio.create_task(self._apply_on(changed)))
            try:
                code = await self._follow()
            finally:
                for task in tasks:
                    task.cancel()
                if follower:
                    follower.poll()
        return code

    def _log_follower(self) -> LogFollower | None:
        if self._logs is Logs.none:
            return None
        only = pod_name(self._place[1], 0) if self._logs is Logs.lead else None
        return LogFollower(self._cluster.pods_folder, self._display.say, only)

    async def _submit(self) -> None:
        client = self._cluster.client
        for resource, item in self._manifest.others:
            name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
            await client.apply(resource, namespace, name, item, field_manager="headway-run")
        try:
            self.last = await client.create(TRAINING_JOB, self._place[0], self._manifest.job)
        except AlreadyExists:
            await self._resume()

    async def _resume(self) -> None:
        """Go on with a suspended job, with what the manifest has changed since."""
        client = self._cluster.client
        known = await client.get(TRAINING_JOB, *self._place)
        phase = (known.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            self.last = known
            self._display.say(
                f"this job has {phase.lower()} before, see below; to run it anew, delete its "
                "state folder or choose another with --state"
            )
            return
        body = {"spec": {**self._manifest.job["spec"], "suspend": False}}
        self.last = await client.patch(TRAINING_JOB, *self._place, body)

    async def _apply_on(self, changed: asyncio.Event) -> None:
        """Take over what the manifest says now, as `kubectl apply` would."""
        while True:
            await changed.wait()
            changed.clear()
            try:
                spec = self._read().job["spec"]
                await self._cluster.client.patch(TRAINING_JOB, *self._place, {"spec": spec})
            except (ManifestError, ApiError) as error:
                self._display.say(f"headway: {error}")

    async def _suspend_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        stop.clear()
        self._interrupted = True
        self._display.say("suspending with a checkpoint; press Ctrl-C again to stop at once")
        try:
            await self._cluster.client.patch(
                TRAINING_JOB, *self._place, {"spec": {"suspend": True}}
            )
        except NotFound:
            return
        await stop.wait()
        self._display.say("stopping without waiting")
        for pod in self._cluster.core.cache.pods(self._place):
            local = self._cluster.kubelet.pod(pod.uid)
            if local is not None:
                await local.stop(0)

    async def _follow(self) -> int:
        if (code := self._end_of(self.last)) is not None:
            return code
        stream = self._cluster.client.watch(TRAINING_JOB, namespace=self._place[0])
        async with aclosing(stream):
            async for event in stream:
                if event.type == "BOOKMARK" or event.object["metadata"]["name"] != self._place[1]:
                    continue
                if event.type != "DELETED":
                    self.last = event.object
                    self._display.show(self.last)
                if (code := self._end_of(self.last)) is not None:
                    return code
                if event.type == "DELETED":
                    return FAILED
        return FAILED

    def _end_of(self, job: Object) -> int | None:
        status: dict[str, Any] = job.get("status") or {}
        phase = status.get("phase")
        if phase == "Succeeded":
            return SUCCEEDED
        if phase == "Failed" or _stalled(status, job):
            return FAILED
        if phase == "Suspended" and self._interrupted:
            return INTERRUPTED
        return None


def _stalled(status: dict[str, Any], job: Object) -> bool:
    """Whether only the user can help: nobody else will change anything on this machine."""
    current = status.get("observedGeneration") == job["metadata"].get("generation")
    return current and any(
        c["type"] == "Stalled" and c["status"] == "True" for c in status.get("conditions") or ()
    )


def _summary(console: Console, job: Object, folder: Path) -> None:
    """What happened, in a few lines."""
    status = job.get("status") or {}
    progress, checkpoint = status.get("progress") or {}, status.get("checkpoint") or {}
    restarts = status.get("restarts") or {}
    lines = [f"{job['metadata']['name']}: {status.get('phase', 'unknown')}"]
    if status.get("phase") != "Succeeded" and status.get("message"):
        message = status["message"].replace("\n", "\n" + 14 * " ")
        lines.append(f"  why         {message}")
    if progress.get("step") is not None:
        total = progress.get("totalSteps")
        lines.append(f"  steps       {progress['step']}" + (f" of {total}" if total else ""))
    for name, value in sorted((progress.get("metrics") or {}).items()):
        lines.append(f"  {name:<11} {value}")
    if restarts.get("total"):
        last = (restarts.get("last") or {}).get("message", "")
        lines.append(f"  restarts    {restarts['total']}; the last: {last.splitlines()[0]}")
    if checkpoint.get("resumedFromStep") is not None:
        lines.append(f"  resumed     from step {checkpoint['resumedFromStep']}")
    if checkpoint.get("uri"):
        lines.append(f"  checkpoint  {checkpoint['uri']}")
    lines.append(f"  logs        {folder / 'pods'}")
    if status.get("phase") == "Suspended":
        lines.append("  the same command goes on from here")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
