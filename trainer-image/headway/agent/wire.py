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


async def greet(channel: Channel, key: bytes, index: int, uid: str, generation: int) -> None:
    """Prove to the lead who we are, and check that it is the lead.

    Args:
        channel: to the lead.
        key: of the job.
        index: of this pod.
        uid: of this pod.
        generation: the latest that this pod has taken part in; 0 before the first.

    Raises:
        HandshakeFailed: the other side could not prove that it holds the key.
    """
    challenge = await channel.receive()
    if challenge is None or not isinstance(challenge.get("nonce"), str):
        raise HandshakeFailed("the lead closed the connection before it was greeted")
    theirs, ours = challenge["nonce"], secrets.token_hex(16)
    proof = _proof(key, "member", theirs, ours, str(index), uid, str(generation))
    said = {"index": index, "uid": uid, "generation": generation}
    channel.send({**said, "nonce": ours, "proof": proof})
    answer = await channel.receive()
    expected = _proof(key, "lead", theirs, ours)
    if answer is None or not hmac.compare_digest(str(answer.get("proof")), expected):
        raise HandshakeFailed("the lead did not prove that it holds the job's key")


async def welcome(channel: Channel, key: bytes) -> tuple[int, str, int]:
    """The lead's side of `greet`; returns the member's index, pod UID and latest generation.

    Raises:
        HandshakeFailed: the other side does not hold the key.
    """
    ours = secrets.token_hex(16)
    channel.send({"nonce": ours})
    hello = await channel.receive()
    if hello is None:
        raise HandshakeFailed("closed before the handshake was done")
    index, generation = hello.get("index"), hello.get("generation")
    uid, theirs = hello.get("uid"), hello.get("nonce")
    if not (isinstance(index, int) and isinstance(generation, int)):
        raise HandshakeFailed("the greeting is not one of an agent")
    if not (isinstance(uid, str) and isinstance(theirs, str)):
        raise HandshakeFailed("the greeting is not one of an agent")
    expected = _proof(key, "member", ours, theirs, str(index), uid, str(generation))
    if not hmac.compare_digest(str(hello.get("proof")), expected):
        raise HandshakeFailed(f"worker {index} did not prove that it holds the job's key")
    channel.send({"proof": _proof(key, "lead", ours, theirs)})
    return index, uid, generation
