"""Following the pods' log files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

_POLL_SECONDS = 0.3
_CHUNK = 64 * 1024
_LONGEST_LINE = 2000
"""Characters of a line that are shown; the file has it whole."""


class LogFollower:
    """Prints new lines of `<folder>/<pod>/<uid>/log`, each after its pod's name.

    What a pod prints faster than a terminal can show is left out of the display, never out of
    the file.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], only: str | None) -> None:
        self._folder, self._say, self._only = folder, say, only
        # What earlier runs on this folder have printed is history.
        self._offsets = {path: path.stat().st_size for path in self._files()}

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self.poll()

    def poll(self) -> None:
        """Print what is new."""
        for path in self._files():
            size, seen = path.stat().st_size, self._offsets.get(path, 0)
            if size == seen:
                continue
            name = path.parent.parent.name
            if size - seen > _CHUNK:
                self._say(f"{name} | … {size - seen - _CHUNK} bytes left out, see {path}")
                seen = size - _CHUNK
            with path.open("rb") as file:
                file.seek(seen)
                data = file.read(_CHUNK)
            whole = data.rfind(b"\n") + 1 or len(data)
            self._offsets[path] = seen + whole
            for line in data[:whole].decode(errors="replace").splitlines():
                self._say(f"{name} | {line[:_LONGEST_LINE]}")

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._only or '*'}/*/log"))
