"""A proxy in front of an S3 server that fails on purpose, for tests.

It forwards HTTP/1.1 byte for byte (so signatures stay valid) and breaks the requests that a rule
names: it answers itself, cuts connections, stalls, slows down or changes bytes.

    with FaultProxy("http://127.0.0.1:8333") as proxy:
        slow_down = proxy.fail(answer(503, "SlowDown"), method="PUT", path="/part-", times=2)
        …                                      # a client that talks to proxy.endpoint
        assert slow_down.hits == 2
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_BLOCK = 64 * 1024
_HEAD_LIMIT = 256 * 1024
_LENGTH = re.compile(rb"(?im)^content-length: *(\d+)")
_CHUNKED = re.compile(rb"(?im)^transfer-encoding: *chunked\r")


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request or a response, as they were sent.

    Attributes:
        raw: their bytes, with the empty line that ends them.
        length: bytes of the body.
    """

    raw: bytes
    length: int

    @property
    def method(self) -> str:
        return self.raw.split(b" ", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        """Path and query of a request."""
        return self.raw.split(b" ", 2)[1].decode("latin-1")


class Exchange:
    """One request on its way through: what a fault can do with it.

    Attributes:
        head: of the request, whose body has not been read yet.
    """

    def __init__(self, head: Head, client: _Pipe, target: str) -> None:
        self.head = head
        self._client = client
        self._target = target
        self._server: _Pipe | None = None

    async def answer(self, status: int, body: bytes) -> None:
        """Answer in the server's place, after swallowing the request."""
        await self._client.swallow(self.head.length)
        head = f"HTTP/1.1 {status} Fault\r\nContent-Length: {len(body)}\r\n\r\n"
        await self._client.write(head.encode() + body)

    async def send(self, limit: int | None = None) -> None:
        """Send the request on to the server; of its body at most `limit` bytes."""
        self._server = await _Pipe.connect(self._target)
        await self._server.write(self.head.raw)
        length = self.head.length if limit is None else min(limit, self.head.length)
        await self._client.copy(self._server, length)

    async def give_back(
        self,
        limit: int | None = None,
        change: Callable[[bytes, int], bytes] | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        """Bring the server's answer to the client; of its body at most `limit` bytes.

        Args:
            limit: bytes of the body; None means all.
            change: gets each block and its offset in the body, and returns what to send.
            bytes_per_second: how fast; None means at once.
        """
        assert self._server is not None
        head = await self._server.read_head()
        if head is None:
            raise EOFError
        await self._client.write(head.raw)
        # A HEAD request is answered with the length of a body that does not follow.
        length = 0 if self.head.method == "HEAD" else head.length
        length = length if limit is None else min(limit, length)
        await self._server.copy(self._client, length, change, bytes_per_second)

    async def swallow_answer(self) -> None:
        """Wait until the server has answered, and tell nobody."""
        assert self._server is not None
        await self._server.read_head()

    async def reset(self) -> None:
        """Cut both sides off."""
        await self.end()
        await self._client.reset()

    async def hang(self) -> None:
        """Say nothing more until the client gives up or the proxy ends."""
        await self._client.closed()

    async def end(self) -> None:
        """Let go of the server; it is asked on a connection of its own for each request."""
        if self._server is not None:
            await self._server.reset()


Fault = Callable[[Exchange], Awaitable[None]]
"""What happens to a request instead of being forwarded."""


def answer(status: int, code: str) -> Fault:
    """An S3 error in the server's place, such as ``answer(503, "SlowDown")``."""
    body = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()

    async def fault(exchange: Exchange) -> None:
        await exchange.answer(status, body)

    return fault


async def reset_before(exchange: Exchange) -> None:
    """The connection is cut before the server hears of the request."""
    await exchange.reset()


async def reset_after(exchange: Exchange) -> None:
    """The server does what was asked, and nobody hears of it."""
    await exchange.send()
    await exchange.swallow_answer()
    await exchange.reset()


def reset_in_request(after: int) -> Fault:
    """The connection is cut when `after` bytes of the request's body have been sent."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send(limit=after)
        await exchange.reset()

    return fault


def reset_in_response(after: int) -> Fault:
    """The connection is cut when `after` bytes of the response's body have come."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send()
        await exchange.give_back(limit=after)
        await exchange.reset()

    return fault


def stall(after: int = 0) -> Fault:
    """The response stops when `after` bytes of its body have come, on an open connection."""

    async def fault(exchange: Exchange) -> None:
        await exchange.send()
        await exchange.give_back(limit=after)
        await exchange.hang()

    return fault


def corrupt(at: int) -> Fault:
    """One bit of the response's body changes on the way, in byte `at`."""

    def change(block: bytes, offset: int) -> bytes:
        if not offset <= at < offset + len(block):
            return block
        changed = bytearray(block)
        changed[at - offset] ^= 0x10
        return bytes(changed)

    async def fault(exchange: Exchange) -> None:
        await exchange.send()
        await exchange.give_back(change=change)

    return fault


def then(action: Callable[[], None], *, heard: bool) -> Fault:
    """Something happens at this very request, before (`heard=False`) or after the server did it.

    The connection is cut: nobody hears of the server's answer.
    """

    async def fault(exchange: Exchange) -> None:
        if heard:
            await exchange.send()
            await exchange.swallow_answer()
        await asyncio.to_thread(action)
        await exchange.reset()

    return fault


def slow(latency: float = 0.0, bytes_per_second: float | None = None) -> Fault:
    """The response comes late (`latency` in seconds), or slowly, or both."""

    async def fault(exchange: Exchange) -> None:
        await asyncio.sleep(latency)
        await exchange.send()
        await exchange.give_back(bytes_per_second=bytes_per_second)

    return fault


@dataclass(slots=True)
class Rule:
    """Which requests fail, and how.

    Attributes:
        fault: what happens to them.
        method: regular expression for the whole method.
        path: regular expression that is searched in path and query.
        skip: how many matching requests pass before the first one that fails.
        times: how many fail; None means all further ones.
        seen: matching requests so far.
        hits: how many of them failed.
    """

    fault: Fault
    method: re.Pattern[str]
    path: re.Pattern[str]
    skip: int = 0
    times: int | None = None
    seen: int = 0
    hits: int = 0

    def takes(self, head: Head) -> bool:
        """Count a request, and say whether it is to fail."""
        if not (self.method.fullmatch(head.method) and self.path.search(head.path)):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.times is not None and self.hits >= self.times):
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class FaultProxy:
    """A proxy in a thread of its own; use it as a context manager.

    Args:
        target: URL of the server, without a path.

    Attributes:
        requests: method and path of everything that came, in order.
    """

    target: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    _rules: list[Rule] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _port: int = 0
    _thread: threading.Thread | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def fail(
        self,
        fault: Fault,
        *,
        method: str = ".*",
        path: str = "",
        skip: int = 0,
        times: int | None = None,
    ) -> Rule:
        """Let requests fail from now on; see `Rule`. The first rule that fits counts."""
        rule = Rule(fault, re.compile(method), re.compile(path), skip, times)
        self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget all rules."""
        self._rules.clear()

    def __enter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self._port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listener,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        assert self._thread is not None
        self._thread.join()

    def _run(self, listener: socket.socket) -> None:
        self._loop.run_until_complete(self._serve(listener))
        self._loop.close()

    async def _serve(self, listener: socket.socket) -> None:
        going: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(self._connection(_Pipe(reader, writer)))
            going.add(task)
            task.add_done_callback(going.discard)

        server = await asyncio.start_server(accept, sock=listener, limit=_HEAD_LIMIT)
        await self._stop.wait()
        server.close()
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def _connection(self, client: _Pipe) -> None:
        try:
            while (head := await client.read_head()) is not None:
                await self._handle(Exchange(head, client, self.target))
        except (OSError, EOFError):
            pass  # one of the two sides went away: so does the connection
        finally:
            await client.reset()

    async def _handle(self, exchange: Exchange) -> None:
        head = exchange.head
        self.requests.append((head.method, head.path))
        rule = next((rule for rule in list(self._rules) if rule.takes(head)), None)
        try:
            await (rule.fault if rule else _forward)(exchange)
        finally:
            await exchange.end()


async def _forward(exchange: Exchange) -> None:
    await exchange.send()
    await exchange.give_back()


class _Pipe:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._collected = b""

    @classmethod
    async def connect(cls, target: str) -> Self:
        parts = urlsplit(target)
        return cls(*await asyncio.open_connection(parts.hostname, parts.port, limit=_HEAD_LIMIT))

    async def read_head(self) -> Head | None:
        """Read a head; None when the other side has closed."""
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        if _CHUNKED.search(raw):
            # Small answers such as lists: collected, so that there is one kind of body here.
            self._collected = await self._dechunk()
            length = len(self._collected)
            return Head(_CHUNKED.sub(b"Content-Length: %d\r" % length, raw), length)
        found = _LENGTH.search(raw)
        return Head(raw, int(found[1]) if found else 0)

    async def _dechunk(self) -> bytes:
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readuntil(b"\r\n")
        return body

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def copy(
        self,
        to: _Pipe,
        length: int,
        change: Callable[[bytes, int], bytes] | None = None,
        bytes_per_second: float | None = None,
    ) -> None:
        """Bring `length` bytes from here to there."""
        offset = 0
        while offset < length:
            block = await self._read(min(_BLOCK, length - offset))
            await to.write(change(block, offset) if change else block)
            offset += len(block)
            if bytes_per_second:
                await asyncio.sleep(len(block) / bytes_per_second)

    async def swallow(self, length: int) -> None:
        """Read and forget `length` bytes."""
        while length:
            length -= len(await self._read(min(_BLOCK, length)))

    async def _read(self, limit: int) -> bytes:
        block, self._collected = self._collected[:limit], self._collected[limit:]
        block = block or await self._reader.read(limit)
        if not block:
            raise EOFError
        return block

    async def closed(self) -> None:
        """Wait until the other side has closed."""
        while await self._reader.read(_BLOCK):
            pass

    async def reset(self) -> None:
        """Close at once; what was sent may be lost, as with a machine that is gone."""
        with suppress(OSError):
            handle = self._writer.get_extra_info("socket")
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()
