"""Processes that lost their parent: as PID 1 (or a subreaper) the agent inherits them all."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_SECONDS = 2.0
awaited: set[int] = set()
"""Children whose end somebody in this process waits for."""
_ROUNDS, _ROUND_SECONDS = 50, 0.02


def _parent_and_state(pid: int) -> tuple[int, str]:
    stat = Path(f"/proc/{pid}/stat").read_text()
    state, parent = stat.rsplit(")", 1)[1].split()[:2]
    return int(parent), state


@contextlib.asynccontextmanager
async def reaped() -> AsyncIterator[None]:
    """Become the reaper of all descendants, for as long as the context lasts.

    What is in `awaited` is asyncio's to collect; of the rest, what is still a zombie on two visits
    in a row was left behind by somebody.
    """
    if sys.platform != "linux":
        yield
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    task = asyncio.create_task(_reap_for_ever())
    try:
        yield
    finally:
        task.cancel()


def kill(spare: Collection[int] = (), families: Collection[int] = ()) -> None:
    """Kill every descendant: what workers have left behind would hold ports, memory and GPUs.

    Args:
        spare: Processes of our own that go on; their children do not.
        families: Processes that go on with all that they have started.
    """
    # A process that is being killed may just have started another: look until none is left.
    for _ in range(_ROUNDS if sys.platform == "linux" else 0):
        parents = _parents()
        kept = {pid for root in families for pid in (root, *_descendants(root, parents))}
        doomed = _descendants(os.getpid(), parents) - set(spare) - kept
        if not doomed:
            return
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_SECONDS)


def _descendants(root: int, parents: Mapping[int, tuple[int, str]]) -> set[int]:
    """Live processes below `root`, given each process's parent and state."""
    below = {root}
    while more := {p for p, (parent, _) in parents.items() if parent in below} - below:
        below |= more
    return {pid for pid in below - {root} if parents[pid][1] != "Z"}


def _parents() -> dict[int, tuple[int, str]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                found[int(entry.name)] = _parent_and_state(int(entry.name))
    return found


def _zombies() -> set[int]:
    me = os.getpid()
    return {pid for pid, (parent, state) in _parents().items() if parent == me and state == "Z"}


async def _reap_for_ever() -> None:
    before: set[int] = set()
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        now = await asyncio.to_thread(_zombies)
        for pid in (before & now) - awaited:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (WNOHANG returns at once)
        before = now
