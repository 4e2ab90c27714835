"""The handshake between agents: who holds the job's key gets in, nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from headway.agent.wire import Channel, HandshakeFailed, Hello, greet, welcome

KEY, OTHER = b"k" * 32, b"o" * 32


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    """Both ends of a TCP connection on loopback."""
    accepted: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result(Channel(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    near = Channel(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    far = await accepted
    try:
        yield near, far
    finally:
        await near.close()
        await far.close()
        server.close()


async def both(member: Awaitable[object], lead: Awaitable[object]) -> list[object]:
    return await asyncio.gather(member, lead, return_exceptions=True)


async def test_both_learn_who_the_other_is() -> None:
    async with pair() as (member, lead):
        said = await both(
            greet(member, KEY, Hello(3, "uid-3", 7, [{"step": 5}])), welcome(lead, KEY)
        )
        assert said == [None, Hello(3, "uid-3", 7, [{"step": 5}])]
        lead.send({"type": "start"})
        assert await member.receive() == {"type": "start"}


async def test_a_foreign_member_is_refused() -> None:
    async with pair() as (member, lead):
        greeting = asyncio.create_task(greet(member, OTHER, Hello(1, "u", 0)))
        with pytest.raises(HandshakeFailed, match="did not prove"):
            await welcome(lead, KEY)
        await lead.close()
        with pytest.raises(HandshakeFailed):
            await greeting


async def test_a_foreign_lead_is_refused() -> None:
    async with pair() as (member, lead):
        lead.send({"nonce": "n"})
        greeting = asyncio.create_task(greet(member, KEY, Hello(1, "u", 0)))
        await lead.receive()
        lead.send({"proof": "0" * 64})
        with pytest.raises(HandshakeFailed, match="lead did not prove"):
            await greeting


async def test_a_greeting_cannot_be_replayed() -> None:
    heard: list[object] = []
    async with pair() as (member, lead):
        send = member.send
        member.send = lambda message: (heard.append(message), send(message))[1]  # type: ignore
        await both(greet(member, KEY, Hello(1, "u", 0)), welcome(lead, KEY))
    async with pair() as (member, lead):
        welcoming = asyncio.create_task(welcome(lead, KEY))
        await member.receive()
        member.send(heard[0])  # type: ignore[arg-type]
        with pytest.raises(HandshakeFailed):
            await welcoming


@pytest.mark.parametrize(
    "say",
    [
        lambda channel: channel._writer.write(b"GET / HTTP/1.1\r\n\r\n"),
        lambda channel: channel._writer.write(b"[1, 2]\n"),
        lambda channel: channel.send({"hello": 1, "nonce": "n"}),
        lambda channel: channel.send({"hello": "{}", "proof": "p"}),
        lambda channel: channel._writer.write(b"\xff\xfe\n"),
    ],
)
async def test_noise_is_refused(say: Callable[[Channel], None]) -> None:
    async with pair() as (member, lead):
        welcoming = asyncio.create_task(welcome(lead, KEY))
        say(member)
        with pytest.raises(HandshakeFailed):
            await welcoming
