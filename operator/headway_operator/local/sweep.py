"""`headway sweep run`: a Sweep on this machine, by the operator's own code."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headway_operator.cluster.client import ApiError, Invalid, Object
from headway_operator.local.cluster import LocalCluster, StateInUseError
from headway_operator.local.command import Output, storage_uri, text_of
from headway_operator.local.display import Display, headline
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
from headway_operator.resources import SWEEP

_SHOWN = 12
"""Trials in the live table."""
_STATES = {"Running": "green", "Paused": "yellow", "Stopped": "dim", "Failed": "red"}


def run(
    file: Annotated[str, typer.Option("-f", "--file", help="Manifest of the sweep; - for stdin.")],
    state: Annotated[
        Path | None,
        typer.Option(help="Folder for state, logs and files; by default .headway/NAME."),
    ] = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="json: the final object on stdout.")
    ] = Output.text,
    storage: Annotated[
        str | None, typer.Option(help="Storage URI or folder instead of the template's.")
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="URL of the S3 server instead of the template's.")
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the result.")] = False,
) -> None:
    """Run a Sweep on this machine, its trials as processes.

    The manifest is the one that a cluster takes. **Ctrl-C** suspends the trials with checkpoints;
    the same command goes on with them, and with more trials if `maxTrials` has grown. The exit
    status is 0 only when the sweep succeeded.

    Examples:
        headway sweep run -f sweep.yaml

        headway sweep run -f sweep.yaml --storage ./checkpoints -o json > result.json
    """
    console = Console(stderr=True)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="headway: %(message)s")
    logging.getLogger("headway_operator").setLevel(logging.ERROR)

    def read() -> Manifest:
        return with_overrides(
            parse(text_of(file), SWEEP), Overrides(storage_uri(storage), endpoint)
        )

    try:
        manifest = read()
    except ManifestError as error:
        console.print(f"headway: {error}", style="red", highlight=False, soft_wrap=True)
        raise typer.Exit(USAGE) from None
    folder = state or Path(".headway") / manifest.job["metadata"]["name"]
    with Display(console, quiet=quiet, render=render, headline=line_of) as display:
        for note in manifest.notes:
            display.say(f"note: {note}")
        cluster = LocalCluster(folder.absolute())
        session = Session(cluster, manifest, display, None, read, _end_of)
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


def _end_of(sweep: Object, *, interrupted: bool) -> int | None:
    """The exit status that a state means; None while the sweep goes on.

    One that has ended is not over before its trials are: what runs or waits at a rung is stopped.
    """
    status = sweep.get("status") or {}
    phase, counts = status.get("phase"), status.get("counts") or {}
    if not seen(sweep):
        return None
    if phase in ("Succeeded", "Failed"):
        unfinished = counts.get("running", 0) + counts.get("paused", 0)
        return None if unfinished else {"Succeeded": SUCCEEDED, "Failed": FAILED}[phase]
    if stalled(sweep):
        return FAILED
    return INTERRUPTED if phase == "Suspended" and interrupted else None


# --- what a person sees ---------------------------------------------------------------------------


def line_of(sweep: Mapping[str, Any]) -> str:
    """The state in a line, for where there is no terminal."""
    status = sweep.get("status") or {}
    line = headline(sweep).plain
    best = status.get("best")
    if best and best.get("values"):
        line += (
            f"  {status.get('ended', '')} ended, best {best['values'][0]} (trial {best['index']})"
        )
    return line


def render(sweep: Mapping[str, Any]) -> RenderableType:
    """The sweep as a few lines: phase, how far it is, the newest trials, the best."""
    spec, status = sweep["spec"], sweep.get("status") or {}
    ended, _, most = (status.get("ended") or f"0/{spec['maxTrials']}").partition("/")
    rows = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=int(most), completed=int(ended), width=32)
    rows.add_row("", bar, f"{ended} of {most} trials have ended")
    return Group(headline(sweep), rows, _table(spec, status), *_best(spec, status))


def _table(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("trial", justify="right")
    table.add_column("state")
    table.add_column("step", justify="right")
    for objective in spec["objectives"]:
        table.add_column(objective["metric"], justify="right")
    for trial in (status.get("trials") or [])[-_SHOWN:]:
        values = trial.get("values") or [""] * len(spec["objectives"])
        step = str(trial.get("step") or "")
        colour = _STATES.get(trial["state"], "")
        table.add_row(str(trial["index"]), Text(trial["state"], style=colour), step, *values)
    return table


def _best(spec: Mapping[str, Any], status: Mapping[str, Any]) -> list[Text]:
    """The best trial, or those of the Pareto front, in a line each."""
    lines = []
    for trial in [status["best"]] if status.get("best") else status.get("paretoFront") or []:
        values = ", ".join(
            f"{objective['metric']} {value}"
            for objective, value in zip(spec["objectives"], trial.get("values") or (), strict=False)
        )
        params = "  ".join(f"{k}={v}" for k, v in sorted((trial.get("parameters") or {}).items()))
        lines.append(Text(f"best: trial {trial['index']}  {values}  {params}", style="bold"))
    return lines[:_SHOWN]


def _summary(console: Console, sweep: Object, folder: Path) -> None:
    """What was found, in a few lines."""
    spec, status = sweep["spec"], sweep.get("status") or {}
    counts = status.get("counts") or {}
    console.print(f"{sweep['metadata']['name']}: {status.get('phase', 'unknown')}", highlight=False)
    if status.get("message"):
        console.print(f"  {status['message']}", highlight=False, soft_wrap=True)
    told = [
        f"{counts[name]} {name}"
        for name in ("complete", "stopped", "failed", "paused")
        if counts.get(name)
    ]
    if told:
        console.print(f"  trials: {', '.join(told)}", highlight=False)
    for line in _best(spec, status):
        console.print(Text("  ").append_text(line), soft_wrap=True)
    console.print(f"  logs: {folder / 'pods'}", highlight=False, soft_wrap=True)
    if status.get("phase") == "Suspended":
        console.print("  the same command goes on from here")
