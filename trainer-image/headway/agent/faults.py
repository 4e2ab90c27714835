"""What the end of a worker process means, in words."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime

from headway.agent.wire import Message
from headway_api.contract import SHM_DIR, ExitCode
from headway_api.messages import RestartReport

_TAIL_LINES = 12
_LONGEST = 1800
"""Characters of a message: with the rest it must fit the 4096 bytes of a termination log."""


def last_lines(tail: str) -> str:
    """The last lines of an output, short enough for a status."""
    return "\n".join(tail.splitlines()[-_TAIL_LINES:])[-_LONGEST:]


def utc(seconds: float) -> str:
    """RFC 3339 with seconds, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_SHM_IS_FULL = re.compile(r"shared memory ?\(shm\)|Bus error")
"""What torch writes when a loader process finds no room for a batch."""


def _hint(signal: str, tail: str) -> str:
    """What usually causes it, where a user can't guess that."""
    if signal != "SIGBUS" and not _SHM_IS_FULL.search(tail):
        return ""
    room = shutil.disk_usage(SHM_DIR).total // 2**20
    return (
        f": shared memory is full ({SHM_DIR} has {room} MiB). Raise spec.pod.sharedMemory (outside "
        f"Kubernetes: docker run --shm-size), or use fewer loader workers"
    )


def describe(index: int, ended: Message) -> RestartReport:
    """Turn a node's report of an ended worker into a culprit for status and Events.

    Args:
        index: Index of the worker pod.
        ended: The `exit` message of `node`.
    """
    rank, code, tail = int(ended["rank"]), int(ended["code"]), last_lines(str(ended["tail"]))
    who = f"rank {rank} on worker {index}"
    if ended["oom"]:
        reason, what = "OOMKilled", f"{who} was killed because the container is out of memory"
    elif ended["signal"]:
        reason, what = (
            "Signal",
            f"{who} was killed by {ended['signal']}{_hint(ended['signal'], tail)}",
        )
    elif code == ExitCode.CONFIG:
        reason, what = "ConfigurationError", f"{who} can't work"
    else:
        reason, what = "Error", f"{who} exited with code {code}{_hint('', tail)}"
    return RestartReport(
        time=utc(float(ended["time"])),
        reason=reason,
        worker=index,
        rank=rank,
        exit_code=code,
        message=f"{what}\nits last output:\n{tail}" if tail else what,
    )
