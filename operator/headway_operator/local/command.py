"""`headway run`: a TrainingJob on this machine, by the operator's own code."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from headway_api.contract import ExitCode, pod_name
from headway_operator.cluster.client import ApiError, Invalid, Object
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
from headway_operator.local.session import (
    FAILED,
    INTERRUPTED,
    SUCCEEDED,
    USAGE,
    Session,
    seen,
    stalled,
)
from headway_operator.trainingjob.suspend import PAUSED_AT_STEP

PAUSED = int(ExitCode.PAUSED)


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
    now, such as another number of workers. The exit status is 0 only when it succeeded, and 82 when
    it has paused at `pauseAtStep`.

    Examples:
        headway run -f job.yaml

        headway run -f job.yaml -p lr=0.01 -o json > result.json

        headway run -f job.yaml --storage ./checkpoints --state ./state
    """
    console = Console(stderr=True)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="headway: %(message)s")
    logging.getLogger("headway_operator").setLevel(logging.ERROR)

    def read() -> Manifest:
        overrides = Overrides(storage_uri(storage), endpoint, _parameters(param or []))
        return with_overrides(parse(text_of(file)), overrides)

    try:
        manifest = read()
    except ManifestError as error:
        console.print(f"headway: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    folder = state or Path(".headway") / manifest.job["metadata"]["name"]
    with Display(console, quiet=quiet) as display:
        for note in manifest.notes:
            display.say(f"note: {note}")
        cluster = LocalCluster(folder.absolute())
        follower = _follower(cluster, manifest, display, logs)
        session = Session(cluster, manifest, display, follower, read, _end_of)
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


def text_of(file: str) -> str:
    """The text of a file, or of stdin for `-`.

    Raises:
        ManifestError: it can't be read.
    """
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ManifestError(f"can't read {file}: {why}") from None


def storage_uri(text: str | None) -> str | None:
    """A storage option as a URI: a folder becomes absolute."""
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


def _follower(
    cluster: LocalCluster, manifest: Manifest, display: Display, logs: Logs
) -> LogFollower | None:
    if logs is Logs.none:
        return None
    only = pod_name(manifest.job["metadata"]["name"], 0) if logs is Logs.lead else None
    return LogFollower(cluster.pods_folder, display.say, only)


def _end_of(job: Object, *, interrupted: bool) -> int | None:
    """The exit status that a state means; None while the job goes on."""
    status: dict[str, Any] = job.get("status") or {}
    phase = status.get("phase")
    if phase == "Succeeded":
        return SUCCEEDED
    if phase == "Failed" or stalled(job):
        return FAILED
    if phase == "Suspended" and interrupted:
        return INTERRUPTED
    if phase == "Suspended" and status.get("reason") == PAUSED_AT_STEP and seen(job):
        return PAUSED
    return None


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
    if status.get("reason") == PAUSED_AT_STEP:
        lines.append("  with a larger pauseAtStep, or without, the same command goes on from here")
    elif status.get("phase") == "Suspended":
        lines.append("  the same command goes on from here")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
