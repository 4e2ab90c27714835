"""Makes a forked process show its own command line and environment to `ps`, `py-spy` and people.

The kernel keeps where in a process's memory its arguments and environment lie. `PR_SET_MM_MAP`
(prctl(2), Linux 3.18, no privilege needed) points it to new ones. Where that is not possible, a
worker is shown as its zygote, and nothing else changes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

_PR_SET_MM, _PR_SET_MM_MAP = 35, 14
_kept: list[mmap.mmap] = []
"""The memory that the kernel now reads; it must stay for the life of the process."""


class _Map(ctypes.Structure):
    """`struct prctl_mm_map` of linux/prctl.h."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in (
            "start_code", "end_code", "start_data", "end_data", "start_brk", "brk",
            "start_stack", "arg_start", "arg_end", "env_start", "env_end",
        )),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )  # fmt: skip


def show(arguments: Sequence[str]) -> None:
    """Show these arguments, and `os.environ` as it is now."""
    args = _block(arguments)
    env = _block(f"{name}={value}" for name, value in os.environ.items())
    # Private: for its arguments the kernel reads anonymous memory only.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, len(args) + len(env), flags)
    memory.write(args + env)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    stat = Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()
    # proc(5) counts fields from 1; the first after the name is the third.
    start_code, end_code, start_stack = (int(stat[n - 3]) for n in (26, 27, 28))
    start_data, end_data, start_brk = (int(stat[n - 3]) for n in (45, 46, 47))
    libc = ctypes.CDLL(None)
    libc.sbrk.restype = ctypes.c_void_p
    wanted = _Map(
        start_code, end_code, start_data, end_data, start_brk, libc.sbrk(0), start_stack,
        start, start + len(args), start + len(args), start + len(args) + len(env),
        None, 0, 2**32 - 1,
    )  # fmt: skip
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, ctypes.byref(wanted), ctypes.sizeof(wanted), 0) == 0:
        _kept.append(memory)


def _block(strings: Iterable[str]) -> bytes:
    return b"".join(os.fsencode(each) + b"\0" for each in strings)
