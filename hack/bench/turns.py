"""Turns: the bench tells trainers, each a process of its own, when to do something.

All trainers of a run are alive at once and only one works: their figures are taken within
seconds of each other, and nobody pays for another's import. Messages are lines of JSON on a Unix
socket; times are seconds on the monotonic clock, which processes of one machine share.
"""

from __future__ import annotations

import json
import os
import select
import socket
from pathlib import Path
from typing import Any

Message = dict[str, Any]


class Line:
    """One end of the connection between the bench and a trainer."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._lines = connection.makefile("rb", buffering=0)

    @classmethod
    def to_bench(cls) -> Line:
        """The trainer's end."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(os.environ["BENCH_SOCKET"])
        return cls(connection)

    def send(self, message: Message) -> None:
        """Send a message."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Message | None:
        """Wait for a message; None when the other end is gone."""
        try:
            line = self._lines.readline()
        except ConnectionResetError:
            line = b""
        found: Message | None = json.loads(line) if line else None
        return found

    def waiting(self, seconds: float = 0.0) -> bool:
        """Whether there is something to receive (an end counts)."""
        return bool(select.select([self._socket], [], [], seconds)[0])


class Door:
    """Where a trainer connects to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(1)

    def accept(self) -> Line | None:
        """The trainer's connection, if it is there."""
        if not select.select([self._socket], [], [], 0)[0]:
            return None
        connection, _ = self._socket.accept()
        return Line(connection)

    def close(self) -> None:
        """Stop waiting for connections."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
