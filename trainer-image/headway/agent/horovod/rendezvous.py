"""The key-value store in which Horovod's ranks of a generation find each other.

Protocol (horovod/common/gloo/http_store.cc and runner/http/http_server.py of 0.28.1), HTTP/1.1
with one request a connection: `PUT /scope/key` sets, `GET /scope/key` gets (404: not there yet;
ranks ask again every 10 ms), `DELETE /scope/rank` takes back what a rank has told once all have
heard of it. Process sets that are made later do the same in scopes of their own.

Each pod has the whole store and serves its own ranks only; what they change, all pods change.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from headway.agent.horovod.environment import LOOPBACK

log = logging.getLogger(__name__)
_HEAD_LIMIT = 64 * 1024
_LARGEST = 16 * 1024 * 1024
"""Bytes of a value: a rank tells some 130 for each other rank."""
_PATIENCE_SECONDS = 10.0
"""For the rest of a request that has begun."""

Share = Callable[[str, bytes | None], None]
"""Tells the other pods: a path, and its value, or None where it is taken back."""
Ask = Callable[[str], Awaitable[bytes | None]]
"""Answers a path that is no entry of the store, when the time has come; None: it is one."""


class _BadRequestError(Exception):
    """It is no request of Horovod's."""


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    body: bytes


class Store(dict[str, bytes]):
    """Entries by path, such as `global/0`."""

    def change(self, path: str, value: bytes | None) -> None:
        """Set an entry, or take it back."""
        if value is None:
            self.pop(path, None)
        else:
            self[path] = value


class Rendezvous:
    """Serves a store to this pod's ranks.

    Args:
        store: The store of the generation.
        share: Called with each change that a rank of this pod makes.
        ask: Called with each path that is asked for.
    """

    def __init__(self, store: Store, share: Share, ask: Ask | None = None) -> None:
        self.store = store
        self._share = share
        self._ask = ask
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        """Start serving; returns the port, on the loopback interface."""
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0, limit=_HEAD_LIMIT)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            status, body = await self._answer(reader)
            head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {len(body)}\r\n"
            writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (OSError, EOFError, TimeoutError) as error:
            log.debug("a request for the rendezvous broke off: %s", error)
        finally:
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[HTTPStatus, bytes]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                request = await _read(reader)
        except _BadRequestError as error:
            return HTTPStatus.BAD_REQUEST, str(error).encode()
        match request.method:
            case "PUT" | "DELETE":
                value = request.body if request.method == "PUT" else None
                self.store.change(request.path, value)
                self._share(request.path, value)
                return HTTPStatus.OK, b""
            case "GET":
                found = await self._ask(request.path) if self._ask is not None else None
                found = self.store.get(request.path) if found is None else found
                return (HTTPStatus.NOT_FOUND, b"") if found is None else (HTTPStatus.OK, found)
            case method:
                return HTTPStatus.METHOD_NOT_ALLOWED, f"no {method} here".encode()


async def _read(reader: asyncio.StreamReader) -> _Request:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    except asyncio.LimitOverrunError:
        raise _BadRequestError("the head is too long") from None
    words = head[0].split()
    if len(words) != 3 or words[1].count("/") != 2 or not words[1].startswith("/"):
        raise _BadRequestError("ask for /scope/key")
    fields = (line.partition(":") for line in head[1:] if line)
    lengths = [value.strip() for name, _, value in fields if name.lower() == "content-length"]
    length = int(lengths[0]) if lengths and lengths[0].isdecimal() else 0
    if length > _LARGEST:
        raise _BadRequestError(f"a value has at most {_LARGEST} bytes")
    return _Request(words[0], words[1][1:], await reader.readexactly(length))
