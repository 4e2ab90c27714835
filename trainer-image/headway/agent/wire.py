"""Messages between processes: one JSON object a line, over TCP or a Unix socket.

Agents authenticate each other with the job's key before anything else is said: challenge and
response in both directions (HMAC-SHA256 over both nonces), so that neither a foreign pod nor a
replay gets in. The key comes from the operator's endpoint.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

Message = dict[str, Any]

LINE_LIMIT = 64 * 1024 * 1024
"""Longest line in bytes: receipts of a large model list each of its tensors."""


class HandshakeFailed(ConnectionError):  # noqa: N818 (it is a kind of ConnectionError)
    """The other side does not hold the job's key, or is no agent."""


class Channel:
    """One connection that carries messages both ways."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Queue a message; a broken connection shows at the next `receive`."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message, or None when the connection has ended in whatever way."""
        try:
            line = await self._reader.readline()
            message = json.loads(line) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None
        return message if isinstance(message, dict) else None

    async def drain(self) -> None:
        """Wait until what was sent has left this process, as far as one can know."""
        try:
            await self._writer.drain()
        except OSError:
            return

    async def close(self) -> None:
        """Close the connection; harmless when it is closed already."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            return


def _proof(key: bytes, role: str, *parts: str) -> str:
    text = json.dumps([role, *parts]).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Hello:
    """What a member says of itself.

    Attributes:
        index: Of its pod.
        uid: Of its pod.
        generation: The latest that its pod has taken part in; 0 before the first.
        address: At which other pods reach it.
        copies: The checkpoints that its memory holds (see `node`).
        kept: Rank states that it keeps for the lead's own pod (see `rankstates`).
        survivors: Local ranks whose process waits for the next generation (see `node`).
    """

    index: int
    uid: str
    generation: int
    address: str = ""
    copies: list[Message] = field(default_factory=list)
    kept: list[Message] = field(default_factory=list)
    survivors: list[int] = field(default_factory=list)


async def greet(channel: Channel, key: bytes, hello: Hello) -> None:
    """Prove to the lead who we are, and check that it is the lead.

    Args:
        channel: to the lead.
        key: of the job.
        hello: what we say of ourselves.

    Raises:
        HandshakeFailed: the other side could not prove that it holds the key.
    """
    challenge = await channel.receive()
    if challenge is None or not isinstance(challenge.get("nonce"), str):
        raise HandshakeFailed("the lead closed the connection before it was greeted")
    theirs, ours = challenge["nonce"], secrets.token_hex(16)
    text = json.dumps(asdict(hello), sort_keys=True)
    proof = _proof(key, "member", theirs, ours, text)
    channel.send({"hello": text, "nonce": ours, "proof": proof})
    answer = await channel.receive()
    expected = _proof(key, "lead", theirs, ours)
    if answer is None or not hmac.compare_digest(str(answer.get("proof")), expected):
        raise HandshakeFailed("the lead did not prove that it holds the job's key")


async def welcome(channel: Channel, key: bytes) -> Hello:
    """The lead's side of `greet`; returns what the member says of itself.

    Raises:
        HandshakeFailed: the other side does not hold the key.
    """
    ours = secrets.token_hex(16)
    channel.send({"nonce": ours})
    said = await channel.receive()
    if said is None:
        raise HandshakeFailed("closed before the handshake was done")
    text, theirs = said.get("hello"), said.get("nonce")
    if not (isinstance(text, str) and isinstance(theirs, str)):
        raise HandshakeFailed("the greeting is not one of an agent")
    expected = _proof(key, "member", ours, theirs, text)
    if not hmac.compare_digest(str(said.get("proof")), expected):
        raise HandshakeFailed("an agent did not prove that it holds the job's key")
    try:
        hello = Hello(**json.loads(text))
    except (TypeError, ValueError):
        raise HandshakeFailed("the greeting is that of another version of Headway") from None
    channel.send({"proof": _proof(key, "lead", ours, theirs)})
    return hello
