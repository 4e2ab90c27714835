"""A checkpoint from one pod's memory to another's: a lost pod comes back without storage.

Every agent that holds checkpoints serves them on `contract.STATE_PORT`, to whoever holds the
job's key. For each of the pod's worker processes: one line of JSON (lengths), then the data and
the layout, and at last a line with their checksum, which is only sent if the slot was still
sealed when all had been read. The bytes travel as gradients do: unencrypted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from awscrt.checksums import crc64nvme

from headway.agent.memory import Memory, NoRoomError
from headway.agent.wire import LINE_LIMIT, Channel, HandshakeFailed, Hello, Message, greet, welcome
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.slot import HEADER, Layout
from headway_api.contract import STATE_PORT

log = logging.getLogger(__name__)
_CHUNK = 4 * 1024 * 1024
_HANDSHAKE_SECONDS = 5.0
_SILENCE_SECONDS = 10.0


class TransferError(Exception):
    """The checkpoint could not be had from that pod."""


class StateServer:
    """Gives this pod's checkpoints to other pods of the job."""

    def __init__(self, memory: Memory, key: bytes, address: str) -> None:
        self._memory, self._key, self._address = memory, key, address
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Start to listen."""
        self._server = await asyncio.start_server(
            self._serve, host=self._address, port=STATE_PORT, limit=LINE_LIMIT
        )

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = Channel(reader, writer)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await welcome(channel, self._key)
                wanted = await channel.receive()
            if wanted is not None:
                await self._give(writer, channel, CheckpointId(**wanted))
        except (HandshakeFailed, OSError, TimeoutError, TypeError, ValueError) as error:
            log.warning("a pod could not be given a checkpoint: %s", error)
        finally:
            await channel.close()

    async def _give(
        self, writer: asyncio.StreamWriter, channel: Channel, checkpoint: CheckpointId
    ) -> None:
        for contents in self._memory.contents(checkpoint) or []:
            channel.send({"data": contents.data_nbytes, "layout": contents.layout_nbytes,
                          "state": contents.state})  # fmt: skip
            crc, end = 0, HEADER + contents.data_nbytes + contents.layout_nbytes
            for at in range(HEADER, end, _CHUNK):
                chunk = await asyncio.to_thread(os.pread, contents.fd, min(_CHUNK, end - at), at)
                crc = crc64nvme(chunk, crc)
                writer.write(chunk)
                await writer.drain()
            still = self._memory.contents(checkpoint) is not None
            channel.send({"crc": crc if still else None})
            await channel.drain()


async def fetch(
    memory: Memory,
    key: bytes,
    address: str,
    hello: Hello,
    wanted: Mapping[str, int],
    states: Mapping[int, Any],
) -> None:
    """Get a checkpoint from another pod into this pod's memory.

    Args:
        memory: Of this pod.
        key: Of the job.
        address: Of the pod that has it.
        hello: What this pod says of itself.
        wanted: `generation` and `step`.
        states: For each local rank its global rank and that rank's own state at the checkpoint.

    Raises:
        TransferError: it could not be had.
    """
    checkpoint = CheckpointId(**wanted)
    try:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            reader, writer = await asyncio.open_connection(address, STATE_PORT, limit=LINE_LIMIT)
            channel = Channel(reader, writer)
            await greet(channel, key, hello)
        channel.send(dict(wanted))
        try:
            for local_rank in sorted(states):
                rank, state = states[local_rank]
                await _take(memory, reader, local_rank, checkpoint, rank, state)
        finally:
            await channel.close()
    except (HandshakeFailed, NoRoomError, OSError, TimeoutError, EOFError, ValueError) as error:
        raise TransferError(f"{checkpoint} from {address}: {error!r}") from error


async def _take(
    memory: Memory,
    reader: asyncio.StreamReader,
    local_rank: int,
    checkpoint: CheckpointId,
    rank: int,
    state: Message,
) -> None:
    head = await _line(reader)
    nbytes = int(head["data"])
    await asyncio.to_thread(memory.ensure, local_rank, nbytes)
    slot = memory.spare(local_rank)
    view = memoryview(slot.map(nbytes))[HEADER:]
    slot.begin()
    crc = 0
    for at in range(0, nbytes, _CHUNK):
        async with asyncio.timeout(_SILENCE_SECONDS):
            chunk = await reader.readexactly(min(_CHUNK, nbytes - at))
        crc = crc64nvme(chunk, crc)
        view[at : at + len(chunk)] = chunk
    layout = await reader.readexactly(int(head["layout"]))
    tail = await _line(reader)
    if tail["crc"] != crc64nvme(layout, crc):
        raise ValueError("it was overwritten, or damaged on the way")
    # All but the tensors is another rank's: ours was kept elsewhere.
    own = {**head["state"], "rank": rank, "rank_state": state}
    slot.seal(checkpoint, Layout.decode(layout), own)


async def _line(reader: asyncio.StreamReader) -> Message:
    async with asyncio.timeout(_SILENCE_SECONDS):
        line = await reader.readline()
    if not line:
        raise EOFError("it does not have that checkpoint (any more)")
    return dict(json.loads(line))
