"""Which port the store of a generation's process group listens on."""

from __future__ import annotations

import socket
import zlib

from headway_api.contract import STORE_PORTS


def store_port(address: str, generation: int) -> int:
    """A port for the store of this generation that nobody listens on now.

    Generations of a pod begin at different places of the range, so that no port comes back soon;
    so do pods, which in local mode share one machine: between this look and the moment at which
    torch listens lie the seconds in which it is imported.

    Raises:
        OSError: no port of the range is free.
    """
    first, last = STORE_PORTS
    start = zlib.crc32(address.encode()) + generation * 7
    for offset in range(last - first):
        port = first + (start + offset) % (last - first)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))  # as torch does: on all addresses
            except OSError:
                continue
            return port
    raise OSError(f"no free port between {first} and {last} for the group's store")
