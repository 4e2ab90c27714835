"""Reaping: as PID 1 (or a subreaper) the agent inherits every process that lost its parent."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_EVERY_SECONDS = 2.0


def _parent_and_state(pid: int) -> tuple[int, str]:
    stat = Path(f"/proc/{pid}/stat").read_text()
    state, parent = stat.rsplit(")", 1)[1].split()[:2]
    return int(parent), state


@contextlib.asynccontextmanager
async def reaped() -> AsyncIterator[None]:
    """Become the reaper of all descendants, for as long as the context lasts.

    Workers are asyncio's children: it collects them within milliseconds, so that what is still
    a zombie on two visits in a row was left behind by somebody else.
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


def _zombies() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent, state = _parent_and_state(int(entry.name))
        except (OSError, ValueError):
            continue
        if parent == os.getpid() and state == "Z":
            found.add(int(entry.name))
    return found


async def _reap_for_ever() -> None:
    before: set[int] = set()
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        now = await asyncio.to_thread(_zombies)
        for pid in before & now:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 (WNOHANG returns at once)
        before = now
