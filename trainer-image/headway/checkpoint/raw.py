"""Access to a store beside the storage library, for the little that the library can't do.

It can neither list uploads that were begun and never completed, nor list a folder in which an
object has a name that it does not like (`a//b`, a line break).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

_STAGED = re.compile(r"(.+)#(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload that was begun and neither completed nor aborted.

    Attributes:
        key: of the object that it was to become, under the root.
        id: the store's name for it.
        begun: when, by the store's clock.
    """

    key: str
    id: str
    begun: datetime


class RawAccess(Protocol):
    """What `Store` asks for. Failures are `OSError`, which `faults.translate` understands."""

    def keys(self, folder: str) -> Iterator[str]:
        """Yield all keys below `folder`, however odd."""

    def uploads(self, folder: str) -> Iterator[Upload]:
        """Yield the unfinished uploads of objects below `folder`."""

    def abort(self, upload: Upload) -> None:
        """Delete what was sent of an upload; one that is over already is fine."""


@dataclass(frozen=True)
class LocalFiles:
    """A local path. The library writes an object to `<name>#<number>` and then renames it."""

    root: Path

    def keys(self, folder: str) -> Iterator[str]:
        """See `RawAccess`."""
        return (key for key in self._files(folder) if not _STAGED.fullmatch(key))

    def uploads(self, folder: str) -> Iterator[Upload]:
        """See `RawAccess`; begun is when the last bytes were written."""
        for file in self._files(folder):
            if match := _STAGED.fullmatch(file):
                with suppress(FileNotFoundError):  # completed meanwhile
                    written = (self.root / file).stat().st_mtime
                    yield Upload(match[1], match[2], datetime.fromtimestamp(written, UTC))

    def flush(self, key: str) -> None:
        """Have the disk keep an object over a power cut.

        On NFS this is also where a full volume shows itself.

        Raises:
            OSError: its bytes could not be written out.
        """
        file = self.root / key
        with suppress(FileNotFoundError):  # deleted again by a newer group
            _fsync(file)
        for folder in file.parents[: len(Path(key).parts)]:
            with suppress(OSError):  # not every file system can do this with folders
                _fsync(folder)

    def abort(self, upload: Upload) -> None:
        """See `RawAccess`."""
        staged = self.root / f"{upload.key}#{upload.id}"
        staged.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in there
            staged.parent.rmdir()

    def _files(self, folder: str) -> Iterator[str]:
        found = (self.root / folder).rglob("*")
        return (path.relative_to(self.root).as_posix() for path in found if path.is_file())


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
