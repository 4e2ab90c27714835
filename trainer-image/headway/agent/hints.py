"""What usually causes a failure, where a user can't guess that from its output."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection

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


def hint(signal: str, tail: str, absent: Collection[int] = ()) -> str:
    """The cause, to be put behind what happened; empty if there is nothing to say.

    Args:
        signal: Name of the signal that ended the process, or empty.
        tail: The last lines of its output.
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
    if absent and _NOBODY_CAME.search(tail):
        ranks = ", ".join(map(str, sorted(absent)[:8])) + (", …" if len(absent) > 8 else "")
        return (
            f": rank {ranks} had not called hvd.init() by then. See its log, or raise "
            "HOROVOD_GLOO_TIMEOUT_SECONDS if it only takes long to get there"
        )
    return ""
