"""What a person sees of a running job in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_COLOURS = {
    "Running": "green",
    "Succeeded": "bold green",
    "Failed": "bold red",
    "Restarting": "yellow",
    "Suspended": "yellow",
}


def headline(job: Mapping[str, Any]) -> Text:
    """Name and phase in one line, with the reason where there is one."""
    status = job.get("status") or {}
    phase = status.get("phase", "Pending")
    line = Text(f"{job['metadata']['name']}  ", style="bold")
    line.append(phase, style=_COLOURS.get(phase, ""))
    if status.get("ready") and phase not in ("Succeeded", "Failed"):
        line.append(f"  {status['ready']} ready")
    if phase not in ("Running", "Succeeded") and status.get("message"):
        line.append(f"  {status['message'].splitlines()[0][:120]}", style="dim")
    return line


def eta(seconds: int) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def render(job: Mapping[str, Any]) -> RenderableType:
    """The job as a few lines: phase, progress, metrics, checkpoint, restarts."""
    status = job.get("status") or {}
    progress = status.get("progress") or {}
    rows = Table.grid(padding=(0, 1))
    if progress.get("step") is not None:
        total = progress.get("totalSteps")
        text = f"step {progress['step']}" + (f" of {total}" if total else "")
        if progress.get("etaSeconds") is not None and status.get("phase") == "Running":
            text += f", {eta(progress['etaSeconds'])} left"
        bar = ProgressBar(total=total or 1, completed=progress["step"] if total else 0, width=32)
        rows.add_row("", bar, text)
    metrics = progress.get("metrics") or {}
    if metrics:
        rows.add_row("", Text("  ".join(f"{k} {v}" for k, v in sorted(metrics.items()))), "")
    checkpoint = status.get("checkpoint") or {}
    if checkpoint.get("step") is not None:
        rows.add_row("", Text(f"checkpoint at step {checkpoint['step']}", style="dim"), "")
    restarts = status.get("restarts") or {}
    if restarts.get("total"):
        last = restarts.get("last") or {}
        why = (last.get("message") or last.get("reason") or "").splitlines()
        count = restarts["total"]
        line = f"{count} restart{'s' if count > 1 else ''}, the last: {why[0] if why else ''}"
        rows.add_row("", Text(line[:140], style="yellow"), "")
    return Group(headline(job), rows)


class Display:
    """Follows an object on the terminal; without one, prints a line each time that it differs.

    Args:
        console: Where.
        quiet: Whether nothing is shown.
        render: What is shown of a state.
        headline: The same in a line.
    """

    def __init__(
        self,
        console: Console,
        *,
        quiet: bool,
        render: Callable[[Mapping[str, Any]], RenderableType] = render,
        headline: Callable[[Mapping[str, Any]], str] = lambda job: headline(job).plain,
    ) -> None:
        self._console = console
        self._quiet = quiet
        self._render = render
        self._headline = headline
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._line = ""

    def __enter__(self) -> Display:
        if self._fancy:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._fancy:
            self._live.stop()

    @property
    def _fancy(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def show(self, job: Mapping[str, Any]) -> None:
        """Show the latest state."""
        if self._quiet:
            return
        if self._fancy:
            self._live.update(self._render(job))
            return
        line = self._headline(job)
        if line != self._line:
            self._line = line
            self._console.print(line, highlight=False)

    def say(self, text: str) -> None:
        """Print a line above the display."""
        if not self._quiet:
            self._console.print(Text.from_ansi(text), highlight=False, soft_wrap=True)
