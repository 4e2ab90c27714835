"""Whether the kernel killed a process of this container for memory.

The kernel's OOM killer takes a worker, not PID 1, so the container itself never reads
`OOMKilled`; the cgroup's counter does tell.
"""

from __future__ import annotations

from pathlib import Path

_V2 = Path("/sys/fs/cgroup/memory.events")
_V1 = Path("/sys/fs/cgroup/memory/memory.oom_control")


def kills() -> int:
    """How many processes of this cgroup were killed for memory so far; 0 where unknown."""
    for path in (_V2, _V1):
        try:
            text = path.read_text()
        except OSError:
            continue
        for line in text.splitlines():
            key, _, value = line.partition(" ")
            if key == "oom_kill" and value.strip().isdigit():
                return int(value)
    return 0
