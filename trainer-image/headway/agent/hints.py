"""What usually causes a failure, where a user can't guess that from its output."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Sequence

from headway_api.contract import SHM_DIR

_SHM_IS_FULL = re.compile(r"shared memory ?\(shm\)|Bus error")
"""What torch writes when a loader process finds no room for a batch."""
_NO_HOROVOD = re.compile(r"No module named '?horovod")
_OTHER_HOROVOD = re.compile(
    r"Extension horovod\.torch has not been built"
    r"|horovod[^\n]*undefined symbol|undefined symbol[^\n]*horovod"
    r"|mpi_lib_v2[^\n]*(?:undefined symbol|cannot open shared object)"
)
_NOBODY_CAME = re.compile(r"Wait timeout after \d+ seconds for key|Connect timeout|timed out.*gloo")
_SHUT_DOWN = "Horovod has been shut down"
"""What every rank says when another one, or the stall check, has ended Horovod."""
_STALLED = re.compile(
    r"Missing ranks:\n(?P<missing>(?:(?!Missing ranks:)[^\n]*\n)+)"
    r"One or more rank \(marked by \"!\"\) is stalled for longer than (?P<seconds>\d+) seconds"
)
_MISSING = re.compile(r"^(\d+)!: \[([^\]\n]*)\]", re.MULTILINE)


def is_echo(tail: str) -> bool:
    """Whether this is the end of a process of Horovod that only another one knows the cause of."""
    return _SHUT_DOWN in tail and not _STALLED.search(tail)


def hint(signal: str, tail: str, absent: Collection[int] = ()) -> str:
    """The cause, to be put behind what happened; empty if there is nothing to say.

    Args:
        signal: Name of the signal that ended the process, or empty.
        tail: The end of its output.
        absent: Ranks of a Horovod job that had not come to `hvd.init()` by then.
    """
    if signal == "SIGBUS" or _SHM_IS_FULL.search(tail):
        room = shutil.disk_usage(SHM_DIR).total // 2**20
        return (
            f": shared memory is full ({SHM_DIR} has {room} MiB). Raise spec.pod.sharedMemory "
            "(outside Kubernetes: docker run --shm-size), or use fewer loader workers"
        )
    if _NO_HOROVOD.search(tail):
        return (
            ": there is no Horovod in this image. Build one from Dockerfile.horovod (on a laptop: "
            "make horovod)"
        )
    if _OTHER_HOROVOD.search(tail):
        return (
            ": Horovod was built for another version of PyTorch, or without it. Build it again "
            "with the PyTorch of this image (Dockerfile.horovod)"
        )
    if stalled := _STALLED.search(tail):
        return _stall(stalled)
    if absent and _NOBODY_CAME.search(tail):
        return (
            f": rank {_listed(sorted(absent))} had not called hvd.init() by then. See its log, or "
            "raise spec.horovod.timeoutSeconds (HOROVOD_GLOO_TIMEOUT_SECONDS) if it only takes "
            "long to get there"
        )
    return ""


def _stall(found: re.Match[str]) -> str:
    """What Horovod's stall check has found when it ended the group."""
    missing = _MISSING.findall(found["missing"])
    ranks = _listed([int(rank) for rank, _ in missing])
    tensors = next((names for _, names in missing), "")
    return (
        f": the others waited for rank {ranks} for more than {found['seconds']} s in "
        f"{tensors[:200]} (spec.horovod.stallCheck.abortAfterSeconds). See what that rank did "
        "meanwhile, and whether all ranks call the same operations"
    )


def _listed(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (", …" if len(ranks) > 8 else "")
