"""What the end of a worker process means, in words."""

from __future__ import annotations

from datetime import UTC, datetime

from headway.agent.hints import hint
from headway.agent.wire import Message
from headway_api.contract import ExitCode
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


def describe(index: int, ended: Message) -> RestartReport:
    """Turn a node's report of an ended worker into a culprit for status and Events.

    Args:
        index: Index of the worker pod.
        ended: The `exit` message of `node`.
    """
    rank, code, tail = int(ended["rank"]), int(ended["code"]), last_lines(str(ended["tail"]))
    who = f"rank {rank} on worker {index}"
    # The cause can stand before a long traceback.
    cause = hint(str(ended["signal"]), str(ended["tail"]), ended.get("absent") or ())
    if ended["oom"]:
        reason, what = "OOMKilled", f"{who} was killed because the container is out of memory"
    elif ended["signal"]:
        reason, what = "Signal", f"{who} was killed by {ended['signal']}{cause}"
    elif code == ExitCode.CONFIG:
        reason, what = "ConfigurationError", f"{who} can't work"
    else:
        reason, what = "Error", f"{who} exited with code {code}{cause}"
    return RestartReport(
        time=utc(float(ended["time"])),
        reason=reason,
        worker=index,
        rank=rank,
        exit_code=code,
        message=f"{what}\nits last output:\n{tail}" if tail else what,
    )
