"""Telling Horovod's elastic scripts that the group is to have another size.

Protocol (horovod/runner/common/util/network.py and runner/elastic/worker.py of 0.28.1): a rank
that enters `hvd.elastic.run` opens a port, and puts address and key of it into the store. What is
sent there is HMAC-SHA256 (32 bytes), length (a native int) and a pickle; so is what comes back.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import pickle
import struct
import time
from dataclasses import dataclass, field
from typing import Any

_SECONDS = 5.0
_ADDED = 2
"""`HostUpdateResult.added`: after it the ranks send each other their state. `removed` would have
them skip that, and a rank that is new would wait for it for ever."""


class NotificationError(Exception):
    """A rank could not be told."""


class _Plain(pickle.Unpickler):
    """Lists, tuples, texts and the like: nothing that would have to be imported, or would run."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"no {module_name}.{global_name} here")


@dataclass(frozen=True)
class Listener:
    """Where a rank listens.

    Attributes:
        host: Address.
        port: Of its service.
        key: Which authenticates what is sent there.
    """

    host: str
    port: int
    key: bytes = field(repr=False)

    @classmethod
    def told(cls, value: bytes) -> Listener:
        """Read what a rank has put into the store.

        Raises:
            NotificationError: it can't be read.
        """
        try:
            addresses, key = _Plain(io.BytesIO(base64.b64decode(value))).load()
            host, port = next(iter(addresses.values()))[0]
            return cls(str(host), int(port), bytes(key))
        except (pickle.UnpicklingError, ValueError, TypeError, LookupError, EOFError) as error:
            raise NotificationError(f"not an address of Horovod's: {error!r}") from error
        except (AttributeError, StopIteration) as error:
            raise NotificationError("not an address of Horovod's") from error


def hosts_updated(timestamp: float) -> bytes:
    """A pickled `HostsUpdatedRequest`, without Horovod, which need not be in this Python."""
    module = b"horovod.runner.elastic.worker\n"
    result = b"c" + module + b"HostUpdateResult\n(I%d\ntR" % _ADDED
    when = f"F{timestamp!r}\n".encode()
    return b"c" + module + b"HostsUpdatedRequest\n(" + when + result + b"tR."


async def notify(listener: Listener) -> None:
    """Tell a rank; it raises `HostsUpdatedInterrupt` at its next `state.commit()`.

    Raises:
        NotificationError: it could not be told.
    """
    body = hosts_updated(time.time())
    digest = hmac.new(listener.key, body, hashlib.sha256).digest()
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(listener.host, listener.port)
            try:
                writer.write(digest + struct.pack("i", len(body)) + body)
                await reader.readexactly(len(digest))  # the answer says only that it has arrived
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError) as error:
        raise NotificationError(f"a rank could not be told of the new size: {error!r}") from error
