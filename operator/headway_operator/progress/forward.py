"""A replica that does not lead hands requests on to the one that does."""

import ssl
from typing import Final

import aiohttp
from aiohttp import web

from headway_operator.progress.refusals import Refusal
from headway_operator.progress.routes import LONGEST_POLL, read_body

FORWARDED: Final = "X-Headway-Forwarded"
"""Marks a request that one replica has handed on already: it never goes further."""
CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = LONGEST_POLL + 10
RETRY_SECONDS: Final = 1
_SENT_ON: Final = ("Authorization", "Content-Type", "Content-Encoding")
_SENT_BACK: Final = ("Content-Type", "Retry-After")


class Forwarder:
    """Sends requests to the leading replica, whose certificate has to be ours.

    Args:
        ca: PEM of the endpoint's authority.
        server_hostname: a name in the serving certificate; replicas are reached by address.
    """

    def __init__(self, ca: str, server_hostname: str) -> None:
        self._server_hostname = server_hostname
        context = ssl.create_default_context(cadata=ca)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
        )

    async def forward(self, request: web.Request, leader: str) -> web.Response:
        """The leader's answer to this request.

        Args:
            request: of a pod.
            leader: `https://<ip>:<port>`.

        Raises:
            Refusal: 503 when the request was handed on already, or the leader can't be reached.
        """
        if FORWARDED in request.headers:
            raise Refusal(503, "no replica of the operator leads at the moment", RETRY_SECONDS)
        body = await read_body(request)
        headers = {name: request.headers[name] for name in _SENT_ON if name in request.headers}
        try:
            async with self._session.request(
                request.method,
                f"{leader}{request.raw_path}",
                data=body or None,
                headers={**headers, FORWARDED: "1"},
                server_hostname=self._server_hostname,
                allow_redirects=False,
            ) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={k: answer.headers[k] for k in _SENT_BACK if k in answer.headers},
                )
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise Refusal(
                503, "the operator's leading replica does not answer; try again", RETRY_SECONDS
            ) from None

    async def close(self) -> None:
        """Close the connections to the leader."""
        await self._session.close()
