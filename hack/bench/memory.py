"""How much memory a family of processes has: its own, and what it shares, once."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

_SHARED = ("/memfd:", "/dev/shm/")


def used(pids: Iterable[int], folder: Path | None = None) -> int:
    """Bytes of these processes, without the libraries that all processes of a machine share.

    Args:
        pids: The processes; those that are gone count nothing.
        folder: A folder in memory whose files count too.
    """
    own, shared = 0, dict(_files(folder) if folder else ())
    for pid in pids:
        with contextlib.suppress(OSError):
            own += _anonymous(pid)
            for inode, size in (*_mapped(pid), *_open(pid)):
                shared[inode] = max(size, shared.get(inode, 0))
    return own + sum(shared.values())


def _anonymous(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))


def _mapped(pid: int) -> Iterator[tuple[int, int]]:
    sizes: Counter[int] = Counter()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, _, _, _, inode, *name = line.split(maxsplit=5)
        if name and name[0].startswith(_SHARED):
            begin, _, end = span.partition("-")
            sizes[int(inode)] += int(end, 16) - int(begin, 16)
    yield from sizes.items()


def _open(pid: int) -> Iterator[tuple[int, int]]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(_SHARED):
                found = link.stat()
                yield found.st_ino, 512 * found.st_blocks


def _files(folder: Path) -> Iterator[tuple[int, int]]:
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            found = file.stat()
            yield found.st_ino, 512 * found.st_blocks
