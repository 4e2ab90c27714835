"""Where the lead is. Asked only while we have no connection to it."""

from __future__ import annotations

import errno

from headway.agent.config import PodConfig
from headway.agent.endpoint import Endpoint
from headway_api.messages import Peer, PeersResponse

_LONG_POLL_SECONDS = 20.0
_SHORT_POLL_SECONDS = 1.0
_UNREACHABLE = {errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENETUNREACH, errno.ETIMEDOUT}


def is_silence(error: BaseException) -> bool:
    """Whether a failed connection means that nobody was there to answer, not even to refuse."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, OSError) and error.errno in _UNREACHABLE
    )


class Peers:
    """The addresses that the operator last told us.

    The known address is tried again and again beside asking for a new one: in a restart in
    place or a short break of the network it stays right, and the operator may be away.
    """

    def __init__(self, config: PodConfig, endpoint: Endpoint | None, known: PeersResponse) -> None:
        self._config = config
        self._endpoint = endpoint
        self._known = known
        self._asked = False

    async def lead_address(self, silent: bool = False) -> str:
        """Address of worker 0's agent; waits until there is one.

        Args:
            silent: whether nothing came from the address given last, for as long as it takes to
                be sure (`is_silence`). The operator is told: power cuts are noticed here first.
        """
        if self._config.leads or self._endpoint is None:
            return self._config.address
        missed = self._lead()
        while True:
            lead = self._lead()
            address = lead and lead.address
            if address and not self._asked:
                self._asked = True  # the next call means that this address did not work
                return address
            wait = _SHORT_POLL_SECONDS if address else _LONG_POLL_SECONDS
            news = await self._endpoint.peers(
                after=self._known.version, wait=wait, silent=missed.uid if silent and missed else ""
            )
            self._known = news or self._known
            self._asked = False

    def _lead(self) -> Peer | None:
        return next((peer for peer in self._known.peers if peer.index == 0), None)
