"""Fresh memory made ready to be written, without holding the interpreter lock.

The first write to a page makes the kernel fetch and clear it. When that happens inside a copy,
Python's lock is held meanwhile, and threads that restore side by side wait for each other: for
400 MB into fresh tensors, 0.30 s instead of 0.18 s.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Final

# Linux 5.14; Python has no name for it yet.
_POPULATE_WRITE: Final = 23
# Below this a system call costs more than the faults do.
_WORTH_IT: Final = 64 * 1024


def prefault(view: memoryview) -> None:
    """Have the kernel map all pages of `view` for writing. A wish: where it can't, nothing happens.

    Args:
        view: writable and contiguous; its content stays as it is.
    """
    if view.nbytes < _WORTH_IT or sys.platform != "linux":
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = address - address % mmap.PAGESIZE
    size = ctypes.c_size_t(address + view.nbytes - start)
    # A call through `CDLL` lets go of the interpreter lock.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(start), size, ctypes.c_int(_POPULATE_WRITE))
